"""Acoustic waves in a medium of variable velocity, in one, two or three dimensions.

    d2u/dt2 = velocity^2 * laplacian(u) + amplitude * ricker(t) * delta(position)

Leapfrog of second order in time, central differences of order 2, 4 or 8 in space: B. Fornberg, Mathematics of
Computation 51 (1988), 699-706. Stable while dt * omega <= 2 for every wave that the grid holds, which is up to
dt = 2 / (velocity * sqrt(S * sum(1 / spacing^2))) with S the sum of the weights' magnitudes: W. W. Symes and others,
in H. Lamb's notation R. M. Alford, K. R. Kelly and D. M. Boore, Geophysics 39 (1974), 834-842. The source is a point
with the wavelet of N. Ricker, Geophysics 18 (1953), 10-40.
"""

import functools
import math
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

import hpcframe as hf
