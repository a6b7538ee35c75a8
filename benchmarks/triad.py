"""STREAM's triad in numba: what the memory gives."""

from __future__ import annotations

import time

import numba
import numpy as np


class Triad:
    """STREAM's triad, a = b + s * c: the memory bandwidth that one thread of numba gets.

    J. D. McCalpin, Memory bandwidth and machine balance in current high performance computers (1995). As there,
    24 bytes count for each element, though most machines also read `a` before they write it.
    """

    def __init__(self, elements: int = 2**25) -> None:
        self._arrays = [np.full(elements, value) for value in (0.0, 1.0, 2.0)]
        triad(*self._arrays, 3.0)

    @property
    def bytes(self) -> int:
        """What counts for one pass."""
        return 24 * self._arrays[0].size

    def sweep(self) -> None:
        """One pass."""
        triad(*self._arrays, 3.0)

    def run(self) -> float:
        """One pass; returns GB/s."""
        start = time.perf_counter()
        self.sweep()
        return self.bytes / (time.perf_counter() - start) / 1e9


@numba.njit
def triad(a, b, c, s):
    for i in range(a.size):
        a[i] = b[i] + s * c[i]
