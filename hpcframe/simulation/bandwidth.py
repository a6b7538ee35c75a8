"""The memory bandwidth that all ranks together get here, against which a run's own is compared."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress

import numpy as np
from mpi4py import MPI

from hpcframe.compilation import compile_once_a_node, keep, kept, source_of
from hpcframe.grid.communicator import Communicator
from hpcframe.simulation.summary import machine
from hpcframe.threads import VARIABLE, team, threads_wanted

# Of each of three arrays. On a node they are together past its last-level cache, and a rank's own past its share of it,
# on nodes of hundreds of cores too.
ELEMENTS_A_NODE = 1 << 22
LEAST_ELEMENTS_A_RANK = 1 << 20
MEASUREMENTS = 3  # of which the greatest counts: other programs of the node may have been in the way of one
SECONDS, SWEEPS = 0.2, 4  # of the whole measurement; of a round, of which the fastest counts
BYTES_AN_ELEMENT = 3 * 8  # as STREAM counts: two read, one written


def measure(shared: Communicator) -> float:
    """Bytes a second of the STREAM triad of all ranks, which run it at the same time. Collective.

    Measured by the first runs on a kind of node, with so many ranks and threads, and then known from the cache folder.
    All ranks measure where one node does not know. Before a run makes its fields, for it takes memory of its own.

    Source: J. D. McCalpin, STREAM: sustainable memory bandwidth in high performance computers, 1991-2007.
    """
    elements = max(LEAST_ELEMENTS_A_RANK, ELEMENTS_A_NODE // shared.node.size)
    threads = threads_wanted(shared.comm.bcast(os.environ.get(VARIABLE)))
    leads = shared.node.rank == 0
    name = _name(shared.node.size, threads, elements) if leads else ""
    rate, times = _remembered(name) if leads else (0.0, 0)
    if shared.comm.allreduce(int(leads and times < MEASUREMENTS)):
        rate = max(rate, _probe(shared, elements, threads))
        if leads:
            with suppress(OSError):  # the next run measures again; compiling has said already why nothing is kept
                keep(name, json.dumps({"bytes_per_second": rate, "measurements": times + 1}).encode())
    return float(shared.comm.allreduce(rate if leads else 0.0))


def _name(ranks: int, threads: int, elements: int) -> str:
    here = machine()
    kind = (here["cpu"], here["cores"], here["threads"], ranks, threads, elements)
    return f"bandwidth-{hashlib.sha256(repr(kind).encode()).hexdigest()[:32]}.json"


def _remembered(name: str) -> tuple[float, int]:
    """The most that earlier runs measured, and how many they were; zeros where that is unknown."""
    try:
        known = json.loads(kept(name) or b"{}")
        rate, times = float(known["bytes_per_second"]), int(known["measurements"])
        return (rate, times) if rate > 0 else (0.0, 0)
    except (ValueError, TypeError, KeyError):  # not what was kept: measured again
        return 0.0, 0


def _triad(a, b, c):  # type: ignore[no-untyped-def]  # compiled
    for i in range(a.shape[0]):
        a[i] = b[i] + 3.0 * c[i]


def _probe(shared: Communicator, elements: int, threads: int) -> float:
    """Bytes a second of this node's ranks. Collective.

    The clock runs until the last rank of the node is done, so that ranks that take turns on a core do not count twice.
    """
    signature = "void(float64[::1], float64[::1], float64[::1])"
    triad = compile_once_a_node(_triad, signature, shared.node, source_of(_triad))
    arrays = [[np.empty(elements // threads) for _ in range(3)] for _ in range(threads)]

    def touch(member: int) -> None:  # the memory is near the thread that writes first
        for array in arrays[member]:
            array.fill(1.0)

    def sweep(member: int) -> None:
        for _ in range(SWEEPS):
            triad(*arrays[member])

    team().run(touch, threads)
    best, spent = np.inf, 0.0
    while spent < SECONDS:
        shared.comm.Barrier()
        begin = time.perf_counter()
        team().run(sweep, threads)
        seconds = time.perf_counter() - begin
        best = min(best, shared.node.allreduce(seconds, MPI.MAX))
        spent += shared.comm.allreduce(seconds, MPI.MAX)
    moved = sum(array[0].size for array in arrays) * SWEEPS * BYTES_AN_ELEMENT
    return float(shared.node.allreduce(moved) / best)
