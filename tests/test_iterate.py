"""Many steps by one call, and plain compiled functions (hf.kernel) that are called as stencils are."""

import numpy as np
import pytest
from reference import by_numpy, everywhere, grid_of, is_right, messages, random_field, values, whole, with_halo

import hpcframe as hf

mpi = pytest.mark.mpi


@hf.stencil
def diffuse(v, u, k, source=0.0):
    v[0, 0] = u[0, 0] + k * (u[1, 0] + u[-1, 0] + u[0, 1] + u[0, -1] - 4.0 * u[0, 0]) + source


@hf.stencil
def wave(new, now, old, speed, k):
    new[0, 0] = 2.0 * now[0, 0] - old[0, 0] + k * speed[0, 0] * (now[1, 0] + now[-1, 0] - 2.0 * now[0, 0])


@hf.stencil
def predators(more, fewer, prey, hunters, k):
    eaten = k * prey[0, 0] * hunters[0, 0]
    more[0, 0] = prey[1, 0] - eaten
    fewer[0, 0] = hunters[0, -1] + eaten


def levels(grid, *names, **options):
    """Fields of different values and equal walls."""
    first, *others = [random_field(grid, name, seed, **options) for seed, name in enumerate(names)]
    for other in others:
        other.boundary = dict(first.boundary)
    return (first, *others)


# -- iterate ----------------------------------------------------------------------------------------------------


@mpi
@pytest.mark.parametrize("steps", [0, 1, 6, 7])
def test_two_levels_return_the_newest_first(comm, steps):
    grid = grid_of(comm, 2, 3)
    v, u = levels(grid, "v", "u")
    by_hand = levels(grid, "v", "u")
    newest, older = diffuse.iterate(v, u, steps=steps, k=0.2)
    for _ in range(steps):
        expected = by_numpy(diffuse, *by_hand, 0.2, 0.0)
        by_hand[0].scatter(expected if comm.rank == 0 else None)
        by_hand = by_hand[::-1]
    assert {newest, older} == {u, v}
    assert newest is (v if steps % 2 else u)
    assert is_right(newest, whole(by_hand[1]))
    assert is_right(older, whole(by_hand[0])), "the step before"


@mpi
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_three_levels_take_turns_and_other_fields_stay(comm, steps):
    grid = grid_of(comm, 2, 1)
    new, now, old = levels(grid, "new", "now", "old")
    speed = random_field(grid, "speed", 9)
    arrays = [whole(field) for field in (now, old, new)]  # newest first, the one to write to last
    returned = wave.iterate(new, now, old, speed, steps=steps, levels=3, k=0.1)
    at = whole(speed)
    for _ in range(steps):
        p = with_halo(now, arrays[0], (1, 1))[:, 1:-1]
        fresh = 2.0 * arrays[0] - arrays[1] + 0.1 * at * (p[2:] + p[:-2] - 2.0 * arrays[0])
        arrays = [fresh, arrays[0], arrays[1]]
    fields = [now, old, new]
    for _ in range(steps):
        fields = [fields[2], *fields[:2]]
    assert list(returned) == fields
    assert all([is_right(field, array) for field, array in zip(returned, arrays, strict=True)])
    assert is_right(speed, at)


@mpi
def test_levels_of_several_fields_keep_their_order(comm):
    grid = grid_of(comm, 2, 2)
    fields = levels(grid, "more", "fewer", "prey", "hunters")
    by_hand = levels(grid, "more", "fewer", "prey", "hunters")
    returned = predators.iterate(*fields, steps=3, k=0.1)
    for _ in range(3):
        predators(*by_hand, 0.1)
        by_hand = by_hand[2:] + by_hand[:2]
    assert returned == (*fields[:2], *fields[2:])  # after an odd number of steps
    assert all(
        [is_right(field, whole(other)) for field, other in zip(returned, (*by_hand[2:], *by_hand[:2]), strict=True)]
    )


@mpi
def test_scalars_may_be_functions_of_the_step(comm):
    grid = grid_of(comm, 2, 1)
    (v, u), (a, b) = levels(grid, "v", "u"), levels(grid, "v", "u")
    asked = []

    def source(step):
        asked.append(step)
        return 0.5 * step

    newest, _ = diffuse.iterate(v, u, steps=4, k=0.2, source=source)
    for step in range(4):
        diffuse(a, b, 0.2, 0.5 * step)
        a, b = b, a
    assert is_right(newest, whole(b))
    assert sorted(set(asked)) == [0, 1, 2, 3]


@mpi
def test_a_scalar_function_that_fails_on_one_rank_is_an_error_on_all_before_anything_is_computed(comm):
    grid = grid_of(comm, 2, 1)
    v, u = levels(grid, "v", "u")
    before = whole(v)

    def source(step):
        if step == 2 and comm.rank == comm.size - 1:
            raise ArithmeticError("no source today")
        return 0.5

    with pytest.raises((ArithmeticError, hf.RemoteError), match="no source today"):
        diffuse.iterate(v, u, steps=4, k=0.2, source=source)
    assert is_right(v, before)


@mpi
def test_time_goes_on_with_the_steps_and_walls_see_it(comm):
    grid = hf.Grid((12, 10), comm=comm)
    v, u, a, b = grid.fields("v", "u", "a", "b", boundary=hf.Dirichlet(lambda time: 1 + time))
    grid.time = 2.0
    newest, _ = diffuse.iterate(v, u, steps=3, k=0.2, dt=0.5)
    assert grid.time == 3.5
    for grid.time in (2.0, 2.5, 3.0):
        diffuse(a, b, 0.2)
        a, b = b, a
    assert is_right(newest, whole(b))


