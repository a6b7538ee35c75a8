"""One answer: whole fields of the shipped models have the same bits however they are computed.

Ranks, tiles, steps in one pass, threads, vectors and how halos travel are drawn; walls of every kind. The truth is one
rank that does one step after another, on one thread, in the scalar loop.
"""

from itertools import product
from math import prod

import numpy as np
import pytest
from hpcframe.kernels import gray_scott, heat, wave
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from reference import whole

import hpcframe as hf
from hpcframe import threads
from hpcframe.grid import mailboxes
from hpcframe.stencils import regions, tuning

STEPS = 19  # prime: whatever is done at once, some steps are left


@hf.stencil
def leapfrog_of_two(new, u, old, k, dt):
    new[0, 0] = old[0, 1] + k * dt * (u[1, 0] - u[0, -1]) - 0.1 * old[-1, 0]


def wiggle(side):
    """A user's own wall."""
    side.ghost[:] = 0.5 * side.inside + side.time


WALLS = {
    "value": lambda: hf.Dirichlet(0.25),
    "gradient": lambda: hf.Neumann(-0.5),
    "value of time": lambda: hf.Dirichlet(np.sin),
    "gradient of time": lambda: hf.Neumann(np.cos),
    "function": lambda: wiggle,
}
SPACING = (0.7, 1.1, 0.9)
# For each model: its stencil, how many evolving fields, how many levels, other fields, scalars.
MODELS = {
    "heat, 1 axis": (heat.step_1d, 1, 1, 2, 0, (0.1, 0.2)),
    "heat, 2 axes": (heat.step_2d, 2, 1, 2, 0, (0.1, 0.2, 0.15)),
    "heat, 3 axes": (heat.step_3d, 3, 1, 2, 0, (0.1, 0.2, 0.15, 0.1)),
    "wave, 4th order": (wave.step_of(4, 2, False), 2, 1, 3, 1, (3, 5, *SPACING[:2], 0.0)),
    "wave, 2nd order with a source": (wave.step_of(2, 3, True), 3, 1, 3, 1, (3, 5, 7, *SPACING, 0.3)),
    "older neighbours": (leapfrog_of_two, 2, 1, 3, 0, (0.1,)),
    "Gray-Scott": (gray_scott.step_3d, 3, 2, 2, 0, (0.2, 0.1, 0.04, 0.06, *SPACING)),
}


BLOCK = 16  # points along each axis, and a few more along some: room for halos of 16 layers


def layouts(size, ndim):
    """All ways of cutting the box into so many blocks."""
    return [cut for cut in product(range(1, size + 1), repeat=ndim) if prod(cut) == size]


@st.composite
def cases(draw, size):
    name = draw(st.sampled_from(sorted(MODELS)))
    ndim = MODELS[name][1]
    layout = draw(st.sampled_from(layouts(size, ndim)))
    periodic = tuple(draw(st.booleans()) for _ in range(ndim))
    walls = [draw(st.sampled_from(sorted(WALLS))) for _ in range(2 * ndim)]
    front = draw(st.integers(1, 16)), draw(st.integers(1, 9)), draw(st.integers(1, 20))
    members, shared = draw(st.integers(1, 2)), draw(st.sampled_from("01"))
    # A vector loop is compiled for each depth of a halo anew: one model stands for all.
    vectors = draw(st.sampled_from("01")) if name == "heat, 3 axes" else "0"
    return name, layout, periodic, walls, front, members, vectors, shared


def final(comm, name, layout, periodic, walls):
    stencil, _, together, levels, others, scalars = MODELS[name]
    shape = tuple(BLOCK * blocks + axis for axis, blocks in enumerate(layout))
    grid = hf.Grid(shape, periodic=periodic, ranks=layout if comm.size > 1 else None, comm=comm)
    evolving = [grid.field(f"u{number}") for number in range(together * levels)]
    fields = [*evolving, *(grid.field(f"c{number}") for number in range(others))]
    chance = np.random.default_rng(5)
    for field in fields:
        values = chance.uniform(0.1, 0.6, field.shape)
        field.scatter(values if comm.rank == 0 else None)
    for field in evolving:
        for wall in field.boundary:
            field.boundary[wall] = WALLS[walls[2 * wall[0] + wall[1]]]()
    newest = stencil.iterate(*fields, *scalars, steps=STEPS, levels=levels, dt=0.1)
    return [whole(field) for field in newest]


@pytest.mark.mpi
def test_the_bits_are_those_of_one_rank_that_does_step_after_step(comm, monkeypatch):
    @given(cases(comm.size))
    @settings(max_examples=15)
    def check(case):
        name, *rest, front, members, vectors, shared = case
        set_up(monkeypatch, fitting(name, *front), members, vectors, shared)
        found = final(comm, name, *rest)
        set_up(monkeypatch, "0", 1, "0", "0")
        truth = final(MPI.COMM_SELF, name, *rest)
        assert all(np.array_equal(one, other) for one, other in zip(found, truth, strict=True))

    check()


def fitting(name, depth, planes, rows):
    """With as many steps at once as halos have room for, and levels that come round."""
    reach, levels = 2 if "4th" in name else 1, MODELS[name][3]
    return f"{max(levels, min(depth, BLOCK // reach) // levels * levels)},{planes},{rows}"


def set_up(monkeypatch, front, members, vectors, shared):
    monkeypatch.setattr(regions, "LEAST_OF_THREAD", 1)
    monkeypatch.setattr(regions, "LEAST_OF_PIECE", 100)
    monkeypatch.setenv(tuning.VARIABLE, front)
    monkeypatch.setenv(threads.VARIABLE, str(members))
    monkeypatch.setenv("HPCFRAME_VECTORS", vectors)
    monkeypatch.setenv(mailboxes.VARIABLE, shared)
