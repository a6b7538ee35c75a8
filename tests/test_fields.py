"""Fields: filling, gathering, scattering, and halos that are exchanged exactly when they have to be."""

import random
import tracemalloc
import weakref

import numpy as np
import pytest
from reference import everywhere, exact_values, messages, values, whole, with_halo

import hpcframe as hf

pytestmark = pytest.mark.mpi


@hf.stencil
def upwind(v, u):
    v[0, 0] = u[-1, 0] + 2.0 * u[0, -1]


@hf.stencil
def wide(v, u):
    v[0, 0] = u[0, 0] + u[2, 0] - 4.0 * u[0, -2]


@hf.stencil
def diagonal(v, u):
    v[0, 0] = u[1, 1] - 3.0 * u[-1, 1]


def grid_of(comm, periodic=(True, False), **options):
    return hf.Grid((12, 10), extent=(3.0, 2.5), periodic=periodic, comm=comm, **options)


def shifted(field, points, *terms):
    """The sum of factor * neighbour over the whole array."""
    padded = with_halo(field, points, (2, 2))
    return sum(factor * padded[2 + i : 14 + i, 2 + j : 12 + j] for factor, i, j in terms)


ACTIONS = ("take", "take", "write", "drop", "fill", "scatter", "exchange", "wall", "read", "read", "read")
TERMS = {
    upwind: [(1, -1, 0), (2, 0, -1)],
    wide: [(1, 0, 0), (1, 2, 0), (-4, 0, -2)],
    diagonal: [(1, 1, 1), (-3, -1, 1)],
}


def applied_right(stencil, v, u, points):
    """Whether a stencil of u, whose interior is `points`, gives what NumPy gives."""
    stencil(v, u)
    expected = shifted(u, points, *TERMS[stencil])
    return everywhere(u.grid.comm, np.array_equal(v.local_interior, expected[v.block]))


def spoil(field):
    """Put rubbish into the halo behind hpcframe's back: who still reads it did not exchange."""
    inside = field.local_interior.copy()
    field.local_data[...] = 777
    field.local_interior[...] = inside


# -- fresh halos are not sent again, stale ones always are ------------------------------------------------------


def test_a_halo_is_fresh_from_an_exchange_until_something_is_written(comm):
    u = grid_of(comm).field("u")
    assert everywhere(comm, not u.fresh)
    for write in (lambda: u.fill(1.0), lambda: u.scatter(None if comm.rank else np.ones(u.shape))):
        u.exchange()
        assert everywhere(comm, u.fresh)
        write()
        assert everywhere(comm, not u.fresh)
    u.exchange()
    upwind(u, u.grid.field("w"))
    assert everywhere(comm, not u.fresh)


def test_a_stencil_sends_a_fresh_halo_no_more(comm):
    u, v = grid_of(comm).fields("u", "v")
    u.scatter(exact_values(u.shape) if comm.rank == 0 else None)
    diagonal(v, u)
    before = v.local_interior.copy()
    spoil(u)
    diagonal(v, u)
    untouched = np.array_equal(v.local_interior, before)
    assert everywhere(comm, not untouched), "it was exchanged again"
    u.fill(2.0)
    assert applied_right(diagonal, v, u, np.full(u.shape, 2.0))


@pytest.mark.parametrize("held", [True, False])
def test_a_view_written_on_one_rank_makes_all_exchange(comm, held):
    u, v = grid_of(comm).fields("u", "v")
    points = exact_values(u.shape)
    u.scatter(points if comm.rank == 0 else None)
    for writer in range(comm.size):
        view = u.interior if held and comm.rank == writer else None  # taken before the exchange
        assert applied_right(upwind, v, u, points)
        if comm.rank == writer:
            view = u.interior if view is None else view
            view[...] = writer + 100
        points[u.grid.decomposition.block(writer)] = writer + 100
        assert applied_right(upwind, v, u, points)
        if view is not None:
            view[0, 0] = -5
        points[tuple(part.start for part in u.grid.decomposition.block(writer))] = -5
        del view
        assert applied_right(diagonal, v, u, points)
        assert applied_right(upwind, v, u, points)


