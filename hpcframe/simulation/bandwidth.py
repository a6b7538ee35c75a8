"""The memory bandwidth that all ranks together get here, against which a run's own is compared."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.compilation import compile_once_a_node

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid

# Of each of three arrays. On a node they are together past its last-level cache, and a rank's own past its share of it,
# on nodes of hundreds of cores too.
ELEMENTS_A_NODE = 1 << 22
LEAST_ELEMENTS_A_RANK = 1 << 20
ROUNDS, SWEEPS = 3, 4
BYTES_AN_ELEMENT = 3 * 8  # as STREAM counts: two read, one written


def _triad(a: npt.NDArray, b: npt.NDArray, c: npt.NDArray) -> None:
    for i in range(a.shape[0]):
        a[i] = b[i] + 3.0 * c[i]


def measure(grid: CartesianGrid) -> float:
    """Bytes a second of the STREAM triad of all ranks, which run it at the same time. Collective.

    The clock runs until the last rank is done, so that ranks that take turns on a core do not count twice.

    Source: J. D. McCalpin, STREAM: sustainable memory bandwidth in high performance computers, 1991-2007.
    """
    triad = compile_once_a_node(
        _triad, "void(float64[::1], float64[::1], float64[::1])", grid.shared.node, inspect.getsource(_triad)
    )
    elements = max(LEAST_ELEMENTS_A_RANK, ELEMENTS_A_NODE // grid.shared.node.size)
    a, b, c = (np.full(elements, value) for value in (0.0, 1.0, 2.0))
    best = np.inf
    for _ in range(ROUNDS):
        grid.comm.Barrier()
        begin = time.perf_counter()
        for _ in range(SWEEPS):
            triad(a, b, c)
        best = min(best, grid.comm.allreduce(time.perf_counter() - begin, MPI.MAX))
    return float(grid.comm.allreduce(elements) * SWEEPS * BYTES_AN_ELEMENT / best)
