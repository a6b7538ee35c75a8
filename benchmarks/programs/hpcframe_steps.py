"""hpcframe, stepped on request on any number of ranks: see serving.py. Answers load FILE, run STEPS, save FILE.

A file holds one cube for a Laplacian, u and the velocity for the wave, u and v for Gray-Scott.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from hpcframe.kernels import gray_scott, wave
from hpcframe_stars import STENCILS
from mpi4py import MPI
from serving import claim_stdout, serve, timed

import hpcframe as hf

Fields = tuple[hf.Field, ...]
GRAY_SCOTT = {"diffusivity_u": 0.2, "diffusivity_v": 0.1, "feed": 0.04, "kill": 0.06}


class Case:
    """`fields` are the time levels, newest first: those of one level beside each other."""

    fields: Fields
    saved = 1  # fields of a level

    def load(self, arrays: npt.NDArray) -> None:
        """Take the initial fields. Collective."""
        for start in range(0, len(self.fields), self.saved):
            for field, array in zip(self.fields[start : start + self.saved], arrays, strict=False):
                field.scatter(array)

    def advance(self, steps: int) -> None:
        """Collective."""
        raise NotImplementedError


class Star(Case):
    """v = u + k * laplacian(u), zero at the walls."""

    def __init__(self, grid: hf.Grid, order: int, k: float) -> None:
        self._stencil, self._k = STENCILS[order], k
        self.fields = grid.fields("u", "v", halo=order // 2, boundary=hf.Dirichlet(0.0))

    def advance(self, steps: int) -> None:
        newest, other = self.fields
        self.fields = self._stencil.iterate(other, newest, steps=steps, k=self._k)


class Wave(Case):
    """The stencil of the shipped wave model, without a source, zero at the walls; k is the time step."""

    def __init__(self, grid: hf.Grid, order: int, k: float) -> None:
        self._stencil, self._k = wave.step_of(order, 3, False), k
        self.fields = grid.fields("u", "old", "new", halo=order // 2, boundary=hf.Dirichlet(0.0))
        self._velocity = grid.field("velocity", halo=order // 2)

    def load(self, arrays: npt.NDArray) -> None:
        super().load(arrays[:1])
        self._velocity.scatter(arrays[1])

    def advance(self, steps: int) -> None:
        u, old, new = self.fields
        nowhere, spacing = (0, 0, 0), (1.0, 1.0, 1.0)
        self.fields = self._stencil.iterate(
            new, u, old, self._velocity, *nowhere, *spacing, 0.0, levels=3, steps=steps, dt=self._k
        )


class GrayScott(Case):
    """The stencil of the shipped Gray-Scott model, periodic; k is the time step."""

    saved = 2

    def __init__(self, grid: hf.Grid, order: int, k: float) -> None:
        self._k = k
        self.fields = grid.fields("u", "v", "new_u", "new_v")

    def advance(self, steps: int) -> None:
        u, v, new_u, new_v = self.fields
        spacing = (1.0, 1.0, 1.0)
        self.fields = gray_scott.step_3d.iterate(
            new_u, new_v, u, v, *GRAY_SCOTT.values(), *spacing, steps=steps, dt=self._k
        )


CASES = {"star": Star, "wave": Wave, "gray_scott": GrayScott}


def main() -> None:
    """Parse, build, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 256), help="points (256 256 256)")
    parser.add_argument("--order", type=int, default=2, choices=(2, 4, 8), help="order of accuracy in space (2)")
    parser.add_argument("--k", type=float, default=0.1, help="step factor, or time step (0.1)")
    options = parser.parse_args()

    answers = claim_stdout()
    comm = MPI.COMM_WORLD
    grid = hf.Grid(options.shape, extent=options.shape, periodic=options.case == "gray_scott", comm=comm)
    case = CASES[options.case](grid, options.order, options.k)

    def save(file: str) -> None:
        arrays = [field.gather() for field in case.fields[: case.saved]]
        if comm.rank == 0:
            np.save(file, np.squeeze(np.stack(arrays), axis=0) if case.saved == 1 else arrays)

    commands = {
        "load": lambda file: case.load(np.load(file) if options.case != "star" else np.load(file)[np.newaxis]),
        "run": lambda steps: timed(lambda: case.advance(int(steps)), comm),
        "save": save,
    }
    serve(answers, {"layout": grid.layout}, commands, comm)


if __name__ == "__main__":
    main()
