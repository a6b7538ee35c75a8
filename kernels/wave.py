"""Acoustic waves in a medium of variable velocity, in one, two or three dimensions.

    d2u/dt2 = velocity^2 * laplacian(u) + amplitude * ricker(t) * delta(x - source_position)

Leapfrog of second order in time; central differences of order 2, 4 or 8 in space, with the weights of B. Fornberg,
Mathematics of Computation 51 (1988), 699-706. Stable up to dt = 2 / (velocity * sqrt(S * sum(1 / spacing^2))), S the
sum of the weights' magnitudes: L. R. Lines, R. Slawinski and R. P. Bording, Geophysics 64 (1999), 967-969. The source
is a point, and its wavelet that of N. Ricker, Geophysics 18 (1953), 10-40.
"""

import functools
import math
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

import hpcframe as hf

# Second derivative times spacing^2: weight of the point itself, then of the pairs at distance 1, 2, ...
WEIGHTS = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}


@functools.cache
def step_of(space_order, ndim, has_source):
    """The stencil of a time step. x, y, z: 1 / spacing^2 (1/m2); i, j, k: cell of the source; force: unit of u / s2."""
    weights = WEIGHTS[space_order]
    end = len(weights)

    @hf.stencil
    def step_1d(new, u, old, velocity, i, x, force, dt):
        laplacian = weights[0] * x * u[0]
        for r in range(1, end):
            laplacian += weights[r] * (x * (u[r] + u[-r]))
        source = force if has_source and hf.index(0) == i else 0.0
        new[0] = 2.0 * u[0] - old[0] + dt * dt * (velocity[0] * velocity[0] * laplacian + source)

    @hf.stencil
    def step_2d(new, u, old, velocity, i, j, x, y, force, dt):
        laplacian = weights[0] * (x + y) * u[0, 0]
        for r in range(1, end):
            laplacian += weights[r] * (x * (u[r, 0] + u[-r, 0]) + y * (u[0, r] + u[0, -r]))
        source = force if has_source and hf.index(0) == i and hf.index(1) == j else 0.0
        new[0, 0] = 2.0 * u[0, 0] - old[0, 0] + dt * dt * (velocity[0, 0] * velocity[0, 0] * laplacian + source)

    @hf.stencil
    def step_3d(new, u, old, velocity, i, j, k, x, y, z, force, dt):
        laplacian = weights[0] * (x + y + z) * u[0, 0, 0]
        for r in range(1, end):
            laplacian += weights[r] * (
                x * (u[r, 0, 0] + u[-r, 0, 0]) + y * (u[0, r, 0] + u[0, -r, 0]) + z * (u[0, 0, r] + u[0, 0, -r])
            )
        source = force if has_source and hf.index(0) == i and hf.index(1) == j and hf.index(2) == k else 0.0
        c2 = velocity[0, 0, 0] * velocity[0, 0, 0]
        new[0, 0, 0] = 2.0 * u[0, 0, 0] - old[0, 0, 0] + dt * dt * (c2 * laplacian + source)

    return (step_1d, step_2d, step_3d)[ndim - 1]


@hf.reduction("integral")
def energy_1d(u, old, older, velocity, dt):
    return 0.5 * (old[0] * old[0] - u[0] * older[0]) / (velocity[0] * dt) ** 2


@hf.reduction("integral")
def energy_2d(u, old, older, velocity, dt):
    return 0.5 * (old[0, 0] * old[0, 0] - u[0, 0] * older[0, 0]) / (velocity[0, 0] * dt) ** 2


@hf.reduction("integral")
def energy_3d(u, old, older, velocity, dt):
    return 0.5 * (old[0, 0, 0] * old[0, 0, 0] - u[0, 0, 0] * older[0, 0, 0]) / (velocity[0, 0, 0] * dt) ** 2


