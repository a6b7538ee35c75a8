"""JAX's half of the Gray-Scott row: float64, one jitted loop over all steps, periodic. Answers load, run, save.

Rolled arrays in a fori_loop were the quickest of four ways: padded arrays, or a jitted step at a time, are slower.
"""

from __future__ import annotations

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from serving import claim_stdout, serve, timed

DIFFUSIVITY_U, DIFFUSIVITY_V, FEED, KILL = 0.2, 0.1, 0.04, 0.06


def laplacian(u: jax.Array) -> jax.Array:
    return sum(jnp.roll(u, shift, axis) for axis in range(3) for shift in (1, -1)) - 6.0 * u


@partial(jax.jit, donate_argnums=(0, 1))
def advance(u: jax.Array, v: jax.Array, steps: int, k: float) -> tuple[jax.Array, jax.Array]:
    """Euler steps of length `k`, with a spacing of one."""

    def step(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u, v = state
        reaction = u * v * v
        new_u = u + k * (DIFFUSIVITY_U * laplacian(u) - reaction + FEED * (1.0 - u))
        new_v = v + k * (DIFFUSIVITY_V * laplacian(v) + reaction - (FEED + KILL) * v)
        return new_u, new_v

    return jax.lax.fori_loop(0, steps, step, (u, v))


class Steps:
    """The two fields, held on the CPU."""

    def __init__(self, size: int, k: float) -> None:
        self.k = k
        self.state = (jnp.zeros((size,) * 3), jnp.zeros((size,) * 3))
        self.run("1")  # compiles

    def load(self, file: str) -> None:
        """u and v, of shape (2, size, size, size)."""
        self.state = tuple(map(jnp.array, np.load(file)))

    def run(self, steps: str) -> dict[str, float]:
        return timed(lambda: self._advance(int(steps)))

    def _advance(self, steps: int) -> None:
        self.state = jax.block_until_ready(advance(*self.state, steps, self.k))

    def save(self, file: str) -> None:
        np.save(file, np.stack(self.state))


def main() -> None:
    """Parse, compile, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=192, help="points on a side (192)")
    parser.add_argument("--k", type=float, default=0.5, help="time step (0.5)")
    options = parser.parse_args()
    answers = claim_stdout()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    steps = Steps(options.size, options.k)
    serve(answers, {"version": jax.__version__}, {"load": steps.load, "run": steps.run, "save": steps.save})


if __name__ == "__main__":
    main()
