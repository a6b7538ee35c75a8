"""The memory bandwidth that all ranks together get here, against which a run's own is compared."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcframe.compilation import compile_once_a_node

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid

ELEMENTS = 1 << 22  # of each array on a node, 32 MiB: the three together are past most last-level caches
ROUNDS = 3
BYTES_AN_ELEMENT = 3 * 8  # as STREAM counts: two read, one written


def _triad(a: npt.NDArray, b: npt.NDArray, c: npt.NDArray) -> None:
    for i in range(a.shape[0]):
        a[i] = b[i] + 3.0 * c[i]


def measure(grid: CartesianGrid) -> float:
    """Bytes a second of the STREAM triad, summed over all ranks, which run it at the same time. Collective.

    Source: J. D. McCalpin, STREAM: sustainable memory bandwidth in high performance computers, 1991-2007.
    """
    triad = compile_once_a_node(
        _triad, "void(float64[::1], float64[::1], float64[::1])", grid.shared.node, inspect.getsource(_triad)
    )
    elements = max(1 << 14, ELEMENTS // grid.shared.node.size)
    a, b, c = (np.full(elements, value) for value in (0.0, 1.0, 2.0))
    best = np.inf
    for _ in range(ROUNDS):
        grid.comm.Barrier()
        begin = time.perf_counter()
        triad(a, b, c)
        best = min(best, time.perf_counter() - begin)
    return float(grid.comm.allreduce(elements * BYTES_AN_ELEMENT / best))
