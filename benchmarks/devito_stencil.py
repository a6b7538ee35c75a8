"""Devito's half of stencil.py: one star Laplacian, stepped on request.

Runs in the environment that peers.sh makes and stays alive between rounds, so that neither Python's start-up nor
compiling is timed. It reads commands from standard input, one a line, and answers each with one line of JSON:

    load FILE    take the initial field from a .npy file
    run STEPS    advance STEPS time levels (an even number); answers {"seconds": ...}
    save FILE    write the newest field to a .npy file

The first line it prints says what it is: version, compiler, flags and the block sizes its autotuner chose.
"""

import argparse
import json
import os
import sys

import numpy as np


class Diffusion:
    """u_new = u + k * laplacian(u) on a cube of `size`^3 points, in a halo of zeros that is never written."""

    def __init__(self, size: int, order: int, k: float) -> None:
        import devito

        grid = devito.Grid(shape=(size,) * 3, extent=(size - 1.0,) * 3, dtype=np.float64)
        self.u = devito.TimeFunction(name="u", grid=grid, time_order=1, space_order=order)
        # The spacing is one here as for every other contender. Devito is quickest when it knows that early.
        laplacian = self.u.laplace.evaluate.subs(grid.spacing_map)
        self.operator = devito.Operator(devito.Eq(self.u.forward, self.u + k * laplacian))
        self.blocks: dict[str, int] = {}

    def tune(self, effort: str) -> None:
        """Let Devito's autotuner choose block sizes once; it works on a copy of the field."""
        self.operator.apply(time_M=1, autotune=effort)
        trials = self.operator._state["autotuning"]
        self.blocks = {name: int(size) for name, size in trials[-1]["tuned"].items()}

    def load(self, file: str) -> dict[str, object]:
        """Set the field at both time levels."""
        self.u.data[:] = np.load(file)
        return {}

    def run(self, steps: str) -> dict[str, object]:
        """Advance; the time is that of the generated code alone, by Devito's own clock, without its Python."""
        if int(steps) % 2:
            raise ValueError(f"run {steps}: the number of steps must be even, so that the newest field is at level 0")
        summary = self.operator.apply(time_m=0, time_M=int(steps) - 1, autotune="off", **self.blocks)
        return {"seconds": sum(section.time for section in summary.values())}

    def save(self, file: str) -> dict[str, object]:
        """Write the newest field."""
        np.save(file, np.asarray(self.u.data[0]))
        return {}

    def describe(self) -> dict[str, object]:
        """What was measured, for the JSON of stencil.py."""
        import devito

        compiler = self.operator._compiler
        return {
            "version": devito.__version__,
            "compiler": f"{type(compiler).__name__} {compiler.version}",
            "command": str(compiler.cc),
            "flags": [str(flag) for flag in compiler.cflags],
            "options": {key: str(devito.configuration[key]) for key in ("language", "opt", "platform")},
            "blocks": self.blocks,
        }


def serve(diffusion: Diffusion, answers: object) -> None:
    """Answer commands until standard input ends."""
    print(json.dumps(diffusion.describe()), file=answers, flush=True)
    commands = {"load": diffusion.load, "run": diffusion.run, "save": diffusion.save}
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        print(json.dumps(commands[command](argument.strip())), file=answers, flush=True)


def main() -> None:
    """Parse, build, tune, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="points on a side (256)")
    parser.add_argument("--order", type=int, default=2, choices=(2, 4, 8), help="order of accuracy of the Laplacian")
    parser.add_argument("--k", type=float, default=0.1, help="step factor (0.1)")
    parser.add_argument("--effort", default="aggressive", choices=("basic", "aggressive", "max"), help="autotuning")
    options = parser.parse_args()

    # Whatever a compiler or Devito prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for name, value in {"DEVITO_ARCH": "gcc", "DEVITO_LANGUAGE": "C", "DEVITO_LOGGING": "ERROR"}.items():
        os.environ.setdefault(name, value)
    os.environ["OMP_NUM_THREADS"] = "1"
    diffusion = Diffusion(options.size, options.order, options.k)
    diffusion.tune(options.effort)
    serve(diffusion, answers)


if __name__ == "__main__":
    main()
