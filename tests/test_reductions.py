"""Reductions: exact, and the same bits at any number of ranks."""

import math

import numpy as np
import pytest
from mpi4py import MPI
from reference import everywhere, function_of, grid_of, messages, random_field, values, whole, with_halo

import hpcframe as hf

pytestmark = pytest.mark.mpi
INF, NAN = math.inf, math.nan


def field_of(comm, array, components=0, **options):
    """A field that holds an array; its leading axes are components."""
    array = np.asarray(array)
    shape = array.shape[components:]
    grid = hf.Grid(shape, extent=[n / 8 for n in shape], comm=comm)
    field = grid.field("u", dtype=array.dtype, components=array.shape[:components], **options)
    return field.scatter(array if comm.rank == 0 else None)


def same(comm, result, expected):
    """Whether all ranks got exactly this number: equal bits but for the sign of zero, nan equal to nan."""
    right = type(result) is type(expected) and (result == expected or (result != result and expected != expected))
    return everywhere(comm, right)


def wide_values(shape, seed=1):
    """Values over 60 decades and their negatives but for rounding: a plain sum has no right digit."""
    chance = np.random.default_rng(seed)
    array = chance.choice([-1.0, 1.0], shape) * 10 ** chance.uniform(-30, 30, shape)
    flat = array.reshape(-1)
    half = flat.size // 2
    flat[half : 2 * half] = -flat[:half] * (1 + 1e-15 * chance.integers(0, 3, half))
    return array


# -- against math.fsum and NumPy --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5001,), (37, 83), (11, 13, 17)])
@pytest.mark.parametrize("make", [values, wide_values])
def test_sums_are_exact_and_rounded_once(comm, shape, make):
    array = make(shape)
    u = field_of(comm, array)
    grid, total = u.grid, math.fsum(array.flat)
    assert same(comm, grid.sum(u), total)
    assert same(comm, grid.integral(u), total * math.prod(grid.spacing))
    assert same(comm, grid.norm(u, 1), math.fsum(abs(array).flat))
    assert same(comm, grid.norm(u), math.sqrt(math.fsum((array * array).flat)))
    assert same(comm, grid.dot(u, u), math.fsum((array * array).flat))
    mean = math.fsum(array.flat) / array.size  # rounded twice, the library's once
    assert everywhere(comm, abs(grid.mean(u) - mean) <= math.ulp(mean))


def test_extremes_and_where_they_are(comm):
    array = values((13, 10))
    u = field_of(comm, array)
    for name, choose in (("min", np.argmin), ("max", np.argmax)):
        where = tuple(map(int, np.unravel_index(choose(array), array.shape)))
        assert same(comm, getattr(u.grid, name)(u), float(array[where]))
        assert same(comm, getattr(u.grid, f"arg{name}")(u), (float(array[where]), where))
    assert same(comm, u.grid.norm(u, INF), float(abs(array).max()))


def test_of_equal_extremes_the_first_in_row_major_order_counts(comm):
    array = np.zeros((12, 10))
    array[[9, 3, 3, 11], [1, 7, 2, 0]] = 5.0
    u = field_of(comm, array)
    assert same(comm, u.grid.argmax(u), (5.0, (3, 2)))
    assert same(comm, u.grid.argmin(u), (0.0, (0, 0)))
    assert same(comm, u.fill(-0.0).grid.argmax(u), (0.0, (0, 0)))


@pytest.mark.parametrize(
    ("special", "total"),
    [((INF,), INF), ((-INF, -INF), -INF), ((INF, -INF), NAN), ((NAN,), NAN), ((NAN, INF), NAN), ((-0.0,), None)],
)
def test_infinities_nan_and_negative_zero(comm, special, total):
    array = values((12, 10))
    array.reshape(-1)[[5, 110][: len(special)]] = special
    u = field_of(comm, array)
    grid = u.grid
    assert same(comm, grid.sum(u), math.fsum(array.flat) if total is None else total)
    assert same(comm, grid.mean(u), grid.sum(u) if total is not None else grid.mean(u))
    for name in ("min", "max"):
        assert same(comm, getattr(grid, name)(u), float(getattr(np, name)(array)))
    assert same(
        comm, grid.norm(u), NAN if np.isnan(array).any() else grid.norm(u, 1) if INF in abs(array) else grid.norm(u)
    )
    assert same(comm, grid.norm(u, INF), float(abs(array).max()))


