"""Who is measured: each takes an initial cube, does steps, says how long they took, and gives the cube back.

The domain is size^3 points. For all but hpcframe a halo of zeros that nobody writes surrounds it. hpcframe's
Dirichlet condition holds zero at the faces of cells instead, and is not free: its ghost cells are set in every step.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import stars
from hpcframe_stars import STENCILS
from mpi4py import MPI
from remote import Remote, python_of

import hpcframe as hf

K = 0.1  # of v = u + K * laplacian(u): stable for all three orders


class Contender:
    """One way of doing the steps. `details` says what is measured, for the JSON file."""

    def __init__(self) -> None:
        self.details: dict[str, Any] = {}

    def load(self, cube: npt.NDArray) -> None:
        """Set the newest field from an array of shape (size, size, size)."""
        raise NotImplementedError

    def run(self, steps: int) -> float:
        """Advance by an even number of steps; returns the seconds they took."""
        raise NotImplementedError

    def result(self) -> npt.NDArray:
        """The newest field, of shape (size, size, size)."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what it holds."""


class ArrayContender(Contender):
    """Two arrays with a halo, and a function that fills one from the other."""

    def __init__(self, size: int, order: int, step: stars.Step) -> None:
        super().__init__()
        radius = len(stars.WEIGHTS[order]) - 1
        self._step = step
        self._u, self._v = (np.zeros((size + 2 * radius,) * 3) for _ in range(2))
        self._inner = (slice(radius, -radius),) * 3

    def load(self, cube: npt.NDArray) -> None:
        self._u[self._inner] = cube

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self._step(self._v, self._u, K)
            self._u, self._v = self._v, self._u
        return time.perf_counter() - start

    def result(self) -> npt.NDArray:
        return self._u[self._inner]


class HpcframeContender(Contender):
    """hpcframe on one rank, halo exchange and boundary conditions included."""

    def __init__(self, size: int, order: int) -> None:
        super().__init__()
        grid = hf.Grid((size,) * 3, comm=MPI.COMM_SELF)
        radius = len(stars.WEIGHTS[order]) - 1
        self._stencil = STENCILS[order]
        self._u, self._v = grid.fields("u", "v", halo=radius)
        for field in (self._u, self._v):
            for wall in np.ndindex(3, 2):
                field.boundary[wall] = hf.Dirichlet(0.0)

    def load(self, cube: npt.NDArray) -> None:
        self._u.scatter(cube)

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        self._u, self._v = self._stencil.iterate(self._v, self._u, steps=steps, k=K)
        return time.perf_counter() - start

    def result(self) -> npt.NDArray:
        return self._u.gather()


class DevitoContender(Contender):
    """Devito in an environment and a process of its own, charged for its generated code: see devito_stencil.py."""

    def __init__(self, size: int, order: int) -> None:
        super().__init__()
        options = ("--shape", size, size, size, "--order", order, "--k", K)
        self._remote = Remote("devito_stencil.py", *options, python=python_of("Devito"))
        self._folder = tempfile.TemporaryDirectory()
        self._cube = os.path.join(self._folder.name, "cube.npy")
        self.details = self._remote.about

    def load(self, cube: npt.NDArray) -> None:
        np.save(self._cube, cube)
        self._remote.ask("load", self._cube)

    def run(self, steps: int) -> float:
        return self._remote.ask("run", steps)["seconds"]

    def result(self) -> npt.NDArray:
        self._remote.ask("save", self._cube)
        return np.load(self._cube)

    def close(self) -> None:
        self._remote.close()
        self._folder.cleanup()


CONTENDERS = {
    "hpcframe": HpcframeContender,
    "Devito": DevitoContender,
    "numba": lambda size, order: ArrayContender(size, order, stars.LOOPS[order]),
    "NumPy": lambda size, order: ArrayContender(size, order, stars.numpy_step(order)),
    "numba.stencil": lambda size, order: ArrayContender(size, order, stars.stencil_step(stars.STENCILS[order])),
}
