"""Exact sums of float64 and int64: the same bits in any order, on any number of ranks.

A float64 is an integer times 2^-1074, so a sum of float64 is one too. It is kept whole, as a long fixed-point number
(Kulisch's long accumulator), and rounded once, at the end. Integer addition is associative: the order of the values,
their split into blocks and their distribution over ranks cannot change the result.

**The number** is spread over 32-bit limbs held in int64, as in the small superaccumulator of Neal (2015):
sum(limbs[i] * 2^(32 i)), in units of 2^-1074. The upper half of each int64 collects carries, so arrays of limbs are
added elementwise, and carries move on only now and then. Three counters follow: +inf, -inf, nan.

**Many values at once.** Moving each value to its limb is slow. A block of 1,024 values is instead split against two
anchors. An anchor is 1.5 * 2^52 u, u a power of two; adding it to x rounds x to a multiple of u (the error-free vector
transformation of Rump, Ogita and Oishi 2008; the factor 1.5, which admits both signs, as in Demmel and Nguyen 2015).
Why every step is exact, for |x| <= 2^51 u and IEEE rounding to nearest:

1. t = fl(x + anchor) lies in [2^52 u, 2^53 u], where float64 are the multiples of u, consecutive ones with consecutive
   bit patterns. So t - anchor = k u with an integer k, |k| <= 2^51, and k = bits(t) - bits(anchor).
2. The sum of 1,024 such k is at most 2^61: it fits int64. It is formed modulo 2^64, where no order matters.
3. fl(t - anchor) = k u is exact: an integer of at most 52 bits times u.
4. r = fl(x - k u) is exact: k u is a multiple of u nearest to x, hence |r| <= u / 2 and (0 being a multiple too)
   |r| <= |x|. r is a multiple of the last bit of x and not larger than x, so it is a float64.
5. r is split in turn with u / 2^52, since |r| <= u / 2 = 2^51 (u / 2^52). No float64 has bits below 2^-1074, so u stops
   there, and then nothing remains.
6. A large x shows in t: only from 2^52 u up to 2^53 u has t the sign and exponent of the anchor. Where it has, t is
   the multiple of u nearest to x + anchor, and steps 2 to 5 hold. (|x| may exceed 2^51 u by u / 4 then, if x < 0.)

So anchors are tried, those that fitted the block before, and one pass over memory tells whether they were right. If
not, the largest value is looked up for lower or higher ones.

Two splits take the 103 bits below the power of two above the block's largest value, enough for any values that span
15 decades. Where something remains, the remainders are a block like any other and go round again. Blocks with inf, nan
or values whose anchor would overflow go one by one, by their exponent and significand.

Requires round to nearest and gradual underflow (IEEE 754 defaults; no flush to zero).

- U. Kulisch, Computer Arithmetic and Validity, 2nd ed., de Gruyter, 2013 (long accumulator).
- R. M. Neal, Fast exact summation using small and large superaccumulators, arXiv:1505.05571, 2015.
- S. M. Rump, T. Ogita, S. Oishi, Accurate floating-point summation part I, SIAM J. Sci. Comput. 31, 189-224, 2008.
- J. Demmel, H. D. Nguyen, Parallel reproducible summation, IEEE Trans. Comput. 64, 2060-2070, 2015.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcframe.stencils.exact_vectors import split

# 2^1024 / 2^-1074 takes 2098 bits, and fewer than 2^63 values add fewer than 63: the 69 * 32 = 2208 bits never run out.
TOP = 68  # The last limb. It keeps the sign: normalise carries into it, not out of it.
PLUS_INFINITY, MINUS_INFINITY, NOT_A_NUMBER = TOP + 1, TOP + 2, TOP + 3  # Counts of values, so below 2^63.
LIMBS = TOP + 4

BLOCK = 1024  # Proof step 2 needs at most 2^11; what a block costs besides its values is small already.
LOW_WORD = 0xFFFF_FFFF
# Every limb stays below 2^38 in magnitude (see `add`): 2^24 arrays of limbs sum to less than 2^62.
FULL = 1 << 38

Integer = int | np.int64
Block = tuple[int, int, int, int]  # Where it begins, rows, from one to the next, values in each.

# A float64 is, from the top, 1 bit of sign, 11 of exponent, 52 of fraction.
MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF
HIDDEN_BIT = 1 << 52
SPECIAL = 2047  # The exponent of inf and nan.
HUGE = 2044 << 52  # The bits of 2^1021. From there on, a value plus its anchor may round to 2^1024, which overflows.
UNITY = 1074  # The position of 2^0.

# Of functions that only compiled code calls: wrappers for other callers would take a quarter of the time to compile.
within = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@njit(error_model="numpy")
def deposit(values: NDArray[np.float64], count: int, limbs: NDArray[np.int64]) -> None:
    """Add `values[:count]` to `limbs`, exactly. Not collective.

    `values` is a contiguous float64 array of one dimension, `count` at most its length (not checked); `limbs` is
    int64[LIMBS], zeros at first. Whatever the number of calls, limbs cannot overflow, and up to 2^24 arrays filled
    by deposits may be added elementwise. Normalise such a sum before it takes part in another.
    """
    zero, one = np.int64(0), np.int64(1)  # For each literal number numba would compile once more.
    deposit_rows(values, zero, one, zero, count, limbs, zero)


@njit(error_model="numpy")
def deposit_rows(
    values: NDArray[np.float64],
    first: int,
    rows: int,
    stride: int,
    count: int,
    limbs: NDArray[np.int64],
    position: int,
) -> int:
    """Add rows of values, `values[first + i * stride :][:count]` for i in range(rows). As `deposit` otherwise.

    `position`, 0 or what the last call returned, tells where anchors are tried first. It changes no bit.
    """
    together = max(BLOCK // max(count, 1), 1)  # Short rows share a block.
    for row in range(0, rows, together):
        for start in range(0, count, BLOCK):
            block = first + row * stride + start, min(together, rows - row), stride, min(BLOCK, count - start)
            high_sum, low_sum, fits, something_remains = split(values, block, anchor(position), anchor(below(position)))
            if fits and not something_remains:
                add(high_sum, position, limbs)
                add(low_sum, below(position), limbs)
            else:
                position = deposit_in_rounds(values, block, limbs, position)
    return position


@njit(error_model="numpy")
def deposit_integers(values: NDArray[np.int64], count: int, limbs: NDArray[np.int64]) -> None:
    """Add int64 `values[:count]` to `limbs`, exactly. As `deposit` otherwise."""
    for start in range(0, count, BLOCK):
        block = values[start : min(start + BLOCK, count)]
        low, high = 0, 0  # Sums of at most 1,024 halves: below 2^42.
        for i in range(block.size):
            low += block[i] & LOW_WORD
            high += block[i] >> 32
        add(low, UNITY, limbs)
        add(high, UNITY + 32, limbs)


@njit(error_model="numpy")
def normalise(limbs: NDArray[np.int64]) -> None:
    """Carry, so that all limbs but the last lie in [0, 2^32). Not collective.

    Equal sums then have equal limbs. `limbs` is int64[LIMBS], each below 2^63 - 2^32 in magnitude.
    """
    carry = 0
    for i in range(TOP):
        limb = limbs[i] + carry
        limbs[i] = limb & LOW_WORD
        carry = limb >> 32
    limbs[TOP] += carry


@within
def deposit_in_rounds(values: NDArray[np.float64], block: Block, limbs: NDArray[np.int64], position: int) -> int:
    """Add a block with the lowest anchors that fit, until nothing remains. Returns a position for the next block."""
    first, rows, stride, count = block
    rest = np.empty(rows * count)
    for row in range(rows):
        for i in range(count):
            rest[row * count + i] = values[first + row * stride + i]
    largest = largest_magnitude(rest)
    best = fitting(largest) if largest < HUGE else position
    while 0 < largest < HUGE:
        position = fitting(largest)
        high, low = anchor(position), anchor(below(position))
        high_sum, low_sum, _, something_remains = split(rest, (0, 1, 0, rest.size), high, low)
        add(high_sum, position, limbs)
        add(low_sum, below(position), limbs)
        if not something_remains:
            return best
        keep_remainders(rest, high, low)
        largest = largest_magnitude(rest)
    if largest >= HUGE:
        deposit_singly(rest, limbs)
    return best


@within
def largest_magnitude(block: NDArray[np.float64]) -> int:
    """The largest absolute value as bits, which order as the values do; nan comes last."""
    largest = 0
    for i in range(block.size):
        largest = max(largest, int(np.float64(block[i]).view(np.int64)) & MAGNITUDE)
    return largest


@within
def fitting(largest: int) -> int:
    """The position of the lowest anchor that fits values up to this magnitude (as bits)."""
    # With exponent field e, all values are below 2^(e - 1022) = 2^51 u for u = 2^(e + 1) units. What is within u / 2,
    # or two last places, of this power of two would be rounded up to it, so it counts as the next.
    return (largest + 2 >> 52) + 1


@within
def below(position: int) -> int:
    """The position of the second anchor."""
    return max(position - 52, 0)


@within
def anchor(position: int) -> float:
    """1.5 * 2^52 u, where u is 2^position in units of 2^-1074."""
    return np.int64((position + 1) << 52 | 1 << 51).view(np.float64)


@within
def keep_remainders(block: NDArray[np.float64], high: float, low: float) -> None:
    """Keep of each value what both splits leave. Apart from `split`, because it is seldom needed and takes time."""
    for i in range(block.size):
        remainder = block[i] - ((block[i] + high) - high)
        block[i] = remainder - ((remainder + low) - low)


@within
def deposit_singly(block: NDArray[np.float64], limbs: NDArray[np.int64]) -> None:
    """Add values one by one, or count them if they are inf or nan."""
    for i in range(block.size):
        bits = np.float64(block[i]).view(np.int64)
        exponent = bits >> 52 & SPECIAL
        significand = bits & (HIDDEN_BIT - 1)
        if exponent == SPECIAL:
            infinity = PLUS_INFINITY if bits >= 0 else MINUS_INFINITY
            limbs[infinity if significand == 0 else NOT_A_NUMBER] += 1
            continue
        if exponent > 0:  # Zero and subnormal values, of exponent 0, have no hidden bit.
            significand |= HIDDEN_BIT
            exponent -= 1
        add(significand if bits >= 0 else -significand, exponent, limbs)


@within
def add(integer: Integer, position: Integer, limbs: NDArray[np.int64]) -> None:
    """Add integer * 2^position, in units of 2^-1074, to three adjacent limbs.

    Limbs cannot overflow: each changes by less than 2^32, and once one of them reaches 2^38 all are normalised, which
    leaves them below 2^32 (the last one: below 2^31 for fewer than 2^63 values).
    """
    first, shift = position >> 5, position & 31
    above = integer >> (32 - shift)  # Rounds down, so the bits shifted out count as positive.
    limbs[first] += integer << shift & LOW_WORD
    limbs[first + 1] += above & LOW_WORD
    limbs[first + 2] += above >> 32
    if max(abs(limbs[first]), abs(limbs[first + 1]), abs(limbs[first + 2])) >= FULL:
        normalise(limbs)


def exact_integer(limbs: NDArray[np.int64]) -> int:
    """The sum of all finite values, in units of 2^-1074. Not collective."""
    return sum(int(limb) << 32 * i for i, limb in enumerate(limbs[: TOP + 1]))


def to_float(limbs: NDArray[np.int64]) -> float:
    """The sum, rounded once: to nearest, ties to even. Not collective.

    nan if a value was nan or infinities of both signs were added, otherwise the infinity that was added; also
    infinity if the rounded sum exceeds the float64 range. A sum of zero is +0.0.
    """
    return to_mean(limbs, 1)


def to_mean(limbs: NDArray[np.int64], count: Integer) -> float:
    """The exact sum divided by `count`, rounded once. As `to_float` otherwise. Not collective.

    Raises ZeroDivisionError if `count` is 0.
    """
    plus, minus, nan = (bool(counter) for counter in limbs[PLUS_INFINITY:])
    if nan or (plus and minus):
        return math.nan
    if plus or minus:
        return math.inf if plus else -math.inf
    numerator = exact_integer(limbs)
    try:
        return numerator / (int(count) << UNITY)  # Python rounds a quotient of integers correctly.
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def to_int(limbs: NDArray[np.int64]) -> int:
    """The sum as an integer of any size. Not collective.

    Raises ValueError if the sum is not an integer: values with a fraction, inf or nan were deposited.
    """
    integer, fraction = divmod(exact_integer(limbs), 1 << UNITY)
    if fraction or limbs[PLUS_INFINITY:].any():
        raise ValueError("the sum is not an integer, because inf, nan or fractions were deposited; use to_float")
    return integer