@pytest.mark.parametrize("write", ["fill", "view", "stencil"])
def test_what_is_written_while_an_exchange_is_under_way_makes_the_halo_stale(comm, write):
    u, v, w = grid_of(comm).fields("u", "v", "w")
    under_way = u.start_exchange()
    if write == "fill":
        u.fill(3.0)
    elif write == "view":
        u.interior[...] = 3.0
    else:
        w.fill(1.0)
        upwind(u, w)
        u.grid.exchange(w)
    under_way.finish()
    assert everywhere(comm, not u.fresh)
    assert applied_right(upwind, v, u, whole(u))


def test_a_stencil_that_reads_while_an_exchange_is_under_way_sees_the_new_halo(comm):
    u, v = grid_of(comm).fields("u", "v")
    u.exchange()
    u.interior[...] = 5.0
    under_way = u.start_exchange()
    assert applied_right(upwind, v, u, np.full(u.shape, 5.0))
    under_way.finish()


def test_more_exchanges_than_are_kept_leave_none_out(comm, monkeypatch):
    monkeypatch.setattr("hpcframe.grid.cartesian.PLANS_KEPT", 2)
    u, v, *others = grid_of(comm).fields("u", "v", *"abcd")
    for step in range(3):
        u.fill(step)
        assert applied_right(upwind, v, u, np.full(u.shape, float(step)))
        for other in others:
            other.exchange()
            upwind(v, other)


def test_a_stencil_that_fails_at_a_wall_leaves_no_halo_fresh_that_it_wrote(comm):
    def broken(side):
        raise ArithmeticError("no value today")

    u, v, w = grid_of(comm).fields("u", "v", "w")
    v.exchange()
    u.fill(1.0).boundary[1, 0] = broken
    with pytest.raises((ArithmeticError, hf.RemoteError)):
        upwind(v, u)
    assert applied_right(diagonal, w, v, whole(v))


def test_release_lets_go_of_fields_and_what_is_left_works_on(comm):
    grid = grid_of(comm)
    u, v, temporary = grid.fields("u", "v", "temporary")
    points = exact_values(u.shape)
    u.scatter(points if comm.rank == 0 else None)
    for field in (u, temporary):
        diagonal(v, field)
    under_way = u.start_exchange()
    gone = weakref.ref(temporary)
    del temporary, field
    grid.release()
    assert everywhere(comm, gone() is None)
    under_way.finish()
    u.fill(2.0)
    assert applied_right(diagonal, v, u, np.full(u.shape, 2.0))
    assert grid.sum(u) == 240.0


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_writes_views_and_exchanges_gives_what_one_process_gives(comm, seed):
    """Ranks take the same steps, but views are taken, kept, written through and dropped by one rank only."""
    chance = random.Random(seed)
    u, v = grid_of(comm, periodic=(seed % 2 == 0, True)).fields("u", "v")
    points = np.zeros(u.shape)
    views = []
    for step in range(60):
        action = chance.choice(ACTIONS)
        rank = chance.randrange(comm.size)
        block = u.grid.decomposition.block(rank)
        if action == "take" and comm.rank == rank:
            views.append(u.data if step % 2 else u.interior)
        elif action == "write":
            if comm.rank == rank:
                array = views[-1] if views and views[-1].shape == u.local.points else u.interior
                array[1:, ...] = step
                del array
            points[block[0].start + 1 : block[0].stop, block[1]] = step
        elif action == "drop" and comm.rank == rank:
            views.clear()
        elif action == "fill":
            points[...] = step / 4
            u.fill(step / 4)
        elif action == "scatter":
            points = exact_values(u.shape, seed=step)
            u.scatter(points if comm.rank == rank else None, root=rank)
        elif action == "exchange":
            u.exchange()
        elif action == "wall":
            for wall in u.boundary:
                u.boundary[wall] = hf.Dirichlet(float(step))
        elif action == "read":
            stencil = chance.choice([upwind, diagonal])
            assert applied_right(stencil, v, u, points), f"step {step}: {stencil}"


# -- frozen fields ----------------------------------------------------------------------------------------------


