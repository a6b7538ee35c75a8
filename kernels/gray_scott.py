"""Gray-Scott: two chemicals that react and diffuse, in two or three dimensions.

    du/dt = diffusivity_u * laplacian(u) - u v^2 + feed * (1 - u)
    dv/dt = diffusivity_v * laplacian(v) + u v^2 - (feed + kill) * v

Spots that divide, stripes, spirals: J. E. Pearson, Complex patterns in a simple system, Science 261 (1993), 189-192.
Explicit Euler in time, central differences of second order in space. Stable up to about dt = 2 / (4 d + r): d is the
greater diffusivity * sum(1 / spacing^2), r the rate (1/s) of the fastest decay, feed + v^2 of u or feed + kill of v;
and while dt * v^2 <= 1 and dt * (feed + kill) <= 1, without which u or v could become negative.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta

import hpcframe as hf

# x, y, z: 1 / spacing^2 along each axis (1/m2)


@hf.stencil
def step_2d(new_u, new_v, u, v, diffusivity_u, diffusivity_v, feed, kill, x, y, dt):
    laplacian_u = x * (u[1, 0] - 2.0 * u[0, 0] + u[-1, 0]) + y * (u[0, 1] - 2.0 * u[0, 0] + u[0, -1])
    laplacian_v = x * (v[1, 0] - 2.0 * v[0, 0] + v[-1, 0]) + y * (v[0, 1] - 2.0 * v[0, 0] + v[0, -1])
    reaction = u[0, 0] * v[0, 0] * v[0, 0]
    new_u[0, 0] = u[0, 0] + dt * (diffusivity_u * laplacian_u - reaction + feed * (1.0 - u[0, 0]))
    new_v[0, 0] = v[0, 0] + dt * (diffusivity_v * laplacian_v + reaction - (feed + kill) * v[0, 0])


@hf.stencil
def step_3d(new_u, new_v, u, v, diffusivity_u, diffusivity_v, feed, kill, x, y, z, dt):
    laplacian_u = (
        x * (u[1, 0, 0] - 2.0 * u[0, 0, 0] + u[-1, 0, 0])
        + y * (u[0, 1, 0] - 2.0 * u[0, 0, 0] + u[0, -1, 0])
        + z * (u[0, 0, 1] - 2.0 * u[0, 0, 0] + u[0, 0, -1])
    )
    laplacian_v = (
        x * (v[1, 0, 0] - 2.0 * v[0, 0, 0] + v[-1, 0, 0])
        + y * (v[0, 1, 0] - 2.0 * v[0, 0, 0] + v[0, -1, 0])
        + z * (v[0, 0, 1] - 2.0 * v[0, 0, 0] + v[0, 0, -1])
    )
    reaction = u[0, 0, 0] * v[0, 0, 0] * v[0, 0, 0]
    new_u[0, 0, 0] = u[0, 0, 0] + dt * (diffusivity_u * laplacian_u - reaction + feed * (1.0 - u[0, 0, 0]))
    new_v[0, 0, 0] = v[0, 0, 0] + dt * (diffusivity_v * laplacian_v + reaction - (feed + kill) * v[0, 0, 0])


def uniform(index, seed):
    """A number in [-1, 1) for each whole number: the SplitMix64 generator of G. L. Steele, D. Lea and C. H. Flood,
    OOPSLA 2014, whose n-th output is a hash of n."""
    z = np.uint64(seed) + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-52 - 1.0


class GrayScott(hf.Model):
    """Diagnostics: `integral_u` and `integral_v`, and the `greatest_v`.

    Without flux through walls a step changes integral_u + integral_v by
    dt * (feed * (volume - integral_u) - (feed + kill) * integral_v), to rounding.
    """

    fields = ("u", "v")

    class Parameters(hf.Parameters):
        diffusivity_u: Annotated[float, Meta(gt=0)] = 2.0e-5  # m2/s
        diffusivity_v: Annotated[float, Meta(gt=0)] = 1.0e-5  # m2/s
        feed: Annotated[float, Meta(gt=0)] = 0.04  # 1/s, Pearson's F
        kill: Annotated[float, Meta(gt=0)] = 0.06  # 1/s, Pearson's k
        noise: Annotated[float, Meta(ge=0, lt=1)] = 0.01  # relative, in the initial state `square`
        seed: Annotated[int, Meta(ge=0)] = 0  # of the noise

    def setup(self):
        if self.grid.ndim == 1:
            raise hf.InputError("[grid] shape: gray_scott has two or three dimensions; give another axis")
        self.u, self.new_u = self.levels("u", 2)
        self.v, self.new_v = self.levels("v", 2)

    def initial_square(self, *x):
        """u = 1 and v = 0, but for a square in the middle, 8 % of the box wide, with u = 1/2 and v = 1/4; noise."""
        box = list(zip(x, self.grid.origin, self.grid.extent, self.grid.spacing, strict=True))
        inside = np.prod(np.broadcast_arrays(*(abs(a - o - 0.5 * e) < 0.04 * e for a, o, e, _ in box)), axis=0)
        cells = [np.rint((a - o) / h - 0.5).astype(int) for a, o, _, h in box]
        index = 2 * np.ravel_multi_index(np.broadcast_arrays(*cells), self.grid.shape)
        noise = (1 + self.parameters.noise * uniform(index + field, self.parameters.seed) for field in (0, 1))
        return {"u": (1 - 0.5 * inside) * next(noise), "v": 0.25 * inside * next(noise)}

    def stable_dt(self):
        p = self.parameters
        steady = p.feed / (p.feed + p.kill)  # the most that v can be in a uniform steady state
        start = self.grid.max(self.v)
        diffusion = max(p.diffusivity_u, p.diffusivity_v) * sum(1 / h**2 for h in self.grid.spacing)
        decay = p.feed + max(p.kill, steady**2, start**2)
        return min(2 / (4 * diffusion + decay), 1 / max(1, start**2, p.feed + p.kill))

    def advance(self, steps, dt):
        p = self.parameters
        equation = p.diffusivity_u, p.diffusivity_v, p.feed, p.kill
        weights = [1 / h**2 for h in self.grid.spacing]
        step = step_2d if self.grid.ndim == 2 else step_3d
        self.u, self.v, self.new_u, self.new_v = step.iterate(
            self.new_u, self.new_v, self.u, self.v, *equation, *weights, steps=steps, dt=dt
        )

    def diagnostics(self):
        return {
            "integral_u": ("integral", self.u),
            "integral_v": ("integral", self.v),
            "greatest_v": ("max", self.v),
        }
