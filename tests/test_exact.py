"""Exact sums: every bit right, whatever the order, the split and the mixture of values."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import ArrayLike, NDArray

from hpcframe.stencils.exact import (
    LIMBS,
    deposit,
    deposit_integers,
    deposit_rows,
    exact_integer,
    normalise,
    to_float,
    to_int,
    to_mean,
)

LARGEST = np.finfo(np.float64).max
SMALLEST = 2.0**-1074
FINITE = st.floats(allow_nan=False, allow_infinity=False)  # All exponents alike, with subnormals and both zeros.
INT64 = st.integers(-(2**63), 2**63 - 1)


def summed(*parts: ArrayLike) -> NDArray[np.int64]:
    """Normalised limbs of all parts, each deposited into limbs of its own, then added as ranks do."""
    total = np.zeros(LIMBS, np.int64)
    for part in parts:
        limbs = np.zeros(LIMBS, np.int64)
        values = np.array(part, dtype=np.float64)
        deposit(values, values.size, limbs)
        total += limbs
    normalise(total)
    return total


def in_smallest_units(values: ArrayLike) -> int:
    """The true sum as a multiple of 2^-1074, by rational arithmetic."""
    total = sum((Fraction(value) for value in np.asarray(values, np.float64).tolist()), Fraction(0)) * 2**1074
    assert total.denominator == 1
    return total.numerator


def same_bits(a: float, b: float) -> bool:
    return np.float64(a).tobytes() == np.float64(b).tobytes()


def wide(count: int, decades: float, seed: int) -> NDArray[np.float64]:
    """Values of both signs, logarithmically spread around 1."""
    random = np.random.default_rng(seed)
    return random.choice([-1.0, 1.0], count) * 10 ** random.uniform(-decades / 2, decades / 2, count)


@given(st.lists(FINITE, max_size=60))
def test_no_bit_is_lost(values: list[float]) -> None:
    assert exact_integer(summed(values)) == in_smallest_units(values)


@given(st.lists(FINITE, max_size=60))
def test_rounds_as_fsum(values: list[float]) -> None:
    try:
        expected = math.fsum(values)
    except OverflowError:  # fsum gives up where only a partial sum overflows.
        return
    assert same_bits(to_float(summed(values)), expected)


@settings(max_examples=40)
@given(st.integers(0, 5000), st.floats(0, 600), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 5000), max_size=7))
def test_order_and_split_do_not_show(count: int, decades: float, seed: int, cuts: list[int]) -> None:
    values = wide(count, decades, seed)
    whole = summed(values)
    shuffled = np.random.default_rng(seed).permutation(values)
    assert np.array_equal(summed(*np.split(shuffled, sorted(cuts))), whole)
    assert exact_integer(whole) == in_smallest_units(values)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 1023, 1024, 1025, 2048, 5000])
@pytest.mark.parametrize("decades", [0, 12, 15, 16, 40, 600])
def test_any_count_and_range(count: int, decades: float) -> None:
    values = wide(5001, decades, seed=count)
    limbs = np.zeros(LIMBS, np.int64)
    deposit(values, count, limbs)
    assert exact_integer(limbs) == in_smallest_units(values[:count])


def test_full_blocks_of_every_exponent() -> None:
    """Equal values with all significand bits set give the largest sum a block can have."""
    values = np.empty(5000)
    for exponent in range(-1074, 1024):
        value = float(np.nextafter(2.0**exponent, 0.0) * 2) if exponent > -1074 else SMALLEST
        for signed in (value, -value):
            limbs = np.zeros(LIMBS, np.int64)
            values[:] = signed
            deposit(values, values.size, limbs)
            assert exact_integer(limbs) == values.size * int(Fraction(signed) * 2**1074)


def test_every_exponent_at_once() -> None:
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    values = np.concatenate([powers, -np.nextafter(powers, 0.0), np.nextafter(powers, np.inf)[:-1]])
    assert exact_integer(summed(values)) == in_smallest_units(values)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 300, 1023, 1500])
def test_rows_and_nothing_between_them(count: int) -> None:
    rows, first, stride = 6, 3, count + 5
    values = np.full(first + rows * stride, np.nan)
    inside = values[first:].reshape(rows, stride)[:, :count]
    inside[:] = wide(rows * count, 12, seed=count).reshape(rows, count)
    limbs = np.zeros(LIMBS, np.int64)
    deposit_rows(values, first, rows, stride, count, limbs, 0)
    assert to_float(limbs) == math.fsum(inside.flat)


@pytest.mark.parametrize("position", [0, 1, 52, 1000, 1075, 2045])
def test_where_anchors_are_tried_first_changes_no_bit(position: int) -> None:
    """Blocks far above and below those before them, and values just below a power of two."""
    scales = np.repeat([1.0, 1e-300, 1e300, 0.0, SMALLEST, 1.0, 1.0, 1e40, 1e-40], 1024)
    values = wide(scales.size, 8, seed=5) * scales
    values[5 * 1024 : 6 * 1024] = np.nextafter(1.0, 0.0)
    limbs = np.zeros(LIMBS, np.int64)
    deposit_rows(values, 0, 1, 0, values.size, limbs, position)
    assert exact_integer(limbs) == in_smallest_units(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([-0.0], 0.0),
        ([-0.0] * 2000, 0.0),
        ([0.0] * 1024 + [3.0], 3.0),
        ([1e300, 1.0, 1e-300, -1e300, -1.0], 1e-300),
        ([1e16, 1.0, -1e16], 1.0),
        ([0.1] * 10, 1.0),
        ([1.0, 2.0**-53], 1.0),  # A tie goes to the even neighbour,
        ([1.0, 2.0**-53, SMALLEST], 1.0 + 2.0**-52),  # unless anything lies beyond it.
        ([1.0 + 2.0**-52, 2.0**-53], 1.0 + 2.0**-51),
        ([SMALLEST] * 3, 3 * SMALLEST),
        ([2.0**-1022, -SMALLEST], 2.0**-1022 - SMALLEST),
        ([LARGEST, LARGEST, -LARGEST], LARGEST),
        ([LARGEST, LARGEST], math.inf),
        ([-LARGEST, -LARGEST], -math.inf),
        ([LARGEST, 2.0**969], LARGEST),
        ([LARGEST, 2.0**970], math.inf),
        ([LARGEST, 2.0**970, -SMALLEST], LARGEST),
    ],
)
def test_known_sums(values: list[float], expected: float) -> None:
    assert same_bits(to_float(summed(values)), expected)


@pytest.mark.parametrize(
    ("specials", "expected"),
    [
        ([math.inf], math.inf),
        ([-math.inf, -math.inf], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan], math.nan),
        ([-math.nan, math.inf], math.nan),
    ],
)
@pytest.mark.parametrize("place", [0, 500, 1023, 1500])
def test_infinities_and_nan(specials: list[float], expected: float, place: int) -> None:
    values = np.insert(wide(2000, 12, seed=1), place, specials)
    for limbs in (summed(values), summed(*np.split(values, [place + 1]))):
        assert np.array_equal(to_float(limbs), expected, equal_nan=True)
        assert np.array_equal(to_mean(limbs, 7), expected, equal_nan=True)
        assert exact_integer(limbs) == in_smallest_units(values[np.isfinite(values)])
        with pytest.raises(ValueError, match="not an integer"):
            to_int(limbs)


@given(st.lists(FINITE, min_size=1, max_size=30), st.integers(1, 2**50))
def test_mean_is_the_rounded_quotient(values: list[float], count: int) -> None:
    quotient = Fraction(in_smallest_units(values), count * 2**1074)
    try:
        expected = float(quotient)
    except OverflowError:
        expected = math.copysign(math.inf, quotient)
    assert same_bits(to_mean(summed(values), count), expected)


def test_mean_rounds_once() -> None:
    assert to_mean(summed([LARGEST, LARGEST]), 2) == LARGEST
    assert to_mean(summed([SMALLEST] * 3), 2) == 2 * SMALLEST  # 1.5 units: a tie, to even.
    assert to_mean(summed([2.0**53, 1.0, 0.0]), np.int64(3)) == float(Fraction(2**53 + 1, 3))
    with pytest.raises(ZeroDivisionError):
        to_mean(summed([1.0]), 0)


@given(st.lists(INT64, max_size=50), st.integers(1, 40))
def test_integers(values: list[int], copies: int) -> None:
    array = np.array(values * copies, np.int64)
    limbs = np.zeros(LIMBS, np.int64)
    deposit_integers(array, array.size, limbs)
    total = sum(values) * copies
    assert to_int(limbs) == total
    assert to_float(limbs) == float(total)
    assert to_mean(limbs, 3) == total / 3


def test_integers_of_full_blocks() -> None:
    for value in (-(2**63), 2**63 - 1, 2**32 - 1, -1):
        limbs = np.zeros(LIMBS, np.int64)
        deposit_integers(np.full(3000, value), 2500, limbs)
        assert to_int(limbs) == 2500 * value


def test_a_fraction_is_no_integer() -> None:
    assert to_int(summed([0.5, 2.0**80, 0.5])) == 2**80 + 1
    for values in ([0.5], [1.0, math.inf], [1.0, math.nan]):
        with pytest.raises(ValueError, match="not an integer"):
            to_int(summed(values))


@pytest.mark.parametrize("count", [1, 1024])
@pytest.mark.parametrize("value", [LARGEST, -LARGEST, 1.7, -1.7, -(2.0**31), 5 * SMALLEST, -5 * SMALLEST])
def test_limbs_of_the_largest_machine_add_up(value: float, count: int) -> None:
    """However many calls filled them, 2^24 arrays of limbs can be added."""
    calls, ranks = 10_000, 2**24
    values = np.full(count, value)
    limbs = np.zeros(LIMBS, np.int64)
    for _ in range(calls):
        deposit(values, count, limbs)
    deposited = count * in_smallest_units([value])
    assert exact_integer(limbs) == calls * deposited
    assert np.abs(limbs).max() < 2**38
    total = limbs * ranks
    assert exact_integer(total) == calls * ranks * deposited
    normalise(total)
    assert exact_integer(total) == calls * ranks * deposited
    deposit(values, count, total)
    assert exact_integer(total) == (calls * ranks + 1) * deposited


@given(st.lists(st.integers(-(2**62), 2**62), min_size=LIMBS - 3, max_size=LIMBS - 3))
def test_normalise_keeps_the_sum(raw: list[int]) -> None:
    limbs = np.array([*raw, 4, 5, 6], np.int64)
    before = exact_integer(limbs)
    normalise(limbs)
    assert exact_integer(limbs) == before
    assert limbs[: LIMBS - 4].min() >= 0
    assert limbs[: LIMBS - 4].max() < 2**32
    assert limbs[LIMBS - 3 :].tolist() == [4, 5, 6]
    once = limbs.copy()
    normalise(limbs)
    assert np.array_equal(limbs, once)


@njit(fastmath=True)
def deposit_squares(values: NDArray[np.float64], limbs: NDArray[np.int64]) -> None:
    """A reduction loop as the framework generates it, with the compiler free to reorder its own arithmetic."""
    buffer = np.empty(1024)
    filled = 0
    for value in values:
        buffer[filled] = value * value
        filled += 1
        if filled == buffer.size:
            deposit(buffer, filled, limbs)
            filled = 0
    deposit(buffer, filled, limbs)


def test_called_from_a_fast_math_loop() -> None:
    values = wide(10_000, 30, seed=3)
    limbs = np.zeros(LIMBS, np.int64)
    deposit_squares(values, limbs)
    assert exact_integer(limbs) == in_smallest_units(values * values)


def test_values_are_only_read() -> None:
    values = wide(3000, 100, seed=4)
    values.flags.writeable = False
    before = values.copy()
    limbs = np.zeros(LIMBS, np.int64)
    deposit(values, values.size, limbs)
    assert exact_integer(limbs) == in_smallest_units(before)
    assert np.array_equal(values, before)
