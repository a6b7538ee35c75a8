"""What a checkpoint costs: mpiexec -n 2 python benchmarks/checkpoint.py --layout 2 1 1

In each round, in turn: one contiguous file a rank, written and synced, which no scheme of more structure can beat by
much; a checkpoint, until it is durable; a copy of the state in memory; the time that an asynchronous checkpoint
blocks; a number of steps without and with a checkpoint in flight. Ratios are those of one round; the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from mpi4py import MPI

import hpcframe as hf


@hf.stencil
def step(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1] - 6.0 * u[0, 0, 0]
    )


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    comm = MPI.COMM_WORLD
    grid = hf.Grid((options.size,) * 3, ranks=options.layout, comm=comm)
    fields = grid.fields("u", "v")
    for field in fields:
        field.fill(lambda x, y, z: np.sin(40 * x) + y * z)
    folder = options.folder / "benchmark-checkpoint"
    case = measure(grid, fields, folder, options)
    if comm.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        print(line(case))
        if options.json:
            report = {"benchmark": "checkpoint", "machine": machine.describe(), "case": case}
            options.json.write_text(json.dumps(report, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="points on a side (256)")
    parser.add_argument("--layout", type=int, nargs=3, default=[0, 0, 0], help="ranks along each axis")
    parser.add_argument("--driver", default="direct", help="direct or mpio")
    parser.add_argument("--collective", action="store_true", help="with mpio")
    parser.add_argument("--files", type=int, default=1, help="HDF5 data files (1)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20, help="steps while a checkpoint is in flight (20)")
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def measure(grid: Any, fields: tuple[Any, ...], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every round. Collective."""
    contents = [np.ascontiguousarray(field.interior) for field in fields]
    copies = [np.zeros_like(content) for content in contents]
    settings = {"keep": 1, "driver": options.driver, "collective": options.collective, "files": options.files}
    at_once = hf.Checkpoints(folder / "at-once", **settings)
    behind = hf.Checkpoints(folder / "behind", keep=1, asynchronous=True) if options.driver == "direct" else None
    rounds = []
    for number in range(options.rounds + 1):
        times = {"file a rank": timed(grid, lambda: write_own(folder, grid.rank, contents))}
        at_once.save(number, *fields)
        times["durable"] = slowest(grid, at_once.seconds.durable)
        times["steps"] = timed(grid, lambda: advance(fields, options.steps))
        times["memcpy"] = timed(grid, lambda: [np.copyto(*pair) for pair in zip(copies, contents, strict=True)])
        if behind:
            grid.comm.Barrier()
            behind.save(number, *fields)
            times["blocking"] = slowest(grid, behind.seconds.blocking)
            times["steps in flight"] = timed(grid, lambda: advance(fields, options.steps))
            behind.wait()
            times["durable behind"] = slowest(grid, behind.seconds.durable)
        rounds.append(times)
    return {
        "points": options.size,
        "layout": list(grid.layout),
        "driver": options.driver,
        "collective": options.collective,
        "files": options.files,
        "bytes": sum(content.nbytes for content in contents) * grid.size,
        "rounds": rounds[1:],  # the first one makes buffers
    }


def write_own(folder: Path, rank: int, contents: list[np.ndarray]) -> None:
    """One contiguous new file of this rank."""
    path = folder / f"rank-{rank}"
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    for content in contents:
        data = content.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(data):
            done += os.write(file, data[done : done + 2**22])
    os.fsync(file)
    os.close(file)


def advance(fields: tuple[Any, ...], steps: int) -> None:
    u, v = fields
    step.iterate(v, u, steps=steps, k=0.1)


def timed(grid: Any, call: Callable[[], Any]) -> float:
    """Seconds of the slowest rank."""
    grid.comm.Barrier()
    begun = time.perf_counter()
    call()
    return slowest(grid, time.perf_counter() - begun)


def slowest(grid: Any, seconds: float) -> float:
    return float(grid.comm.allreduce(seconds, MPI.MAX))


def line(case: dict[str, Any]) -> str:
    rounds = case["rounds"]
    rate = statistics.median(case["bytes"] / each["durable"] for each in rounds) / 1e6
    text = f"{'x'.join(map(str, case['layout']))} {case['driver']}: durable {rate:.0f} MB/s"
    for over, under in (("file a rank", "durable"), ("blocking", "memcpy"), ("steps in flight", "steps")):
        if over in rounds[0]:
            ratios = sorted(each[over] / each[under] for each in rounds)
            text += f"; {over} / {under} {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
    return text


if __name__ == "__main__":
    main()
