"""py-pde's half of the Gray-Scott row: explicit Euler, compiled by numba, periodic. Answers load, run, save.

Its expressions are those that its documentation gives for reaction and diffusion.
"""

from __future__ import annotations

import argparse

import numpy as np
import pde
from serving import claim_stdout, serve, timed

EQUATION = {
    "u": "diffusivity_u * laplace(u) - u * v**2 + feed * (1 - u)",
    "v": "diffusivity_v * laplace(v) + u * v**2 - (feed + kill) * v",
}
CONSTANTS = {"diffusivity_u": 0.2, "diffusivity_v": 0.1, "feed": 0.04, "kill": 0.06}


class Steps:
    """Euler steps of length `k` on a periodic cube with a spacing of one."""

    def __init__(self, size: int, k: float) -> None:
        grid = pde.CartesianGrid([[0, size]] * 3, [size] * 3, periodic=True)
        self.k = k
        self.state = pde.FieldCollection([pde.ScalarField(grid) for _ in EQUATION], labels=list(EQUATION))
        solver = pde.EulerSolver(pde.PDE(EQUATION, consts=CONSTANTS), backend="numba", adaptive=False)
        self.step = solver.make_stepper(self.state, dt=k)
        self.run("1")

    def load(self, file: str) -> None:
        """u and v, of shape (2, size, size, size)."""
        self.state.data[:] = np.load(file)

    def run(self, steps: str) -> dict[str, float]:
        return timed(lambda: self.step(self.state, 0.0, int(steps) * self.k))

    def save(self, file: str) -> None:
        np.save(file, self.state.data)


def main() -> None:
    """Parse, compile, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=192, help="points on a side (192)")
    parser.add_argument("--k", type=float, default=0.5, help="time step (0.5)")
    options = parser.parse_args()
    answers = claim_stdout()
    steps = Steps(options.size, options.k)
    serve(answers, {"version": pde.__version__}, {"load": steps.load, "run": steps.run, "save": steps.save})


if __name__ == "__main__":
    main()