def test_where_the_first_nan_is(comm):
    array = values((12, 10))
    array[[11, 4], [3, 8]] = NAN
    u = field_of(comm, array)
    for found, where in (u.grid.argmax(u), u.grid.argmin(u)):
        assert everywhere(comm, math.isnan(found) and where == (4, 8))


def test_cancellation_and_overflow_of_partial_sums(comm):
    array = np.zeros(64)
    array[[0, 20, 40, 63]] = 1e308, 1e308, 3e-300, -1e308
    array[50] = -1e308
    u = field_of(comm, array)
    assert same(comm, u.grid.sum(u), 3e-300)
    assert same(comm, u.grid.mean(u), 3e-300 / 64)
    array[50] = 0.0
    u.scatter(array if comm.rank == 0 else None)
    assert same(comm, u.grid.sum(u), 1e308)


# -- dtypes, components, staggering -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_whole_numbers_stay_whole(comm, dtype):
    array = np.random.default_rng(1).integers(-(2**30), 2**30, (13, 10)).astype(dtype)
    u = field_of(comm, array)
    assert same(comm, u.grid.sum(u), int(array.sum(dtype=object)))
    assert same(comm, u.grid.max(u), int(array.max()))
    assert same(comm, u.grid.argmin(u)[0], int(array.min()))
    assert same(comm, u.grid.mean(u), int(array.sum(dtype=object)) / array.size)
    assert same(comm, u.grid.norm(u), math.sqrt(math.fsum(float(x) ** 2 for x in array.flat)))


def test_sums_of_the_largest_whole_numbers(comm):
    u = field_of(comm, np.full(64, -(2**63)))
    assert same(comm, u.grid.sum(u), -(2**69))
    assert same(comm, u.grid.min(u), -(2**63))
    assert same(comm, u.grid.norm(u, 1), 2.0**69)
    assert same(comm, u.grid.norm(u, INF), 2.0**63)
    assert same(comm, u.grid.norm(u), 2.0**66)


def test_products_of_large_whole_numbers_do_not_wrap_around(comm):
    u = field_of(comm, np.full(64, 2**40))
    assert everywhere(comm, u.grid.dot(u, u) == 2**86)


def test_single_precision_is_summed_in_double(comm):
    array = (values((13, 10)) * 1e30).astype(np.float32)
    u = field_of(comm, array)
    double = array.astype(float)
    assert same(comm, u.grid.sum(u), math.fsum(double.flat))
    assert same(comm, u.grid.norm(u), math.sqrt(math.fsum((double * double).flat)))
    assert same(comm, u.grid.dot(u, u), math.fsum((double * double).flat))
    assert same(comm, u.grid.max(u), float(array.max()))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_fields(comm, dtype):
    a, b = values((13, 10), dtype), values((13, 10), dtype, seed=2)
    u = field_of(comm, a)
    v = u.grid.field("v", dtype=dtype).scatter(b if comm.rank == 0 else None)
    assert same(comm, u.grid.sum(u), complex(math.fsum(a.real.flat), math.fsum(a.imag.flat)))
    squares = a.real.astype(float) ** 2, a.imag.astype(float) ** 2
    assert same(comm, u.grid.norm(u), math.sqrt(math.fsum((squares[0] + squares[1]).flat)))
    assert everywhere(comm, abs(u.grid.dot(u, v) - np.vdot(a, b)) < 1e-4)
    assert everywhere(comm, u.grid.dot(u, v) == u.grid.dot(v, u).conjugate())
    assert all("complex numbers have no order" in message for message in messages(comm, lambda: u.grid.max(u)))


def test_fields_with_components_are_reduced_over_all_of_them(comm):
    array = values((2, 3, 13, 10))
    u = field_of(comm, array, components=2, halo=2)
    v = u.grid.field("v", components=(2, 3)).fill(2.0)
    assert same(comm, u.grid.sum(u), math.fsum(array.flat))
    assert same(comm, u.grid.max(u), float(array.max()))
    assert same(comm, u.grid.dot(u, v), 2 * math.fsum(array.flat))
    assert same(comm, u.grid.mean(v), 2.0)
    assert all("has components" in message for message in messages(comm, lambda: u.grid.argmax(u)))


