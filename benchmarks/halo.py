"""The time of a halo exchange along each axis, on two ranks: mpiexec -n 2 python benchmarks/halo.py

A cube is cut in two on each axis in turn, with a halo along that axis only: each rank then sends two faces to the
other. Faces normal to the last axis are single numbers a stride apart in memory, those normal to the first one piece.
An exchange that packs well is not much slower on any axis; the program fails if it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
from mpi4py import MPI

import hpcframe as hf

SECONDS = 0.05  # of exchanges on each axis in a round, about


def main() -> None:
    """Measure, print, write; exit code 1 if an axis is too slow."""
    options = arguments()
    comm = MPI.COMM_WORLD
    if comm.size != 2:
        raise SystemExit(f"started with {comm.size} ranks: mpiexec -n 2 python benchmarks/halo.py")
    about = machine.describe()
    cases = [measure(comm, size, halo, options.rounds) for size in options.size for halo in options.halo]
    slow = [case for case in cases if case["slowest/fastest"] > options.max_ratio]
    if comm.rank == 0:
        for case in cases:
            print(line(case))
        for case in slow:
            print(f"too slow on an axis: more than {options.max_ratio:g} times: {line(case)}", file=sys.stderr)
        if options.json:
            report = {"benchmark": "halo", "ranks": 2, "dtype": "float64", "machine": about, "cases": cases}
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(bool(slow))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256], help="points on a side (128 256)")
    parser.add_argument("--halo", type=int, nargs="+", default=[1, 2, 4], help="widths of the halo (1 2 4)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each axis is timed (7)")
    parser.add_argument("--max-ratio", type=float, default=8.0, help="slowest axis over fastest that is allowed (8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements and the machine to FILE")
    return parser.parse_args()


def measure(comm: MPI.Intracomm, size: int, halo: int, rounds: int) -> dict[str, Any]:
    """Best time of an exchange on each axis (s), GB/s that a rank sends, and how much the axes differ. Collective."""
    fields = [divided(comm, size, halo, axis) for axis in range(3)]
    for field in fields:
        field.exchange()  # the first one plans and compiles
    repeats = [1 + int(SECONDS / duration(comm, field, 3)) for field in fields]
    measured = [[duration(comm, field, n) for field, n in zip(fields, repeats, strict=True)] for _ in range(rounds)]
    best = np.min(measured, axis=0)
    sent = 2 * halo * size**2 * 8  # bytes
    return {
        "size": size,
        "halo": halo,
        "seconds": best.tolist(),
        "GB/s": (sent / best / 1e9).tolist(),
        "slowest/fastest": float(best.max() / best.min()),
        "rounds": np.transpose(measured).tolist(),
    }


def divided(comm: MPI.Intracomm, size: int, halo: int, axis: int) -> hf.Field:
    """A field cut in two along `axis`, with a halo along it only."""
    cut = [1 + (a == axis) for a in range(3)]
    grid = hf.Grid((size,) * 3, ranks=cut, periodic=True, comm=comm)
    return grid.field("u", halo=[halo * (a == axis) for a in range(3)])


def duration(comm: MPI.Intracomm, field: hf.Field, repeats: int) -> float:
    """Seconds of an exchange, mean of some in a row, on the slower rank. Collective."""
    comm.Barrier()
    start = time.perf_counter()
    for _ in range(repeats):
        field.exchange()
    return comm.allreduce(time.perf_counter() - start, MPI.MAX) / repeats


def line(case: dict[str, Any]) -> str:
    axes = ", ".join(
        f"axis {axis} {seconds * 1e6:7.1f} us {rate:5.2f} GB/s"
        for axis, (seconds, rate) in enumerate(zip(case["seconds"], case["GB/s"], strict=True))
    )
    return f"{case['size']}^3 halo {case['halo']}: {axes}; slowest/fastest {case['slowest/fastest']:.2f}"


if __name__ == "__main__":
    main()
