"""Boundary functions of a user's that fail: every rank learns of it, none waits."""

import pytest

import hpcframe as hf

pytestmark = pytest.mark.mpi


def broken(time):
    raise ArithmeticError("a fault in the user's function")


@hf.stencil
def shift(v, u):
    v[0, 0] = u[-1, 0] + u[1, 0]


@pytest.mark.parametrize(
    "condition", [hf.Dirichlet(broken), hf.Neumann(broken), broken], ids=["value", "slope", "side"]
)
def test_a_wall_function_that_raises_raises_on_every_rank(comm, condition):
    grid = hf.Grid((8, 3), ranks=(0, 1), comm=comm)
    u, v = grid.fields("u", "v")
    u.boundary[0, 0] = condition
    for _ in range(2):  # when it is planned, and when the plan is used again
        with pytest.raises((ArithmeticError, hf.RemoteError), match="a fault in the user's function"):
            u.exchange()
        with pytest.raises((ArithmeticError, hf.RemoteError), match="a fault in the user's function"):
            shift(v, u)
    u.boundary[0, 0] = hf.Dirichlet(0.0)
    shift(v, u)
    assert grid.norm(v) == 0.0


def test_a_scalar_function_that_raises_on_one_rank_raises_on_every_rank(comm):
    @hf.stencil
    def add(v, u, k):
        v[0, 0] = u[1, 0] + k

    grid = hf.Grid((8, 3), comm=comm)
    u, v = grid.fields("u", "v")
    with pytest.raises((ArithmeticError, hf.RemoteError), match="a fault in the user's function"):
        add.iterate(v, u, steps=3, k=lambda step: broken(step) if grid.rank == 0 else 1.0)


def test_released_plans_are_made_again(comm):
    grid = hf.Grid((8, 3), periodic=True, comm=comm)
    u, v = grid.fields("u", "v")
    u.fill(2.0)
    shift(v, u)
    grid.release()
    shift(v, u)
    assert grid.min(v) == grid.max(v) == 4.0
