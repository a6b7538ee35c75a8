"""A small run whose every state is known: a periodic box, two fields, and a random number in each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hpcframe.checkpoint import tiles
from hpcframe.grid.cartesian import CartesianGrid

SHAPE = (130, 97)  # no multiple of tiles or ranks
STEPS = 12
EVERY = 2  # steps between checkpoints
TILE_BYTES = 2**14  # so that small fields have many tiles, some of them shared by ranks

State = dict[str, npt.NDArray]


def initial() -> State:
    """u: (nx, ny) float64; v: (2, nx, ny) float32."""
    points = np.arange(np.prod(SHAPE), dtype=np.float64).reshape(SHAPE)
    u = np.sin(points * 0.37) + points * 1e-3
    return {"u": u, "v": np.stack([np.cos(u), u * u]).astype(np.float32)}


def neighbours(u: npt.NDArray) -> npt.NDArray:
    """The sum of the four neighbours of each point within a rim of one point."""
    return (u[2:, 1:-1] + u[:-2, 1:-1]) + (u[1:-1, 2:] + u[1:-1, :-2])


def advanced(u: npt.NDArray, v: npt.NDArray, kick: float) -> tuple[npt.NDArray, npt.NDArray]:
    """One step. `u` has a rim of one point, the result has none. Each point's bits depend on its neighbours alone."""
    new = 0.6 * u[1:-1, 1:-1] + 0.1 * neighbours(u) + kick
    return new, (v * np.float32(0.75) + new.astype(np.float32)).astype(np.float32)


def truth() -> list[State]:
    """The state after each step, by NumPy alone."""
    states, chance = [initial()], generator()
    for _ in range(STEPS):
        u, v = states[-1]["u"], states[-1]["v"]
        states.append(dict(zip("uv", advanced(np.pad(u, 1, mode="wrap"), v, chance.standard_normal()), strict=True)))
    return states


def generator() -> np.random.Generator:
    return np.random.default_rng(2024)


class Simulation:
    """The run on ranks.

    Attributes:
        u, v: fields.
        step: number of steps that were made.
    """

    def __init__(self, comm: Any) -> None:
        """Collective."""
        tiles.TILE_BYTES = TILE_BYTES
        self.grid = CartesianGrid(SHAPE, periodic=True, comm=comm)
        self.u = self.grid.field("u", halo=1)
        self.v = self.grid.field("v", components=2, dtype=np.float32)
        self.begin()

    def begin(self) -> None:
        """Start anew. Collective."""
        state = initial()
        self.u.scatter(state["u"])
        self.v.scatter(state["v"])
        self.step, self.chance = 0, generator()

    def advance(self) -> None:
        """Make a step. Collective."""
        self.u.exchange()
        u, v = advanced(self.u.data, self.v.interior, self.chance.standard_normal())
        self.u.interior[...], self.v.interior[...] = u, v
        self.step += 1

    def save(self, checkpoints: Any) -> None:
        """Write a checkpoint. Collective."""
        checkpoints.save(self.step, self.u, self.v, attributes={"random": self.chance.bit_generator.state})

    def restore(self, checkpoints: Any) -> int | None:
        """Continue from a checkpoint; its step, None where there is none. Collective."""
        restored = checkpoints.restore(self.u, self.v)
        if restored is None:
            return None
        self.chance.bit_generator.state = restored.attributes["random"]
        self.step = restored.step
        return self.step

    def state(self) -> State | None:
        """The global arrays on rank 0. Collective."""
        u, v = self.u.gather(), self.v.gather()
        return None if u is None or v is None else {"u": u, "v": v}
