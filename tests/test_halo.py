"""Halos: what a rank sees beyond its block is what one process would see, at any number of ranks."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from reference import beyond, everywhere, exact_values, local, messages, whole, with_halo

import hpcframe as hf
from hpcframe.grid.decomposition import decompose
from hpcframe.grid.halo import Shape, box_reads, plan_transfers, widths

SHAPES = {1: (16,), 2: (12, 10), 3: (6, 7, 8)}
MIXES = [mix for ndim in (1, 2, 3) for mix in itertools.product((True, False), repeat=ndim)]
DTYPES = ["float32", "float64", "complex64", "complex128", "int32", "int64"]
mpi = pytest.mark.mpi


def grid_of(comm, periodic, **options):
    shape = SHAPES[len(periodic)]
    return hf.Grid(shape, extent=[n / 4 for n in shape], periodic=periodic, comm=comm, **options)


def fits(grid, width):
    """A halo of this width, or as wide as the blocks allow; staggered blocks mirror one layer further in."""
    return tuple(min(width, max(1, cells - 1)) for cells in grid.decomposition.smallest)


def filled(field, seed=1):
    """Give a field random values and a halo of rubbish; returns the whole array."""
    points = exact_values(field.shape, field.dtype, seed)
    field.data[...] = np.nan if field.dtype.kind in "fc" else -77
    field.interior[...] = points[(..., *field.block)]
    return points


def is_right(field, points):
    """Whether the local array, corners of the halo included, is what NumPy makes of the whole array."""
    return everywhere(field.grid.comm, np.array_equal(field.local_data, local(field, with_halo(field, points))))


# -- every halo equals that of a single process -----------------------------------------------------------------


@mpi
@pytest.mark.parametrize("periodic", MIXES)
def test_halo_and_corners_are_right_for_any_mix_of_periodic_axes(comm, periodic):
    grid = grid_of(comm, periodic)
    u = grid.field("u", halo=fits(grid, 2))
    points = filled(u)
    u.exchange()
    assert is_right(u, points)


@mpi
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("components", [(), (3,), (2, 2)])
def test_any_dtype_and_components(comm, dtype, components):
    u = grid_of(comm, (True, False)).field("u", dtype=dtype, components=components)
    points = filled(u)
    u.exchange()
    assert is_right(u, points)


@mpi
@pytest.mark.parametrize("staggered", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("periodic", [mix for mix in MIXES if len(mix) == 2])
@pytest.mark.parametrize("condition", [hf.Dirichlet(1.5), hf.Neumann(0.25)])
def test_staggered_fields(comm, staggered, periodic, condition):
    grid = grid_of(comm, periodic)
    u = grid.field("u", staggered=staggered, halo=fits(grid, 2), boundary=condition)
    points = filled(u)
    u.exchange()
    assert is_right(u, points)


@mpi
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_halos_as_wide_as_the_block_on_any_layout(comm, ndim):
    for layout in itertools.product(range(1, comm.size + 1), repeat=ndim):
        if math.prod(layout) == comm.size and all(n >= parts for n, parts in zip(SHAPES[ndim], layout, strict=True)):
            grid = grid_of(comm, (True, False, True)[:ndim], ranks=layout)
            u = grid.field("u", halo=grid.decomposition.smallest)
            points = filled(u)
            u.exchange()
            assert is_right(u, points), layout


@mpi
def test_a_staggered_halo_as_wide_as_the_block_is_right_or_refused_on_all_ranks(comm):
    grid = hf.Grid(2 * comm.size, comm=comm)
    made = []
    refused = messages(comm, lambda: made.append(grid.field("u", staggered=(0,), halo=2)))
    if not made:
        assert "halo of 2" in refused[0]
        assert len(set(refused)) == 1
        return
    points = filled(made[0])
    made[0].exchange()
    assert is_right(made[0], points)


@mpi
def test_one_staggered_cell_a_rank_with_the_default_halo_is_right_or_refused_on_all_ranks(comm):
    made = []
    refused = messages(comm, lambda: made.append(hf.Grid(comm.size, comm=comm).field("u", staggered=(0,))))
    assert made or (len(set(refused)) == 1 and "halo" in refused[0])
    for u in made:
        points = filled(u)
        u.exchange()
        assert is_right(u, points)


@mpi
@pytest.mark.parametrize("halo", [0, (0, 2), (1, 0), (2, 1)])
def test_widths_that_differ_by_axis(comm, halo):
    grid = grid_of(comm, (False, True))
    u = grid.field("u", halo=halo)
    points = filled(u)
    u.exchange()
    assert is_right(u, points)


@mpi
def test_several_fields_of_all_kinds_in_one_exchange(comm):
    grid = grid_of(comm, (True, False))
    kinds = [
        {"dtype": "float32"},
        {"dtype": "complex128", "components": (2,)},
        {"halo": fits(grid, 2), "staggered": (0,)},
        {"dtype": "int64"},
    ]
    fields = [grid.field(f"u{number}", **kind) for number, kind in enumerate(kinds)]
    points = [filled(field, seed) for seed, field in enumerate(fields)]
    grid.exchange(*fields)
    assert all([is_right(field, array) for field, array in zip(fields, points, strict=True)])
    assert everywhere(comm, all(field.fresh for field in fields))


# -- walls ------------------------------------------------------------------------------------------------------


def test_conditions_hold_on_the_wall():
    """Centred: midway between ghost and cell. Staggered: on the outermost point."""
    grid = hf.Grid(4, extent=[2.0])
    u = grid.field("u", halo=2)
    u.boundary[0, 0], u.boundary[0, 1] = hf.Dirichlet(1.0), hf.Neumann(3.0)
    u.scatter([10.0, 20.0, 30.0, 40.0]).exchange()
    assert u.data.tolist() == [-18, -8, 10, 20, 30, 40, 41.5, 34.5]
    v = grid.field("v", halo=2, staggered=(0,))
    v.boundary[0, 0], v.boundary[0, 1] = hf.Dirichlet(1.0), hf.Neumann(3.0)
    v.scatter([10.0, 20.0, 30.0, 40.0, 50.0]).exchange()
    assert v.data.tolist() == [-28, -18, 1, 20, 30, 40, 50, 43, 36]


@mpi
def test_each_wall_has_its_own_condition_of_numbers_and_functions_of_time(comm):
    grid = grid_of(comm, (False, False, True))
    u = grid.field("u", halo=fits(grid, 2))
    u.boundary[0, 0] = hf.Dirichlet(lambda time: 3 * time)
    u.boundary[0, 1] = hf.Neumann(-2.0)
    u.boundary[1, 0] = hf.Neumann(lambda time: time * time)
    u.boundary[1, 1] = hf.Dirichlet(0.75)
    points = filled(u)
    for grid.time in (0.0, 2.0, 0.5):
        u.exchange()
        assert is_right(u, points), f"at {grid.time} s"


@mpi
def test_a_changed_condition_is_used_at_the_next_exchange(comm):
    u = grid_of(comm, (False,)).field("u")
    points = filled(u)
    for condition in (hf.Dirichlet(2.0), hf.Neumann(1.0), hf.Dirichlet(4.0)):
        u.boundary.set_all(condition)
        u.exchange()
        assert is_right(u, points)
    del u.boundary[0, 1]
    u.exchange()
    assert u.boundary[0, 1] == hf.Neumann(0.0)
    assert is_right(u, points)


@mpi
@pytest.mark.parametrize("components", [(), (2,)])
def test_a_function_fills_the_ghosts_of_its_wall(comm, components):
    """It gets coordinates, time and mirrored layers; the same function on one process gives the same halo."""

    def wavy(side):
        x, y = side.coordinates  # the normal comes first, components last
        distance = np.arange(len(side.ghost)).reshape(-1, 1)
        assert side.time == 0.5
        values = 100 * x + 10 * y + side.time + distance
        side.ghost[...] = side.inside + (values[..., None] if components else values)

    def made(communicator):
        grid = grid_of(communicator, (False, False))
        grid.time = 0.5
        u = grid.field("u", components=components, halo=fits(grid, 2))
        u.boundary[0, 0] = u.boundary[0, 1] = wavy
        u.boundary[1, 1] = hf.Dirichlet(1.0)
        points = filled(u)
        u.exchange()
        return u, points

    u, points = made(comm)
    alone, _ = made(comm.Split(comm.rank))
    assert everywhere(comm, np.array_equal(u.data, local(u, cropped(alone, u.halo))))
    x = alone.grid.coordinates_of((slice(-1, 0), slice(0, 10)))[0]
    y = alone.coordinates()[1]
    layer = 100 * x + 10 * y + 0.5
    halo = alone.halo[0]
    assert np.array_equal(alone.data[..., halo - 1, alone.halo[1] : -alone.halo[1]], points[..., 0, :] + layer[0])


def cropped(field, halo):
    """The local array of a field with a narrower halo."""
    cut = [
        slice(have - want, have + count + want)
        for have, want, count in zip(field.halo, halo, field.local.points, strict=True)
    ]
    return field.data[(..., *cut)]


@mpi
@pytest.mark.parametrize("kind", [hf.Dirichlet, hf.Neumann, None])
def test_a_function_of_a_wall_that_fails_is_an_error_on_all_ranks(comm, kind):
    def broken(argument):
        raise ArithmeticError("no value today")

    u = grid_of(comm, (True, False)).field("u")
    u.boundary[1, 1] = kind(broken) if kind else broken
    with pytest.raises((ArithmeticError, hf.RemoteError), match="no value today"):
        u.exchange()
    u.boundary[1, 1] = hf.Dirichlet(1.0)
    points = filled(u)
    u.exchange()
    assert is_right(u, points)


@pytest.mark.parametrize("wall", [(2, 0), (0, 2), (1, 0), 0])
def test_a_wall_that_does_not_exist_is_refused(wall):
    u = hf.Grid((4, 4), periodic=(False, True)).field("u")
    with pytest.raises(hf.InputError, match=r"no such wall; this grid has .* \(0, 0\), \(0, 1\)"):
        u.boundary[wall] = hf.Dirichlet(1.0)


@pytest.mark.parametrize("condition", [1.0, None, hf.Dirichlet, hf.Neumann])
def test_what_is_no_condition_is_refused(condition):
    with pytest.raises(hf.InputError, match=r"expected hf.Dirichlet\(value\), hf.Neumann\(gradient\) or a function"):
        hf.Grid(4).field("u").boundary[0, 0] = condition


def test_all_conditions_can_be_given_at_once_as_a_dictionary():
    u = hf.Grid(4).field("u")
    u.boundary = {(0, 0): hf.Dirichlet(1.0)}
    u.exchange()
    assert u.data.tolist() == [2, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_a_dirichlet_wall_overwrites_whatever_lies_on_it(special):
    u = hf.Grid(4).field("u", staggered=(0,), boundary=hf.Dirichlet(1.0))
    u.interior[...] = special
    u.exchange()
    assert u.interior[[0, -1]].tolist() == [1, 1]


@mpi
@pytest.mark.parametrize(("dtype", "value"), [("int64", 0.3), ("float64", 1j), ("float64", "x")])
def test_a_wall_value_that_the_dtype_cannot_hold_is_refused(comm, dtype, value):
    def exchange():
        grid_of(comm, (False,)).field("u", dtype=dtype, boundary=hf.Dirichlet(value)).exchange()

    assert all(message.startswith("InputError") for message in messages(comm, exchange))


# -- the plan: who sends what -----------------------------------------------------------------------------------

STAR = frozenset({(2, 0, 0), (-2, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)})


def points_sent(plan):
    return {rank: sum(math.prod(p.stop - p.start for p in block) for block in blocks) for rank, blocks in plan.items()}


def plans(reads, ranks=27, shape=(12, 12, 12)):
    cut = decompose(shape, (True,) * 3, [0] * ranks)
    lengths = [tuple(p.stop - p.start for p in cut.block(rank)) for rank in range(ranks)]
    return [plan_transfers(cut, rank, Shape(length, (2, 2, 2)), widths(reads)) for rank, length in enumerate(lengths)]


def test_a_star_sends_faces_only_and_a_box_edges_and_corners_too():
    for star, box in zip(plans(STAR), plans(box_reads((2, 1, 1))), strict=True):
        assert sorted(points_sent(star.sends).values()) == [16, 16, 16, 16, 32, 32]
        assert len(box.sends) == 26
        assert sum(points_sent(box.sends).values()) == 8 * 6 * 6 - 4 * 4 * 4


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8, 12])
def test_what_one_rank_sends_is_what_the_other_expects(ranks):
    every = plans(box_reads((2, 1, 2)), ranks)
    for rank, plan in enumerate(every):
        assert rank not in plan.sends, "a rank sends nothing to itself"
        for other, blocks in plan.sends.items():
            shapes, expected = (
                [[p.stop - p.start for p in b] for b in bs] for bs in (blocks, every[other].receives[rank])
            )
            assert shapes == expected


def test_upwind_reads_are_sent_one_way():
    for plan in plans({(-1, 0, 0)}):
        assert len(plan.sends) == len(plan.receives) == 1
        assert list(plan.sends) != list(plan.receives)


@mpi
def test_one_message_a_neighbour_carries_all_fields(comm):
    grid = grid_of(comm, (True, True, True))
    fields = grid.fields("u", "v", "w")
    exchange = grid.plan_exchange({field: box_reads((1, 1, 1)) for field in fields})
    directions = itertools.product((-1, 0, 1), repeat=3)
    neighbours = {grid.decomposition.neighbour(grid.rank, direction) for direction in directions} - {grid.rank}
    assert set(exchange.neighbours) == neighbours


# -- start and finish, memory, several grids --------------------------------------------------------------------


@mpi
def test_start_twice_and_finish_without_start_are_refused(comm):
    u = grid_of(comm, (True,)).field("u")
    exchange = u.start_exchange()
    assert "was started twice: call finish()" in messages(comm, exchange.start)[comm.rank]
    exchange.finish()
    assert "was not started: call start()" in messages(comm, exchange.finish)[comm.rank]


@mpi
def test_exchanges_of_different_fields_may_be_under_way_together_and_finish_in_any_order(comm):
    grid = grid_of(comm, (True, True))
    fields = grid.fields("u", "v", "w")
    points = [filled(field, seed) for seed, field in enumerate(fields)]
    under_way = [field.start_exchange() for field in fields]
    others = [filled(field) for field in grid.fields(*"abcdefgh")]  # work between start and finish
    gathered = whole(fields[0])
    for exchange in reversed(under_way):
        exchange.finish()
    assert all([is_right(field, array) for field, array in zip(fields, points, strict=True)])
    assert everywhere(comm, np.array_equal(gathered, points[0]) and len(others) == 8)


@mpi
def test_an_exchange_under_way_survives_more_others_than_are_kept(comm, monkeypatch):
    monkeypatch.setattr("hpcframe.grid.cartesian.PLANS_KEPT", 3)
    grid = grid_of(comm, (True,))
    u = grid.field("u")
    points = filled(u)
    exchange = u.start_exchange()
    for number in range(6):
        grid.field(f"v{number}").exchange()
    exchange.finish()
    assert is_right(u, points)


@mpi
def test_after_the_first_exchange_nothing_is_allocated(comm):
    grid = hf.Grid((96, 96, 96), periodic=(True, False, True), comm=comm)
    u, v = grid.fields("u", "v", boundary=hf.Dirichlet(lambda time: time))
    grid.exchange(u, v)
    tracemalloc.start()
    grid.exchange(u, v)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert everywhere(comm, peak < 15_000), "bytes: less than one face of a block on up to 8 ranks"


@mpi
def test_grids_on_halves_of_a_communicator_do_not_meet(comm):
    half = comm.Split(comm.rank % 2)
    grid = grid_of(half, (True, False))
    u = grid.field("u")
    for step in range(3 if comm.rank % 2 else 8):  # the other half does something else
        points = filled(u, step)
        u.exchange()
        assert is_right(u, points)
    everyone = grid_of(comm, (True, False)).field("u")
    points = filled(everyone)
    everyone.exchange()
    assert is_right(everyone, points)
    half.Free()


@mpi
def test_a_halo_wider_than_the_smallest_block_is_refused_on_all_ranks_alike(comm):
    grid = grid_of(comm, (True,))
    wide = grid.decomposition.smallest[0] + 1
    refused = messages(comm, lambda: grid.field("u", halo=wide))
    assert len(set(refused)) == 1
    assert f"InputError: field 'u' needs a halo of {wide} along axis 0, but the smallest" in refused[0]


@pytest.mark.parametrize("upper", [True, False])
def test_the_reference_mirrors(upper):
    """A test of the tests: ghosts of the reference lie beyond the wall, nearest first."""
    u = hf.Grid(3, extent=[3.0]).field("u", boundary=hf.Neumann(2.0))
    layers = np.array([5.0, 6.0, 7.0])[:: -1 if upper else 1]
    assert beyond(u, 0, int(upper), layers, 2).tolist() == [layers[0] + 2, layers[1] + 6]