def test_staggered_fields_count_every_face_once(comm):
    grid = hf.Grid((12, 10), comm=comm)
    faces = grid.field("faces", staggered=(0, 1)).fill(1.0)
    assert same(comm, grid.sum(faces), 143.0)
    faces.scatter(values((13, 11)) if comm.rank == 0 else None)
    assert same(comm, grid.sum(faces), math.fsum(values((13, 11)).flat))
    where = tuple(map(int, np.unravel_index(values((13, 11)).argmax(), (13, 11))))
    assert everywhere(comm, grid.argmax(faces)[1] == where)
    assert all("cell centres" in message for message in messages(comm, lambda: grid.integral(faces)))


# -- a user's own -----------------------------------------------------------------------------------------------


@hf.reduction("integral")
def energy(u, w, k=0.5):
    slope = u[1, 0] - u[0, 0]
    return k * slope * slope + (w[1, 0, -1] if slope > 0 else w[0, 0, 0])


@hf.reduction("argmax")
def steepest(u):
    return abs(u[0, 1] - u[0, -1]) + 0.0 * hf.index(0)


@hf.reduction("max")
def largest_whole(u):
    return 2 * u[0, 0] + hf.index(1)


@hf.reduction("sum")
def near(u):
    return u[1, 0]


@hf.reduction("sum")
def far(u):
    return u[2, 0] - u[0, -2]


def by_numpy(u, w, k=0.5):
    p, q = with_halo(u, whole(u), (1, 1)), with_halo(w, whole(w), (1, 1))
    slope = p[2:, 1:-1] - p[1:-1, 1:-1]
    return k * slope * slope + np.where(slope > 0, q[1, 1:-1, :-2], q[0, 1:-1, 1:-1])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_reduction_of_a_point_expression_reads_neighbours_and_walls(comm, seed):
    grid = grid_of(comm, 2, seed)
    u, w = random_field(grid, "u"), random_field(grid, "w", 5, components=(2,))
    assert same(comm, energy(u, w), math.fsum(by_numpy(u, w).flat) * math.prod(grid.spacing))
    assert same(comm, energy(u, w, k=2), math.fsum(by_numpy(u, w, 2.0).flat) * math.prod(grid.spacing))
    p = with_halo(u, whole(u), (1, 1))
    steps = abs(p[1:-1, 2:] - p[1:-1, :-2])
    where = tuple(map(int, np.unravel_index(steps.argmax(), steps.shape)))
    assert same(comm, steepest(u), (float(steps.max()), where))


def test_a_reduction_of_whole_numbers_is_exact(comm):
    u = field_of(comm, np.full((12, 10), 2**53 + 1))
    assert same(comm, largest_whole(u), 2**54 + 11)


def test_a_view_written_on_one_rank_is_seen_by_a_reduction_that_reads_neighbours(comm):
    grid = hf.Grid((12, 10), periodic=True, comm=comm)
    u = grid.field("u", halo=2).fill(1.0)
    assert same(comm, far(u), 0.0)
    if comm.rank == comm.size - 1:
        u.interior[...] = 2.0
    array = whole(u)
    assert same(comm, far(u), math.fsum((np.roll(array, -2, 0) - np.roll(array, 2, 1)).flat))
    assert same(comm, near(u), math.fsum(array.flat))


# -- several in one message -------------------------------------------------------------------------------------


def test_batched_terms_equal_single_ones(comm):
    grid = grid_of(comm, 2, 1)
    u, w = random_field(grid, "u"), random_field(grid, "w", 5, components=(2,))
    n, c = random_field(grid, "n", dtype="int64"), random_field(grid, "c", dtype="complex64")
    names = ("sum", "mean", "integral", "min", "argmax", "norm1", "norm2", "norminf")
    terms = [*((name, u) for name in names), energy.of(u, w), ("dot", u, u), ("sum", n), ("sum", c), ("max", w)]
    single = [grid.reduce(term)[0] for term in terms]
    assert everywhere(comm, list(grid.reduce(*terms)) == single)
    assert everywhere(comm, list(grid.reduce(*terms[::-1])) == single[::-1])
    assert grid.reduce() == ()


