"""The same stars as in stars.py, as stencils of hpcframe."""

from __future__ import annotations

from stars import B0, B1, B2, C0, C1, C2, C3, C4

import hpcframe as hf


@hf.stencil
def star7(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1] - 6.0 * u[0, 0, 0]
    )


@hf.stencil
def star13(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        B0 * u[0, 0, 0]
        + B1 * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1])
        + B2 * (u[2, 0, 0] + u[-2, 0, 0] + u[0, 2, 0] + u[0, -2, 0] + u[0, 0, 2] + u[0, 0, -2])
    )


@hf.stencil
def star25(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        C0 * u[0, 0, 0]
        + C1 * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1])
        + C2 * (u[2, 0, 0] + u[-2, 0, 0] + u[0, 2, 0] + u[0, -2, 0] + u[0, 0, 2] + u[0, 0, -2])
        + C3 * (u[3, 0, 0] + u[-3, 0, 0] + u[0, 3, 0] + u[0, -3, 0] + u[0, 0, 3] + u[0, 0, -3])
        + C4 * (u[4, 0, 0] + u[-4, 0, 0] + u[0, 4, 0] + u[0, -4, 0] + u[0, 0, 4] + u[0, 0, -4])
    )


STENCILS = {2: star7, 4: star13, 8: star25}
