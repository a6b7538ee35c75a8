"""Acoustic waves in a medium of variable velocity, in one, two or three dimensions.

    d2u/dt2 = velocity^2 * laplacian(u) + source

Leapfrog of second order in time, central differences of order 2, 4 or 8 in space (weights: B. Fornberg, Mathematics of
Computation 51 (1988), 699-706). The source is a point with a wavelet of N. Ricker, Geophysics 18 (1953), 10-40. Stable
up to dt = 2 / (velocity * sqrt(sum(S / spacing^2))), S the sum of the weights' magnitudes: then dt * omega <= 2 for
every wave that the grid can hold. A. Fichtner, Full Seismic Waveform Modelling and Inversion, Springer 2011, chapter 2.
"""

import functools
import math
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

import hpcframe as hf

# Second derivative: weight of the point itself, then of the pair of points at distance 1, 2, ...
WEIGHTS = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}


@functools.cache
def operators(space_order, ndim):
    """A time step, and the density of energy. x, y, z are 1 / spacing^2 (1/m2), i, j, k the cell of the source."""
    weights = WEIGHTS[space_order]
    distances = range(1, len(weights))
    farthest = len(weights)

    @hf.stencil
    def step_1d(new, u, old, velocity, dt, source, i, x):
        laplacian = x * weights[0] * u[0]
        for r in range(1, farthest):
            laplacian += weights[r] * (x * (u[r] + u[-r]))
        courant = dt * velocity[0]
        force = source if hf.index(0) == i else 0.0
        new[0] = 2.0 * u[0] - old[0] + courant * courant * laplacian + dt * dt * force

    @hf.stencil
    def step_2d(new, u, old, velocity, dt, source, i, j, x, y):
        laplacian = (x + y) * weights[0] * u[0, 0]
        for r in range(1, farthest):
            laplacian += weights[r] * (x * (u[r, 0] + u[-r, 0]) + y * (u[0, r] + u[0, -r]))
        courant = dt * velocity[0, 0]
        force = source if hf.index(0) == i and hf.index(1) == j else 0.0
        new[0, 0] = 2.0 * u[0, 0] - old[0, 0] + courant * courant * laplacian + dt * dt * force

    @hf.stencil
    def step_3d(new, u, old, velocity, dt, source, i, j, k, x, y, z):
        laplacian = (x + y + z) * weights[0] * u[0, 0, 0]
        for r in range(1, farthest):
            laplacian += weights[r] * (
                x * (u[r, 0, 0] + u[-r, 0, 0]) + y * (u[0, r, 0] + u[0, -r, 0]) + z * (u[0, 0, r] + u[0, 0, -r])
            )
        courant = dt * velocity[0, 0, 0]
        force = source if hf.index(0) == i and hf.index(1) == j and hf.index(2) == k else 0.0
        new[0, 0, 0] = 2.0 * u[0, 0, 0] - old[0, 0, 0] + courant * courant * laplacian + dt * dt * force
    @hf.stencil
    def plain_3d(new, u, old, velocity, dt, x, y, z):
        laplacian = (x + y + z) * weights[0] * u[0, 0, 0]
        for r in range(1, farthest):
            laplacian += weights[r] * (
                x * (u[r, 0, 0] + u[-r, 0, 0]) + y * (u[0, r, 0] + u[0, -r, 0]) + z * (u[0, 0, r] + u[0, 0, -r])
            )
        courant = dt * velocity[0, 0, 0]
        new[0, 0, 0] = 2.0 * u[0, 0, 0] - old[0, 0, 0] + courant * courant * laplacian 
    @hf.stencil
    def axis_3d(new, u, old, velocity, dt, x, y, z):
        along_x = weights[0] * u[0, 0, 0]
        along_y = weights[0] * u[0, 0, 0]
        along_z = weights[0] * u[0, 0, 0]
        for r in range(1, farthest):
            along_x += weights[r] * (u[r, 0, 0] + u[-r, 0, 0])
            along_y += weights[r] * (u[0, r, 0] + u[0, -r, 0])
            along_z += weights[r] * (u[0, 0, r] + u[0, 0, -r])
        laplacian = x * along_x + y * along_y + z * along_z
        courant = dt * velocity[0, 0, 0]
        new[0, 0, 0] = 2.0 * u[0, 0, 0] - old[0, 0, 0] + courant * courant * laplacian 
    return step_3d, plain_3d, axis_3d