@pytest.mark.mpi
def test_reductions_under_way_have_the_values_of_their_start(comm):
    grid = hf.Grid((7, 9, 8), comm=comm)
    u, v = grid.fields("u", "v")
    u.fill(lambda x, y, z: np.sin(9 * x) + y * z)
    v.fill(lambda x, y, z: x - y)
    terms = ("sum", u), ("max", u), ("argmin", v)
    expected = grid.reduce(*terms), grid.reduce(("norm2", v))
    under_way = grid.start_reduce(*terms), grid.start_reduce(("norm2", v))
    u.fill(5.0)
    v.fill(-7.0)
    assert everywhere(comm, tuple(each.finish() for each in under_way) == expected)
    with pytest.raises(hf.InputError, match="expected terms"):
        grid.start_reduce()


def test_batched_terms_of_different_reach(comm):
    grid = hf.Grid((12, 10), periodic=True, comm=comm)
    u = random_field(grid, "u")
    array = whole(u)
    expected = math.fsum(array.flat), math.fsum((np.roll(array, -2, 0) - np.roll(array, 2, 1)).flat)
    assert everywhere(comm, grid.reduce(near.of(u), far.of(u)) == expected)


@pytest.mark.parametrize("layout", [(0, 0), (1, 0), (0, 1)])
def test_any_number_of_ranks_gives_the_bits_of_one(comm, layout):
    def reduced(communicator):
        ranks = [min(n, communicator.size) for n in layout]
        grid = hf.Grid((24, 20), extent=(3.0, 0.7), ranks=ranks, comm=communicator)
        u = grid.field("u").scatter(wide_values((24, 20)) if communicator.rank == 0 else None)
        v = grid.field("v", dtype="float32").fill(lambda x, y: x * y)
        w = grid.field("w", components=(2,), boundary=hf.Dirichlet(0.3)).fill(lambda x, y: x + y)
        terms = [(name, field) for name in ("sum", "mean", "integral", "max", "norm1", "norm2") for field in (u, v)]
        return grid.reduce(*terms, ("dot", u, v), ("argmin", u), energy.of(u, w))

    assert everywhere(comm, reduced(comm) == reduced(MPI.COMM_SELF))


# -- what is refused --------------------------------------------------------------------------------------------


def test_what_cannot_be_reduced_is_refused(comm):
    grid = hf.Grid((12, 10), comm=comm)
    u, w = grid.field("u"), grid.field("w", components=(2,))
    faces = grid.field("faces", staggered=(0,))
    refusals = [
        (lambda: grid.reduce(("summ", u)), "no reduction 'summ'; did you mean 'sum'?"),
        (lambda: grid.reduce(("dot", u)), "'dot' takes 2 field(s)"),
        (lambda: grid.reduce(("sum", 3)), "'sum' takes 1 field(s)"),
        (lambda: grid.norm(u, 3), "norm of order 3: 1, 2 or float('inf') are possible"),
        (lambda: grid.dot(u, w), "differ in components"),
        (lambda: grid.dot(u, faces), "staggered in different ways"),
        (lambda: near(w), "'u' is indexed with 2 entries"),
        (lambda: hf.reduction("total")(lambda u: u[0]), "hf.reduction('total'): no such kind"),
        (lambda: hf.reduction(near.__wrapped__), 'hf.reduction takes a kind: @hf.reduction("sum")'),
    ]
    for call, reason in refusals:
        assert all(m.startswith("InputError") and reason in m for m in messages(comm, call)), reason


@pytest.mark.parametrize("body", ["a = u[0]", "u[0] = 1.0", "return 1.0", "return u[0]\n    a = 1.0", "return"])
def test_a_reduction_returns_one_expression_of_fields(comm, body):
    function = function_of(f"def total(u):\n    {body}\n", "total")
    with pytest.raises(hf.InputError, match=r":[123]: "):
        hf.reduction("sum")(function)
