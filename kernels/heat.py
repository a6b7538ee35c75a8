"""Heat: diffusion with a source, in one, two or three dimensions.

    du/dt = diffusivity * laplacian(u) + source

Explicit Euler in time, central differences of second order in space; stable up to dt = 1 / (2 d) with
d = diffusivity * sum(1 / spacing^2). See K. W. Morton and D. F. Mayers, Numerical Solution of Partial Differential
Equations, 2nd ed., Cambridge 2005, chapters 2 and 3. With elevation as u and no source this is hillslope diffusion,
the standard model of soil creep: W. E. H. Culling, Journal of Geology 68 (1960), 336-344.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta

import hpcframe as hf

# x, y, z: diffusivity / spacing^2 along each axis (1/s)


@hf.stencil
def step_1d(new, u, source, x, dt):
    diffusion = x * (u[1] - 2.0 * u[0] + u[-1])
    new[0] = u[0] + dt * (diffusion + source)


@hf.stencil
def step_2d(new, u, source, x, y, dt):
    diffusion = x * (u[1, 0] - 2.0 * u[0, 0] + u[-1, 0]) + y * (u[0, 1] - 2.0 * u[0, 0] + u[0, -1])
    new[0, 0] = u[0, 0] + dt * (diffusion + source)


@hf.stencil
def step_3d(new, u, source, x, y, z, dt):
    diffusion = (
        x * (u[1, 0, 0] - 2.0 * u[0, 0, 0] + u[-1, 0, 0])
        + y * (u[0, 1, 0] - 2.0 * u[0, 0, 0] + u[0, -1, 0])
        + z * (u[0, 0, 1] - 2.0 * u[0, 0, 0] + u[0, 0, -1])
    )
    new[0, 0, 0] = u[0, 0, 0] + dt * (diffusion + source)


class Heat(hf.Model):
    """Diagnostics: `heat`, the integral of u, conserved without a source and flux; `least` and `greatest` value."""

    fields = ("u",)

    class Parameters(hf.Parameters):
        diffusivity: Annotated[float, Meta(gt=0)] = 1.0e-4  # m2/s
        source: float = 0.0  # unit of u / s

    def setup(self):
        self.u, self.new = self.levels("u", 2)

    def initial_gaussian(self, *x):
        """A warm spot in the middle of the box, a tenth of its length wide."""
        middle = [o + 0.5 * e for o, e in zip(self.grid.origin, self.grid.extent, strict=True)]
        r2 = sum(((a - m) / (0.1 * e)) ** 2 for a, m, e in zip(x, middle, self.grid.extent, strict=True))
        return {"u": np.exp(-0.5 * r2)}

    def initial_sine(self, *x):
        """One period along each axis: it decays by exp(-diffusivity k^2 t) where the box is periodic."""
        waves = [np.sin(2 * np.pi * (a - o) / e) for a, o, e in zip(x, self.grid.origin, self.grid.extent, strict=True)]
        return {"u": np.prod(np.broadcast_arrays(*waves), axis=0)}

    def stable_dt(self):
        return 0.5 / (self.parameters.diffusivity * sum(1 / h**2 for h in self.grid.spacing))

    def advance(self, steps, dt):
        step = (step_1d, step_2d, step_3d)[self.grid.ndim - 1]
        rates = [self.parameters.diffusivity / h**2 for h in self.grid.spacing]
        self.u, self.new = step.iterate(self.new, self.u, self.parameters.source, *rates, steps=steps, dt=dt)

    def diagnostics(self):
        return {"heat": ("integral", self.u), "least": ("min", self.u), "greatest": ("max", self.u)}