def test_a_frozen_field_is_exchanged_once_with_what_was_written_before(comm):
    u, v = grid_of(comm).fields("u", "v")
    u.exchange()
    u.interior[...] = 5.0  # by a view that is gone
    u.freeze()
    assert applied_right(upwind, v, u, np.full(u.shape, 5.0))
    assert applied_right(wide, v, u, np.full(u.shape, 5.0)), "a wider halo is another one"
    assert applied_right(upwind, v, u, np.full(u.shape, 5.0))
    spoil(u)
    upwind(v, u)
    touched = not np.array_equal(v.local_interior, np.full(v.local.points, 15.0))
    assert everywhere(comm, touched), "it was exchanged again"


def test_a_frozen_field_read_in_two_ways_keeps_the_halos_of_both(comm):
    u, v = grid_of(comm).fields("u", "v", halo=2)
    u.fill(1.0).freeze()
    wide(v, u)
    diagonal(v, u)
    spoil(u)
    wide(v, u)
    touched = not np.array_equal(v.local_interior, np.full(v.local.points, -2.0))
    assert everywhere(comm, touched), "what the first had read was exchanged again"


def test_a_frozen_field_cannot_be_written(comm):
    u, v = grid_of(comm).fields("u", "v")
    assert u.freeze().frozen
    for write in (lambda: u.fill(1.0), lambda: u.scatter(np.ones(u.shape)), lambda: upwind(u, v)):
        assert all("is frozen and cannot be written to" in message for message in messages(comm, write))
    for view in (u.interior, u.data):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 1.0


def test_freezing_is_refused_on_all_ranks_while_one_holds_a_view(comm):
    u = grid_of(comm).field("u")
    view = u.interior if comm.rank == comm.size - 1 else None
    refused = messages(comm, u.freeze)
    assert all("a view of it is still in use; delete it first" in message for message in refused)
    assert everywhere(comm, not u.frozen)
    del view
    u.freeze()


# -- wider halos ------------------------------------------------------------------------------------------------


def test_a_stencil_widens_the_halo_and_keeps_the_interior(comm):
    u, v = grid_of(comm).fields("u", "v", halo=0)
    points = exact_values(u.shape)
    u.scatter(points if comm.rank == 0 else None)
    assert applied_right(upwind, v, u, points)
    assert u.halo == (1, 1)
    assert applied_right(wide, v, u, points)
    assert u.halo == (2, 2)
    assert applied_right(upwind, v, u, points), "what was planned for the narrow halo"


def test_widening_is_refused_on_all_ranks_while_one_holds_a_view(comm):
    u, v = grid_of(comm).fields("u", "v")
    u.fill(1.0)
    view = u.data[1:] if comm.rank == 0 else None
    refused = messages(comm, lambda: wide(v, u))
    assert all("InputError" in message and "now needs (2, 2), but a view of it" in message for message in refused)
    assert u.halo == (1, 1)
    del view
    assert applied_right(wide, v, u, np.ones(u.shape))


def test_a_stencil_that_reaches_beyond_the_smallest_block_is_refused_on_all_ranks_alike(comm):
    grid = hf.Grid((comm.size, 10), ranks=(comm.size, 1), comm=comm)
    refused = messages(comm, lambda: wide(*grid.fields("v", "u")))
    assert len(set(refused)) == 1
    assert "InputError: field 'u' needs a halo of 2 along axis 0, but the smallest of the" in refused[0]


# -- whole arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64"])
def test_scatter_and_gather_from_and_to_any_rank(comm, dtype):
    for options in ({}, {"components": (2,)}, {"staggered": (0, 1)}):
        u = grid_of(comm, (False, True)).field("u", dtype=dtype, **options)
        array = values(u.shape, dtype)
        for root in range(comm.size):
            u.fill(0)
            u.scatter(array if comm.rank == root else None, root=root)
            gathered = u.gather(root=root)
            assert everywhere(comm, np.array_equal(u.interior, array[(..., *u.block)]))
            assert everywhere(comm, gathered is None if comm.rank != root else np.array_equal(gathered, array))


