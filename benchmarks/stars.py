"""The star Laplacian of 2nd, 4th and 8th order, as one writes it with NumPy, numba and numba.stencil.

Each step is v = u + k * laplacian(u), with a spacing of one, at the points whose whole star lies within the array.
Weights: B. Fornberg, Generation of finite difference formulas on arbitrarily spaced grids, Math. Comp. 51 (1988).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy.typing as npt

Step = Callable[[npt.NDArray, npt.NDArray, float], Any]

# Order of accuracy: weights of the second derivative at distances 0, 1, 2, ...
WEIGHTS = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}
B0, B1, B2 = 3 * WEIGHTS[4][0], *WEIGHTS[4][1:]
C0, C1, C2, C3, C4 = 3 * WEIGHTS[8][0], *WEIGHTS[8][1:]


# -- NumPy slices -----------------------------------------------------------------------------------------------


def numpy_step(order: int) -> Step:
    """Sums of shifted views, one ring of six neighbours at a time."""
    centre, *others = WEIGHTS[order]
    radius = len(others)

    def shifted(u: npt.NDArray, axis: int, offset: int) -> npt.NDArray:
        inner = [slice(radius, -radius)] * 3
        inner[axis] = slice(radius + offset, u.shape[axis] - radius + offset)
        return u[tuple(inner)]

    def step(v: npt.NDArray, u: npt.NDArray, k: float) -> None:
        middle = shifted(u, 0, 0)
        laplacian = 3 * centre * middle
        for distance, weight in enumerate(others, 1):
            laplacian += weight * sum(shifted(u, axis, side * distance) for axis in range(3) for side in (1, -1))
        shifted(v, 0, 0)[:] = middle + k * laplacian

    return step


# -- numba, loops over three indices ----------------------------------------------------------------------------


@numba.njit
def loop7(v, u, c):
    nx, ny, nz = u.shape
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(1, nz - 1):
                v[i, j, k] = u[i, j, k] + c * (
                    u[i+1, j, k] + u[i-1, j, k] + u[i, j+1, k] + u[i, j-1, k] + u[i, j, k+1] + u[i, j, k-1]
                    - 6.0 * u[i, j, k]
                )  # fmt: skip


@numba.njit
def loop13(v, u, c):
    nx, ny, nz = u.shape
    for i in range(2, nx - 2):
        for j in range(2, ny - 2):
            for k in range(2, nz - 2):
                v[i, j, k] = u[i, j, k] + c * (
                    B0 * u[i, j, k]
                    + B1 * (u[i+1, j, k] + u[i-1, j, k] + u[i, j+1, k] + u[i, j-1, k] + u[i, j, k+1] + u[i, j, k-1])
                    + B2 * (u[i+2, j, k] + u[i-2, j, k] + u[i, j+2, k] + u[i, j-2, k] + u[i, j, k+2] + u[i, j, k-2])
                )  # fmt: skip


@numba.njit
def loop25(v, u, c):
    nx, ny, nz = u.shape
    for i in range(4, nx - 4):
        for j in range(4, ny - 4):
            for k in range(4, nz - 4):
                v[i, j, k] = u[i, j, k] + c * (
                    C0 * u[i, j, k]
                    + C1 * (u[i+1, j, k] + u[i-1, j, k] + u[i, j+1, k] + u[i, j-1, k] + u[i, j, k+1] + u[i, j, k-1])
                    + C2 * (u[i+2, j, k] + u[i-2, j, k] + u[i, j+2, k] + u[i, j-2, k] + u[i, j, k+2] + u[i, j, k-2])
                    + C3 * (u[i+3, j, k] + u[i-3, j, k] + u[i, j+3, k] + u[i, j-3, k] + u[i, j, k+3] + u[i, j, k-3])
                    + C4 * (u[i+4, j, k] + u[i-4, j, k] + u[i, j+4, k] + u[i, j-4, k] + u[i, j, k+4] + u[i, j, k-4])
                )  # fmt: skip


# -- numba.stencil ----------------------------------------------------------------------------------------------


@numba.stencil
def star7(u, k):
    return u[0, 0, 0] + k * (
        u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1] - 6.0 * u[0, 0, 0]
    )


@numba.stencil
def star13(u, k):
    return u[0, 0, 0] + k * (
        B0 * u[0, 0, 0]
        + B1 * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1])
        + B2 * (u[2, 0, 0] + u[-2, 0, 0] + u[0, 2, 0] + u[0, -2, 0] + u[0, 0, 2] + u[0, 0, -2])
    )


@numba.stencil
def star25(u, k):
    return u[0, 0, 0] + k * (
        C0 * u[0, 0, 0]
        + C1 * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1])
        + C2 * (u[2, 0, 0] + u[-2, 0, 0] + u[0, 2, 0] + u[0, -2, 0] + u[0, 0, 2] + u[0, 0, -2])
        + C3 * (u[3, 0, 0] + u[-3, 0, 0] + u[0, 3, 0] + u[0, -3, 0] + u[0, 0, 3] + u[0, 0, -3])
        + C4 * (u[4, 0, 0] + u[-4, 0, 0] + u[0, 4, 0] + u[0, -4, 0] + u[0, 0, 4] + u[0, 0, -4])
    )


def stencil_step(star: Callable[..., npt.NDArray]) -> Step:
    """numba.stencil within compiled code, into an array that exists: its quickest form."""

    @numba.njit
    def step(v, u, k):
        star(u, k, out=v)

    return step


LOOPS = {2: loop7, 4: loop13, 8: loop25}
STENCILS = {2: star7, 4: star13, 8: star25}
