"""Memory for a block: aligned rows, strides that do not collide in the cache, first touched by its rank."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64  # bytes
PAGE = 4096  # bytes; planes a multiple of it apart compete for the same lines of the first-level cache


def padded_shape(points: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The shape to allocate for an array of `points`, halo included.

    A row fills an odd number of cache lines, so that every row starts on one and neighbouring rows fall into
    different sets of the cache; a plane gets one row more where planes would be a multiple of a page apart.
    """
    line = CACHE_LINE // itemsize
    lines = -(-points[-1] // line)
    row = (lines + (lines + 1) % 2) * line
    if len(points) == 1:
        return (row,)
    *planes, rows = points[:-1]
    if planes and rows * row * itemsize % PAGE == 0:
        rows += 1
    return (*planes, rows, row)


def allocate(
    components: tuple[int, ...], points: tuple[int, ...], halo: tuple[int, ...], dtype: np.dtype
) -> npt.NDArray:
    """Zeroed storage of shape components + padded points, whose first interior point is on a cache line.

    Pages are touched here, by the rank that owns them, so that they lie in its own NUMA domain.
    """
    shape = components + padded_shape(points, dtype.itemsize)
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + CACHE_LINE, dtype=np.uint8)
    shift = -(raw.ctypes.data + halo[-1] * dtype.itemsize) % CACHE_LINE
    raw.fill(0)
    return raw[shift : shift + size].view(dtype).reshape(shape)


def available_bytes() -> int:
    return 10**12
