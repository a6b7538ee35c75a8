"""Devito's half of stencil.py and run: star Laplacians and acoustic waves, stepped on request.

Runs in the environment that peers.sh makes and stays alive between rounds, so that neither Python's start-up nor
compiling is timed. It reads commands from standard input, one a line, and answers each with one line of JSON:

    load FILE    take the initial fields from a .npy file: see the classes
    run STEPS    advance STEPS time levels (a multiple of the number of levels); answers {"seconds": ...}
    save FILE    write the newest field to a .npy file

The first line it prints says what it is: version, compiler, flags and the block sizes its autotuner chose. Started on
several ranks, with DEVITO_MPI=1, it cuts the grid among them.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from typing import Any

import numpy as np
from serving import claim_stdout, serve


class Steps:
    """One equation on `shape` points, in a halo of zeros that is never written, with a spacing of one."""

    def __init__(self, shape: tuple[int, ...], order: int, time_order: int) -> None:
        import devito

        self.grid = devito.Grid(shape=shape, extent=[points - 1.0 for points in shape], dtype=np.float64)
        self.u = devito.TimeFunction(name="u", grid=self.grid, time_order=time_order, space_order=order)
        # The spacing is one here as for every other contender. Devito is quickest when it knows that early.
        self.laplacian = self.u.laplace.evaluate.subs(self.grid.spacing_map)
        self.operator = devito.Operator(devito.Eq(self.u.forward, self.next_level()))
        self.levels = time_order + 1
        self.blocks: dict[str, int] = {}

    def next_level(self) -> Any:
        """The expression for the newest field."""
        raise NotImplementedError

    def tune(self, effort: str) -> None:
        """Let Devito's autotuner choose block sizes once; it works on a copy of the field."""
        self.operator.apply(time_m=self.levels - 2, time_M=self.levels, autotune=effort)
        trials = self.operator._state["autotuning"]
        self.blocks = {name: int(size) for name, size in trials[-1]["tuned"].items()}

    def load(self, file: str) -> None:
        """Set the field at all time levels."""
        self.u.data[:] = np.load(file)

    def run(self, steps: str) -> dict[str, float]:
        """Advance; the time is that of the generated code alone, by Devito's own clock, without its Python.

        On several ranks it is that of the slowest; the exchange of halos is a part of the generated code.
        """
        if int(steps) % self.levels:
            raise ValueError(
                f"run {steps}: must be a multiple of {self.levels}, so that the newest field is at level 0"
            )
        summary = self.operator.apply(time_m=0, time_M=int(steps) - 1, autotune="off", **self.blocks)
        seconds = Counter[int | None]()
        for section, entry in summary.items():
            seconds[section.rank] += entry.time
        return {"seconds": max(seconds.values())}

    def save(self, file: str) -> None:
        """Write the newest field."""
        parallel = self.grid.distributor.nprocs > 1
        levels = self.u.data_gather() if parallel else self.u.data
        if self.grid.distributor.myrank == 0:
            np.save(file, np.asarray(levels[0]))

    def describe(self) -> dict[str, object]:
        """What was measured, for the JSON file."""
        import devito

        compiler = self.operator._compiler
        return {
            "version": devito.__version__,
            "compiler": f"{type(compiler).__name__} {compiler.version}",
            "command": str(compiler.cc),
            "flags": [str(flag) for flag in compiler.cflags],
            "options": {key: str(devito.configuration[key]) for key in ("language", "mpi", "opt", "platform")},
            "blocks": self.blocks,
        }


class Diffusion(Steps):
    """u_new = u + k * laplacian(u). Its file holds u."""

    def __init__(self, shape: tuple[int, ...], order: int, k: float) -> None:
        self.k = k
        super().__init__(shape, order, time_order=1)

    def next_level(self) -> Any:
        return self.u + self.k * self.laplacian


class Wave(Steps):
    """u_new = 2 u - u_old + (k * velocity)^2 * laplacian(u): k is the time step. Its file holds u and the velocity."""

    def __init__(self, shape: tuple[int, ...], order: int, k: float) -> None:
        self.k = k
        super().__init__(shape, order, time_order=2)

    def next_level(self) -> Any:
        import devito

        self.velocity = devito.Function(name="velocity", grid=self.grid, space_order=0)
        return 2 * self.u - self.u.backward + self.k**2 * self.velocity**2 * self.laplacian

    def load(self, file: str) -> None:
        u, velocity = np.load(file)
        self.u.data[:] = u
        self.velocity.data[:] = velocity


def main() -> None:
    """Parse, build, tune, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 256), help="points (256 256 256)")
    parser.add_argument("--order", type=int, default=2, choices=(2, 4, 8), help="order of accuracy of the Laplacian")
    parser.add_argument("--wave", action="store_true", help="acoustic waves instead of diffusion")
    parser.add_argument("--k", type=float, default=0.1, help="step factor (0.1)")
    parser.add_argument("--effort", default="aggressive", choices=("basic", "aggressive", "max"), help="autotuning")
    options = parser.parse_args()

    answers = claim_stdout()
    for name, value in {"DEVITO_ARCH": "gcc", "DEVITO_LANGUAGE": "C", "DEVITO_LOGGING": "ERROR"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    steps = (Wave if options.wave else Diffusion)(tuple(options.shape), options.order, options.k)
    steps.tune(options.effort)
    communicator = steps.grid.distributor.comm if os.environ.get("DEVITO_MPI", "0") != "0" else None
    commands = {"load": steps.load, "run": steps.run, "save": steps.save}
    serve(answers, steps.describe(), commands, communicator)


if __name__ == "__main__":
    main()