def test_gather_and_scatter_hold_nothing_besides_the_array(comm):
    u = hf.Grid((512, 512), comm=comm).field("u")
    root = comm.size - 1
    array = values(u.shape) if comm.rank == root else None
    tracemalloc.start()
    u.scatter(array, root=root)
    _, scattered = tracemalloc.get_traced_memory()
    gathered = u.gather(root=root)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    nbytes = 0 if gathered is None else gathered.nbytes
    assert everywhere(comm, scattered < 100_000 and peak < nbytes + 100_000)
    assert everywhere(comm, gathered is None or np.array_equal(gathered, array))


def test_what_does_not_fit_is_refused_on_all_ranks(comm):
    u = grid_of(comm).field("u", dtype="float32")
    for array in (np.ones((3, 3)), np.ones(u.shape, complex), None):
        refused = messages(comm, lambda array=array: u.scatter(array if comm.rank == 0 else None))
        assert all(m.startswith("InputError") and "expected float32 of shape (12, 10)" in m for m in refused)
    for root in (comm.size, -2):
        assert all(m.startswith("InputError") for m in messages(comm, lambda root=root: u.gather(root)))


def test_fill_takes_numbers_and_functions_of_the_coordinates(comm):
    grid = grid_of(comm, origin=(-1.0, 4.0))
    x, y = -1 + (np.arange(12) + 0.5) / 4, 4 + (np.arange(10) + 0.5) / 4
    u = grid.field("u")
    assert everywhere(comm, np.all(u.fill(2.5).interior == 2.5))
    u.fill(lambda x, y: x + 100 * y)
    assert everywhere(comm, np.array_equal(whole(u), x[:, None] + 100 * y))
    u.fill(lambda x, y: y)
    assert everywhere(comm, np.array_equal(whole(u), np.broadcast_to(y, (12, 10))))
    faces = grid.field("faces", staggered=(1,)).fill(lambda x, y: y)
    assert everywhere(comm, np.array_equal(whole(faces)[0], 4 + np.arange(11) / 4))


def test_a_fill_that_fails_on_one_rank_is_an_error_on_all(comm):
    u = grid_of(comm).field("u")

    def broken(x, y):
        if comm.rank == comm.size - 1:
            raise ValueError("no data here")
        return x * y

    with pytest.raises((ValueError, hf.RemoteError), match="no data here"):
        u.fill(broken)
    refused = messages(comm, lambda: u.fill(lambda x, y: np.zeros(99) if comm.rank == 0 else x))
    assert all("shape (99,)" in message for message in refused)
    assert all("complex128" in message for message in messages(comm, lambda: u.fill(1j)))


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float16"},
        {"dtype": str},
        {"staggered": (2,)},
        {"components": (0,)},
        {"halo": -1},
        {"halo": (1, 1, 1)},
    ],
)
def test_a_field_that_cannot_be_is_refused(comm, options):
    assert all(
        m.startswith("InputError: field 'u'") for m in messages(comm, lambda: grid_of(comm).field("u", **options))
    )


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((), {}),
        ((4, 4, 4, 4), {}),
        ((64, 0), {}),
        ((64.5,), {}),
        ((64,), {"extent": (1.0, 1.0)}),
        ((64,), {"extent": (-1.0,)}),
        ((64,), {"extent": (float("nan"),)}),
        ((64, 64), {"periodic": (True,)}),
        ((64, 64), {"ranks": (1,)}),
        ((64, 64), {"ranks": (-1, 0)}),
    ],
)
def test_a_grid_that_cannot_be_is_refused_on_all_ranks_alike(comm, shape, options):
    refused = messages(comm, lambda: hf.Grid(shape, comm=comm, **options))
    assert len(set(refused)) == 1
    assert refused[0].startswith("InputError: grid: ")


def test_more_ranks_than_cells_are_refused_on_all_ranks_alike(comm):
    if comm.size > 1:
        refused = messages(comm, lambda: hf.Grid(comm.size - 1, comm=comm))
        assert len(set(refused)) == 1
        assert "cannot each own a block" in refused[0]
    hf.Grid(comm.size, comm=comm)


def test_fields_of_another_grid_are_refused(comm):
    one, other = grid_of(comm), grid_of(comm)
    for call in (lambda: one.exchange(other.field("u")), lambda: one.sum(other.field("u"))):
        assert all("another grid" in message for message in messages(comm, call))
