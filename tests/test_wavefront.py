"""Several steps in one pass over memory: each point once a step, in an order in which it finds what it reads, and with
the bits of one step after another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import whole

import hpcframe as hf
from hpcframe.stencils import tuning
from hpcframe.stencils.blocked import BlockedPlan
from hpcframe.stencils.wavefront import Wavefront

# -- the order of boxes -----------------------------------------------------------------------------------------


@st.composite
def fronts(draw):
    ndim = draw(st.integers(1, 3))
    each = lambda values: tuple(draw(values) for _ in range(ndim))  # noqa: E731
    return Wavefront(
        points=each(st.integers(1, 9)),
        beyond=each(st.tuples(st.booleans(), st.booleans())),
        reach=each(st.integers(0, 2)),
        depth=draw(st.integers(1, 5)),
        planes=draw(st.integers(1, 6)),
        rows=draw(st.integers(1, 6)),
    )


@given(fronts(), st.integers(2, 3))
@settings(max_examples=300)
def test_each_point_is_computed_once_a_step_from_what_the_step_before_left(front, levels):
    """On arrays that take turns and hold, at each point, the last step that was computed there."""
    widths = [front.depth * reach for reach in front.reach]
    shape = [count + 2 * width for count, width in zip(front.points, widths, strict=True)]
    arrays = [np.full(shape, -1 if level == 0 else -9) for level in range(levels)]  # step -1 is what is given
    done = [np.zeros(shape, int) for _ in range(front.depth)]
    for _, _, step, box in front.pieces():
        inside = tuple(slice(begin + width, end + width) for (begin, end), width in zip(box, widths, strict=True))
        for offset in star(front.reach):
            read = tuple(slice(s.start + o, s.stop + o) for s, o in zip(inside, offset, strict=True))
            valid = np.broadcast_to(exists(front, step - 1, shape, widths), shape)[read]
            assert (arrays[step % levels][read][valid] == step - 1).all()
        arrays[(step + 1) % levels][inside] = step
        done[step][inside] += 1
    for step, count in enumerate(done):
        computed = exists(front, step, shape, widths)
        assert (count == computed).all()


def star(reach):
    zero = (0,) * len(reach)
    return {zero} | {
        (*zero[:axis], sign * width, *zero[axis + 1 :]) for axis, width in enumerate(reach) for sign in (-1, 1)
    }


def exists(front, step, shape, widths):
    """Where a step has values: what it computes, or, before the first, everywhere in and beyond the block."""
    if step < 0:
        return np.ones(shape, bool)
    masks = []
    for axis, width in enumerate(widths):
        begin, end = front.bounds(axis, step)
        at = np.arange(shape[axis]) - width
        masks.append(((at >= begin) & (at < end)).reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    found = masks[0]
    for mask in masks[1:]:
        found = found & mask
    return np.broadcast_to(found, shape)


# -- the bits ---------------------------------------------------------------------------------------------------


@hf.stencil
def star_3d(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1] - 6.0 * u[0, 0, 0]
    )


@hf.stencil
def skewed_2d(v, u, c, k):
    v[0, 0] = u[0, 0] + k * c[1, 0] * (u[1, 1] + u[-1, -1] + u[2, 0] - u[0, -1] - 2.0 * u[0, 0])


@hf.stencil
def leapfrog_3d(new, u, old, c, k):
    new[0, 0, 0] = (
        2.0 * u[0, 0, 0]
        - old[0, 0, 0]
        + k
        * c[0, 0, 0]
        * (u[2, 0, 0] + u[-2, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -2] - 6.0 * u[0, 0, 0])
    )


@hf.stencil
def reaction_2d(new_u, new_v, u, v, k):
    new_u[0, 0] = u[0, 0] + k * (u[1, 0] + u[-1, 0] + u[0, 1] + u[0, -1] - 4.0 * u[0, 0] - u[0, 0] * v[0, 0])
    new_v[0, 0] = v[0, 0] + k * (v[1, 1] - v[0, 0] + u[0, 0] * v[0, 0])


@hf.stencil
def advected_1d(v, u, k):
    v[0] = u[0] - k * (u[0] - u[-1])


@hf.stencil
def two_components_2d(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (u[1, 1, 0] - u[0, 0, -1])
    v[1, 0, 0] = u[1, 0, 0] - k * (u[0, -1, 0] + u[1, 0, 1])


CASES = {
    "star": (star_3d, 3, ("v", "u"), (), {}, 2),
    "skewed": (skewed_2d, 2, ("v", "u"), ("c",), {}, 2),
    "leapfrog": (leapfrog_3d, 3, ("new", "u", "old"), ("c",), {}, 3),
    "two fields": (reaction_2d, 2, ("new_u", "new_v", "u", "v"), (), {}, 2),
    "one axis": (advected_1d, 1, ("v", "u"), (), {}, 2),
    "components": (two_components_2d, 2, ("v", "u"), (), {"components": 2}, 2),
    "single precision": (star_3d, 3, ("v", "u"), (), {"dtype": np.float32}, 2),
}
CONDITIONS = (hf.Dirichlet(0.3), hf.Neumann(0.7), hf.Neumann(0.0), hf.Dirichlet(0.0))


def iterated(comm, monkeypatch, name, periodic, front, steps):
    """All levels after some steps, and the plans that were made."""
    monkeypatch.setenv(tuning.VARIABLE, front)
    stencil, ndim, evolving, others, options, levels = CASES[name]
    grid = hf.Grid((17, 14, 15)[:ndim], periodic=periodic[:ndim], comm=comm)
    chance = np.random.default_rng(3)
    fields = {each: grid.field(each, **(options if each in evolving else {})) for each in (*evolving, *others)}
    per_level = len(evolving) // levels
    for number, (each, field) in enumerate(fields.items()):
        values = chance.standard_normal(field.shape).astype(field.dtype)
        field.scatter(values if comm.rank == 0 else None)
        for index, wall in enumerate(field.boundary):
            field.boundary[wall] = CONDITIONS[(index + number % per_level) % 4 if each in evolving else 2]
    returned = stencil.iterate(*fields.values(), k=lambda step: 0.01 * (1 + step), steps=steps, levels=levels, dt=0.1)
    blocked = [plan for plan in grid._plans.values() if isinstance(plan, BlockedPlan)]
    return [whole(field) for field in returned], [field.name for field in returned], grid.time, blocked


@pytest.mark.mpi
@pytest.mark.parametrize("front", ["3,2,5", "4,1,100"])
@pytest.mark.parametrize("periodic", [(False,) * 3, (True,) * 3, (True, False, True)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_several_steps_at_once_have_the_bits_of_one_after_another(comm, monkeypatch, name, periodic, front):
    single = iterated(comm, monkeypatch, name, periodic, "0", 11)
    assert not single[3]
    try:
        together = iterated(comm, monkeypatch, name, periodic, front, 11)
    except hf.InputError as error:
        assert "needs a halo of" in str(error)  # the blocks of these ranks are too small for so many steps
        return
    assert together[3], "no steps were done together"
    assert together[1:3] == single[1:3]
    for one, other in zip(single[0], together[0], strict=True):
        assert (one == other).all()


@pytest.mark.mpi
@pytest.mark.parametrize("wall", ["function of time", "user's function"])
def test_walls_that_may_change_in_each_step_are_asked_in_each_step(comm, monkeypatch, wall):
    condition = hf.Dirichlet(float) if wall == "function of time" else ramp
    results = []
    for front in ("0", "4,2,8"):
        monkeypatch.setenv(tuning.VARIABLE, front)
        grid = hf.Grid((16, 18, 12), comm=comm)
        u, v = grid.fields("u", "v")
        u.fill(lambda x, y, z: x * y - z)
        for field in (u, v):
            field.boundary.set_all(condition)
        results.append(whole(star_3d.iterate(v, u, k=0.1, steps=8, dt=0.5)[0]))
    assert (results[0] == results[1]).all()


def ramp(side):
    side.ghost[...] = side.inside + side.time


def test_a_setting_that_is_not_understood_is_refused(comm, monkeypatch):
    monkeypatch.setenv(tuning.VARIABLE, "8")
    grid = hf.Grid((8, 8, 8), comm=comm)
    v, u = grid.fields("v", "u")
    with pytest.raises(hf.InputError, match="expected depth,planes,rows"):
        star_3d.iterate(v, u, k=0.1, steps=3)
