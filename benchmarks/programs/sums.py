"""Sums of a field on any number of ranks, 256^3 numbers each: see serving.py.

`exact REPEATS` is hpcframe's grid.sum; `plain REPEATS` a vectorised loop of numba that may add in any order, and one
MPI message. `check` compares both with math.fsum. `together TIMES` and `alone TIMES` are plain sums of a few numbers in
the cache, by all ranks and by the first one: cores that the host does not share take the same time for both.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from mpi4py import MPI
from serving import claim_stdout, serve, timed

import hpcframe as hf


@numba.njit(fastmath=True)
def plain_sum(values):
    total = 0.0
    for i in range(values.size):
        total += values[i]
    return total


@numba.njit(fastmath=True)
def sums_in_cache(values, times):
    total = 0.0
    for _ in range(times):
        total = 0.5 * total + plain_sum(values)
    return total


class Sums:
    """The same numbers on every rank, so that the true sum is known from those of one."""

    def __init__(self, comm: MPI.Intracomm, size: int) -> None:
        self.comm = comm
        self.values = np.random.default_rng(1).standard_normal(size**3)
        self.grid = hf.Grid((size * comm.size, size, size), ranks=(comm.size, 1, 1), comm=comm)
        self.field = self.grid.field("u")
        self.field.interior[:] = self.values.reshape((size,) * 3)
        self.few = self.values[:2048].copy()  # 16 KiB
        sums_in_cache(self.few, 1)

    def exact(self) -> float:
        return self.grid.sum(self.field)

    def plain(self) -> float:
        return self.comm.allreduce(plain_sum(self.values))

    def check(self, _: str) -> dict[str, Any]:
        """Whether the exact sum is the rounded true one, and how far off the plain one is."""
        truth = math.fsum(math.fsum(self.values) for _ in range(self.comm.size))  # exact for one rank and for two
        return {"exact": self.exact() == truth, "plain_error": abs(self.plain() / truth - 1)}

    def repeated(self, action: Callable[[], float]) -> Callable[[str], dict[str, float]]:
        return lambda repeats: timed(lambda: [action() for _ in range(int(repeats))], self.comm)

    def together(self, times: str) -> dict[str, float]:
        return timed(lambda: sums_in_cache(self.few, int(times)), self.comm)

    def alone(self, times: str) -> dict[str, float]:
        """Of the first rank, while the others sleep."""
        begin = time.perf_counter()
        if self.comm.rank == 0:
            sums_in_cache(self.few, int(times))
        seconds = time.perf_counter() - begin
        done = self.comm.Ibarrier()
        while not done.Test():
            time.sleep(1e-3)
        return {"seconds": seconds}


def main() -> None:
    """Parse, fill, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="points on a side a rank (256)")
    options = parser.parse_args()
    answers = claim_stdout()
    sums = Sums(MPI.COMM_WORLD, options.size)
    commands = {"check": sums.check, "exact": sums.repeated(sums.exact), "plain": sums.repeated(sums.plain)}
    commands |= {"together": sums.together, "alone": sums.alone}
    serve(answers, {}, commands, sums.comm)


if __name__ == "__main__":
    main()