@mpi
def test_time_levels_that_differ_are_refused(comm):
    grid = hf.Grid((12, 10), comm=comm)
    u = grid.field("u")
    others = [grid.field("v", dtype="float32"), grid.field("v", boundary=hf.Dirichlet(1.0))]
    for v in others:
        refused = messages(comm, lambda v=v: diffuse.iterate(v, u, steps=1, k=0.2))
        assert all(m.startswith("InputError: diffuse: time levels 'v' and 'u'") for m in refused)
    for number in (1, 3):
        refused = messages(comm, lambda n=number: diffuse.iterate(grid.field("v"), u, steps=1, levels=n, k=0.2))
        assert all("time levels" in message for message in refused)


# -- hf.kernel --------------------------------------------------------------------------------------------------


@hf.kernel(writes="v", reads={"u": 1})
def diffuse_arrays(v, u, k, lower, upper):
    for i in range(lower[0], upper[0]):
        for j in range(lower[1], upper[1]):
            v[i, j] = u[i, j] + k * (u[i + 1, j] + u[i - 1, j] + u[i, j + 1] + u[i, j - 1] - 4.0 * u[i, j]) + 0.0


@hf.kernel(writes=("v", "count"), reads={"u": (2, 0), "c": 0})
def far(v, count, u, c, lower, upper):
    for i in range(lower[0], upper[0]):
        for j in range(lower[1], upper[1]):
            v[i, j] = c[0, i, j] * u[i - 2, j] + c[1, i, j] * u[i + 2, j]
            count[i, j] += 1


@mpi
def test_a_kernel_gives_what_the_stencil_gives(comm):
    for seed in range(3):
        grid = grid_of(comm, 2, seed)
        v, w, u = (random_field(grid, name) for name in "vwu")
        diffuse_arrays(v, u, 0.25)
        diffuse(w, u, 0.25)
        assert is_right(v, whole(w))


@mpi
def test_a_kernel_computes_every_point_once_beside_fields_of_other_halos(comm):
    grid = grid_of(comm, 2, 1)
    v, count, u = grid.field("v", halo=0), grid.field("count", dtype="int64"), random_field(grid, "u", halo=(0, 3))
    c = random_field(grid, "c", 5, components=(2,))
    far(v, count, u, c)
    padded, at = with_halo(u, whole(u), (2, 0)), whole(c)
    assert is_right(v, at[0] * padded[:-4] + at[1] * padded[4:])
    assert everywhere(comm, np.all(count.interior == 1))


@mpi
def test_a_kernel_iterates(comm):
    grid = grid_of(comm, 2, 3)
    (v, u), (a, b) = levels(grid, "v", "u"), levels(grid, "v", "u")
    newest, older = diffuse_arrays.iterate(v, u, steps=5, k=0.2)
    expected, before = diffuse.iterate(a, b, steps=5, k=0.2)
    assert is_right(newest, whole(expected))
    assert is_right(older, whole(before))


@mpi
def test_a_kernel_sees_new_values_after_the_halo_of_its_fields_grew(comm):
    grid = grid_of(comm, 2, 1)
    v, u, count, c = grid.field("v"), random_field(grid, "u"), grid.field("count"), grid.field("c", components=(2,))
    diffuse_arrays(v, u, 0.25)
    far(grid.field("w"), count, u, c)  # widens u
    u.scatter(values(u.shape, seed=8) if comm.rank == 0 else None)
    diffuse_arrays(v, u, 0.25)
    assert is_right(v, by_numpy(diffuse, v, u, 0.25, 0.0))


@pytest.mark.parametrize(
    ("declaration", "reason"),
    [
        ({"writes": "w", "reads": {"u": 1}}, "no parameter 'w'"),
        ({"writes": "v", "reads": {"uu": 1}}, "no parameter 'uu'; did you mean 'u'?"),
        ({"writes": "v", "reads": {"v": 1}}, "not to one whose neighbours it reads"),
        ({"writes": (), "reads": {"u": 1}}, "writes to at least one field"),
    ],
)
def test_a_declaration_that_does_not_fit_the_function_is_refused(declaration, reason):
    with pytest.raises(hf.InputError, match="kernel 'point': ") as refused:

        @hf.kernel(**declaration)
        def point(v, u, lower, upper):
            pass

    assert reason in str(refused.value)


def test_a_kernel_without_bounds_is_refused():
    with pytest.raises(hf.InputError, match="its last two parameters must be lower, upper"):
        hf.kernel(writes="v", reads={})(lambda v, upper, lower: None)


@mpi
def test_a_kernel_that_cannot_be_compiled_is_an_error_on_all_ranks(comm):
    @hf.kernel(writes="v", reads={"u": 1})
    def broken(v, u, lower, upper):
        v[0] = u.nothing

    refused = messages(comm, lambda: broken(*hf.Grid((12, 10), comm=comm).fields("v", "u")))
    assert all(message.startswith("InputError: kernel 'broken' cannot be compiled") for message in refused)


@mpi
def test_a_halo_for_another_number_of_axes_is_refused(comm):
    grid = hf.Grid((8, 4, 4), comm=comm)
    refused = messages(comm, lambda: far(*grid.fields("v", "count", "u"), grid.field("c", components=(2,))))
    assert all("halo (2, 0) of 'u' for a grid of 3 axes" in message for message in refused)
