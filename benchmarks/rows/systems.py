"""Waves and reaction-diffusion: several fields a point, with the stencils that hpcframe ships. float64."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import Effort
from remote import Remote, python_of

from rows.row import Row
from rows.stepping import NINE_DIGITS, Stepper, away_from_walls, compare, devito, hpcframe, noise

WAVE_SIDE, WAVE_ORDER, WAVE_DT = 256, 8, 0.1
REACTION_SIDE, REACTION_DT = 192, 0.5


def acoustic(effort: Effort) -> dict[str, Any]:
    """Leapfrog of 8th order in space with a velocity that varies from point to point, one thread."""
    shape = (WAVE_SIDE,) * 3
    with ExitStack() as stack:
        ours = hpcframe("wave", shape, WAVE_ORDER, WAVE_DT)
        stack.enter_context(ours.remote)
        theirs = devito(shape, WAVE_ORDER, WAVE_DT, "--wave")
        stack.enter_context(theirs.remote)
        checked, timed = in_rock(away_from_walls(shape, WAVE_ORDER)), in_rock(noise(shape))
        return compare(ours, theirs, checked, timed, effort, NINE_DIGITS)


def in_rock(u: npt.NDArray) -> npt.NDArray:
    """u, and a velocity between 1 and 2."""
    return np.stack([u, 1 + noise(u.shape, seed=2)])


def against_pde(effort: Effort) -> dict[str, Any]:
    return reaction(effort, "py-pde", "programs/pde_gray_scott.py", ranks=1)


def against_jax(effort: Effort) -> dict[str, Any]:
    return reaction(effort, "JAX", "programs/jax_gray_scott.py", ranks=1)


def against_jax_both_cores(effort: Effort) -> dict[str, Any]:
    return reaction(effort, "JAX", "programs/jax_gray_scott.py", ranks=2)


def reaction(effort: Effort, peer: str, program: str, ranks: int) -> dict[str, Any]:
    """Euler steps on a periodic cube. On one rank both are bound to the same core; on two, the peer may use both."""
    shape, python = (REACTION_SIDE,) * 3, python_of(peer)
    core = last_core() if ranks == 1 else None
    with ExitStack() as stack:
        ours = hpcframe("gray_scott", shape, 2, REACTION_DT, ranks=ranks, core=core)
        stack.enter_context(ours.remote)
        options = ("--size", REACTION_SIDE, "--k", REACTION_DT)
        theirs = Stepper(Remote(program, *options, python=python, threads=ranks, core=core), REACTION_SIDE**3)
        stack.enter_context(theirs.remote)
        start = np.stack([noise(shape, seed=1), noise(shape, seed=2)])
        return compare(ours, theirs, start, start, effort)


def last_core() -> int | None:
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


ROWS = [
    Row("wave", "acoustic wave, 8th order, variable velocity, 1 thread", "Devito, autotuned, 1 thread", 1.3, acoustic),
    Row("gray-scott-pde", "Gray-Scott 192^3, 1 core", "py-pde (numba), 1 core", 5.0, against_pde),
    Row("gray-scott-jax", "Gray-Scott 192^3, 1 core", "JAX (jit, 1 process), 1 core", 1.5, against_jax),
    Row(
        "gray-scott-jax-cores",
        "Gray-Scott 192^3, 2 ranks",
        "JAX (jit, 1 process), 2 cores",
        1.5,
        against_jax_both_cores,
    ),
]