class Wave(hf.Model):
    """Diagnostics: `energy` (unit of u^2 * m^(ndim - 2)); `least` and `greatest` value.

    The energy is the one that leapfrog itself conserves, to rounding, in any medium, between walls that reflect and
    while the source is silent: the integral of ((u - old) / dt)^2 / (2 velocity^2) - u * laplacian(old) / 2. The last
    step replaces velocity^2 * laplacian(old) by (u - 2 old + older) / dt^2, which leaves
    (old^2 - u * older) / (2 velocity^2 dt^2).
    """

    fields = ("u", "velocity")
    history = ("old", "new")  # the two levels before: a step reads one, the energy both

    class Parameters(hf.Parameters):
        velocity: Annotated[float, Meta(gt=0)] = 1.0  # m/s, wherever [initial] velocity does not say otherwise
        space_order: Literal[2, 4, 8] = 4
        amplitude: float = 0.0  # of the source: unit of u * m^ndim / s2
        frequency: Annotated[float, Meta(gt=0)] = 1.0  # Hz, at the peak of the wavelet's spectrum
        source_position: tuple[float, ...] = ()  # m; the middle of the grid if not given

    def setup(self):
        reach = len(WEIGHTS[self.parameters.space_order]) - 1
        self.u, self.old, self.new = self.levels("u", 3, halo=reach)
        self.velocity = self.grid.field("velocity", halo=reach)  # as wide as that of u: one address for all is faster
        self.velocity.fill(self.parameters.velocity)

    def initial_gaussian(self, *x):
        """A pulse in the middle of the box, a twentieth of its length wide."""
        middle = [o + 0.5 * e for o, e in zip(self.grid.origin, self.grid.extent, strict=True)]
        r2 = sum(((a - m) / (0.05 * e)) ** 2 for a, m, e in zip(x, middle, self.grid.extent, strict=True))
        return {"u": np.exp(-0.5 * r2), "velocity": self.parameters.velocity}

    def initial_sine(self, *x):
        """One period along each axis: a standing wave, cos(velocity |k| t), where the box is periodic."""
        waves = [np.sin(2 * np.pi * (a - o) / e) for a, o, e in zip(x, self.grid.origin, self.grid.extent, strict=True)]
        return {"u": np.prod(np.broadcast_arrays(*waves), axis=0), "velocity": self.parameters.velocity}

    def initial_rest(self, *x):
        """Nothing but what the source will bring."""
        return {"velocity": self.parameters.velocity}

    def stable_dt(self):
        slowest, fastest = self.grid.reduce(("min", self.velocity), ("max", self.velocity))
        if not slowest > 0:
            raise hf.InputError(f"[initial] velocity: {slowest:g} m/s somewhere; give more than 0 everywhere")
        centre, *pairs = WEIGHTS[self.parameters.space_order]
        magnitudes = abs(centre) + 2 * sum(map(abs, pairs))
        return 2 / (fastest * math.sqrt(magnitudes * sum(1 / h**2 for h in self.grid.spacing)))

    def prepare(self, dt):
        self.velocity.freeze()
        self.dt = dt
        self.step = step_of(self.parameters.space_order, self.grid.ndim, self.parameters.amplitude != 0)
        self.where = *self.source_cell(), *(1 / h**2 for h in self.grid.spacing)

    def start(self, dt):
        """From rest, du/dt = 0: the level before is that after, u + dt^2/2 velocity^2 laplacian(u)."""
        self.step(self.old, self.u, self.u, self.velocity, *self.where, 0.0, dt / math.sqrt(2))
        self.step(self.new, self.old, self.u, self.velocity, *self.where, 0.0, dt)  # one more, for the energy

    def source_cell(self):
        """Index of the cell that holds the source. Raises InputError where none does."""
        grid = self.grid
        box = list(zip(grid.origin, grid.extent, strict=True))
        position = self.parameters.source_position or [o + 0.5 * e for o, e in box]
        if len(position) != grid.ndim or any(not o <= p <= o + e for p, (o, e) in zip(position, box, strict=True)):
            raise hf.InputError(
                f"[parameters] source_position: {list(position)} m is not in the grid; one number an axis"
            )
        cells = [int((p - o) / h) for p, o, h in zip(position, grid.origin, grid.spacing, strict=True)]
        return [min(cell, count - 1) for cell, count in zip(cells, grid.shape, strict=True)]

    def force(self, t):
        """Density of the source at time t (unit of u / s2), in its cell: a Ricker wavelet that peaks at 1.5 periods."""
        p = self.parameters
        a = (math.pi * (p.frequency * t - 1.5)) ** 2
        return p.amplitude / self.grid.cell_volume * (1 - 2 * a) * math.exp(-a)

    def advance(self, steps, dt):
        done = round(self.grid.time / dt)
        self.u, self.old, self.new = self.step.iterate(
            self.new, self.u, self.old, self.velocity, *self.where,
            force=lambda step: self.force((done + step) * dt), steps=steps, levels=3, dt=dt,
        )  # fmt: skip

    def diagnostics(self):
        energy = (energy_1d, energy_2d, energy_3d)[self.grid.ndim - 1]
        return {
            "energy": energy.of(self.u, self.old, self.new, self.velocity, self.dt),
            "least": ("min", self.u),
            "greatest": ("max", self.u),
        }

    def bytes_a_point(self):
        return 4 * self.u.dtype.itemsize  # u, old and velocity are read, new is written
