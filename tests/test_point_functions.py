"""What a point function may say, from temporaries to random expressions: NumPy on the whole array says the same."""

import math
import random

import numba
import numpy as np
import pytest
from reference import by_numpy, function_of, grid_of, is_right, random_field, whole, with_halo

import hpcframe as hf

pytestmark = pytest.mark.mpi
WEIGHTS = (0.1, 0.7, -0.3)
TABLE = np.array([0.3, 0.6])
REACH = 2
DEBUG = False


def run(comm, stencil, *, seed=0, dtype=np.float64, **scalars):
    """Whether a stencil (v, u, scalars) of two axes gives what NumPy makes of the same function."""
    grid = grid_of(comm, 2, seed)
    v, u = grid.field("v", dtype=dtype), random_field(grid, "u", dtype=dtype)
    expected = by_numpy(stencil, v, u, **scalars)
    stencil(v, u, **scalars)
    return is_right(v, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporaries_loops_over_constants_and_numbers_from_outside(comm, dtype):
    inner = 0.37

    @hf.stencil
    def smooth(v, u):
        total = 0
        for step in range(-REACH, REACH + 1, REACH):
            total += u[step, 0] * inner
        for number in (0, 1, 2):
            total = total + WEIGHTS[number] * u[0, number - 1]
        scaled, shift = total / 3, u[0, 0] ** 2
        shift *= math.pi
        v[0, 0] = scaled - shift

    assert run(comm, smooth, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_branches_and_conditional_expressions(comm, dtype):
    @hf.stencil
    def limited(v, u, limit):
        left, right = u[0, 0] - u[0, -1], u[0, 1] - u[0, 0]
        if left * right <= 0:
            slope = 0
        elif abs(left) < abs(right) and not left > limit:
            slope = 2 * left
        else:
            slope = right
        v[0, 0] = (slope if slope < limit else limit) + (1 if DEBUG else 0.5) * max(u[1, 0], u[-1, 0])

    grid = grid_of(comm, 2, 1)
    v, u = grid.field("v", dtype=dtype), random_field(grid, "u", dtype=dtype)
    limited(v, u, 0.7)
    limit = u.dtype.type(0.7)
    padded = with_halo(u, whole(u), (1, 1))
    middle, west, east = padded[1:-1, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    left, right = middle - west, east - middle
    zero = u.dtype.type(0)
    slope = np.where(left * right <= 0, zero, np.where((abs(left) < abs(right)) & (left <= limit), 2 * left, right))
    expected = np.where(slope < limit, slope, limit) + 0.5 * np.maximum(padded[2:, 1:-1], padded[:-2, 1:-1])
    assert is_right(v, expected)


def test_code_that_constants_switch_off_is_left_out(comm):
    @hf.stencil
    def copy(v, u, w):
        v[0, 0] = u[0, -1]
        if DEBUG:
            v[0, 0] = w[0, 5]
        for never in range(0):
            v[0, 0] = w[never, 0]

    grid = grid_of(comm, 2)
    v, u, w = grid.field("v"), random_field(grid, "u"), grid.field("w", halo=0)
    copy(v, u, w)
    assert is_right(v, by_numpy(copy, v, u, w))
    assert w.halo == (0, 0)


def test_helpers_compiled_by_numba_and_functions_of_math_and_numpy(comm):
    shift = 0.25

    @numba.njit
    def row(x):  # also a name that a generated loop might use
        return x * x + shift

    @numba.njit
    def helper(x, y):
        return row(x) - y

    @hf.stencil
    def applied(v, u, at, i0):
        n1, s0, u1 = math.sqrt(abs(u[1, 0])), np.floor(u[0, 0]), min(u[0, 1], 0.3)
        v[0, 0] = helper(n1, s0) * at + row(u1) / i0 + TABLE[1] * abs(np.float64(u[0, -1]))

    grid = grid_of(comm, 2, 1)
    v, u = grid.field("v"), random_field(grid, "u")
    applied(v, u, 0.3, 0.7)
    p = with_halo(u, whole(u), (1, 1))
    east = np.minimum(p[1:-1, 2:], 0.3)
    root = np.sqrt(abs(p[2:, 1:-1]))
    expected = (root * root + 0.25 - np.floor(p[1:-1, 1:-1])) * 0.3 + (east * east + 0.25) / 0.7
    expected = expected + 0.6 * abs(p[1:-1, :-2])
    assert is_right(v, expected)


def test_names_like_those_of_time_levels_and_of_the_upper_plane(comm):
    @hf.stencil
    def leap(u2, u1, u0, t_above, n0):
        t = u1[1, 0] - u1[-1, 0]
        first0, start, regions = t * t_above, u1[0, 1], 2.0
        u2[0, 0] = first0 * n0 + start * regions - u0[0, 0]

    grid = grid_of(comm, 2, 1)
    fields = grid.field("u2"), random_field(grid, "u1"), random_field(grid, "u0", 7)
    leap(*fields, 0.9, 1.1)
    assert is_right(fields[0], by_numpy(leap, *fields, 0.9, 1.1))


def test_temporaries_may_be_named_like_builtins(comm):
    @hf.stencil
    def spread(v, u):
        range = u[1, 0] - u[-1, 0]
        min = u[0, 1] * range
        v[0, 0] = min - range

    assert run(comm, spread)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_the_global_index_of_a_point(comm, dtype):
    @hf.stencil
    def source(v, u, row):
        inside = hf.index(0) == row and 2 <= hf.index(1) < 7
        v[0, 0] = u[0, 0] * (hf.index(1) % 3) + hf.index(0) if not inside else 5

    grid = grid_of(comm, 2)
    v, u = grid.field("v", dtype=dtype), random_field(grid, "u", dtype=dtype)
    source(v, u, 4)
    i, j = np.indices(u.shape)
    expected = np.where((i == 4) & (j >= 2) & (j < 7), 5, whole(u) * (j % 3).astype(dtype) + i.astype(dtype))
    assert is_right(v, expected)


@pytest.mark.parametrize("offset", [(5, 0), (-5, 5), (0, -5)])
def test_far_offsets(comm, offset):
    grid = hf.Grid((40, 40), periodic=(True, False), comm=comm)
    v, u = grid.field("v"), random_field(grid, "u")
    for far in (1, 5 * (comm.size < 5) + 1):
        i, j = (far * (step > 0) - far * (step < 0) for step in offset)

        @hf.stencil
        def shifted(v, u):
            v[0, 0] = u[i, j] - u[0, 0]  # noqa: B023

        shifted(v, u)
        padded = with_halo(u, whole(u), (6, 6))
        assert is_right(v, padded[6 + i : 46 + i, 6 + j : 46 + j] - padded[6:46, 6:46])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_literals_and_scalars_keep_the_precision(comm, dtype):
    @hf.stencil
    def turned(v, u, k):
        v[0, 0] = 2j * u[0, 0] + (u[1, 0] - k * u[0, -1]) * 0.5j

    assert run(comm, turned, dtype=dtype, k=2.0)
    assert run(comm, turned, dtype=dtype, k=2j)


def test_single_precision_beside_whole_numbers(comm):
    @hf.stencil
    def masked(v, u, cell):
        twice = cell[0, 0] * 2
        v[0, 0] = u[0, 1] * 0.1 if (twice * 3) & 2 else u[0, 0] / 3

    grid = grid_of(comm, 2)
    v, u = grid.field("v", dtype="float32"), random_field(grid, "u", dtype="float32")
    cell = random_field(grid, "cell", dtype="int64")
    masked(v, u, cell)
    padded = with_halo(u, whole(u), (1, 1))
    expected = np.where(whole(cell) % 2 == 1, padded[1:-1, 2:] * np.float32(0.1), padded[1:-1, 1:-1] / np.float32(3))
    assert is_right(v, expected)


# -- random point functions -------------------------------------------------------------------------------------


class Writer:
    """Writes the text of a random point function, which Python and NumPy can run alike."""

    def __init__(self, ndim, seed):
        self.chance, self.ndim, self.temporaries = random.Random(seed), ndim, []

    def access(self):
        offset = [self.chance.choice((-1, 0, 0, 1)) for _ in range(self.ndim)]
        component = [self.chance.randrange(2)] if self.chance.random() < 0.4 else []
        return f"{'w' if component else 'u'}[{', '.join(map(str, component + offset))}]"

    def leaf(self):
        others = ["0.3", "2", "k", "FACTOR", *self.temporaries]
        return self.access() if self.chance.random() < 0.6 else self.chance.choice(others)

    def expression(self, depth):
        if depth == 0:
            return self.leaf()
        one, other = self.expression(depth - 1), self.expression(self.chance.randrange(depth))
        forms = ["({a} + {b})", "({a} - {b})", "({a} * {b})", "({a} / (2 + {b} * {b}))", "abs({a} - {b})"]
        form = self.chance.choice([*forms, "where({c} > {b}, {a}, {c})", "sqrt(1 + {a} * {a})"])
        return form.format(a=one, b=other, c=self.access())

    def text(self):
        zero = ", ".join("0" * self.ndim)
        lines = ["def point(v, x, u, w, k):"]
        for number in range(3):
            lines.append(f"    t{number} = {self.expression(2)} + 0.1 * {self.access()}")
            self.temporaries.append(f"t{number}")
        return "\n".join(
            [*lines, f"    v[{zero}] = {self.expression(3)} + t2", f"    x[1, {zero}] = t0 * {self.access()}"]
        )


@numba.njit
def where(condition, one, other):
    return one if condition else other


@pytest.mark.parametrize("seed", range(9))
def test_random_point_functions_give_the_bits_of_numpy(comm, seed):
    ndim, dtype = 1 + seed % 3, ("float64", "float32")[seed % 2]
    text = Writer(ndim, seed).text()
    point = hf.stencil(function_of(text, "point", where=where, sqrt=math.sqrt, FACTOR=-1.7))
    grid = grid_of(comm, ndim, seed)
    v, x = grid.field("v", dtype=dtype), grid.field("x", dtype=dtype, components=(2,))
    u, w = random_field(grid, "u", dtype=dtype), random_field(grid, "w", 9, dtype=dtype, components=(2,))
    point(v, x, u, w, 0.9)
    point.__wrapped__.__globals__.update(where=np.where, sqrt=np.sqrt)
    expected, at_x = by_numpy(point, v, x, u, w, 0.9)
    assert is_right(v, expected), text
    at_x[0] = 0  # never written
    assert is_right(x, at_x), text


def test_a_negative_number_keeps_its_sign_in_a_power(comm):
    @hf.stencil
    def powered(v, u, n):
        v[0, 0] = u[0, 0] * (1.0 - 3.0) ** n

    assert run(comm, powered, n=2.0)
