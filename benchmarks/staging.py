"""How fast checkpoints get to S3, and what steps lose by it: python benchmarks/staging.py

Against a server that runs here: moto, behind the proxy of the tests. What is compared is one stream of boto3's
`upload_file` to the same server, in turns. The server is a Python program that shares the cores with all others, so
rates say little; ratios say something. The steps are those of one process on a core of its own, timed while an uploader
pushes, while some other program uses the other cores, and alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BUCKET = "science"
URL = f"s3://{BUCKET}/run"


def main() -> None:
    options = arguments()
    server = start_server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = measure(client(), Path(folder), options)
    finally:
        server.communicate()
    for name, values in report.items():
        print(f"{name}: {statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=128, help="of a checkpoint (128)")
    parser.add_argument("--rounds", type=int, default=7, help="(7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    return parser.parse_args()


def client() -> Any:
    import boto3

    return boto3.client("s3")


def start_server() -> subprocess.Popen[bytes]:
    """That of the tests, which compares checksums as S3 does; this process, and what it starts, use it.

    A process of its own, which leaves the first core to the steps.
    """
    program = [sys.executable, str(Path(__file__).parent.parent / "tests" / "s3.py")]
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    server = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.sched_setaffinity(0, cores)
    assert server.stdout is not None
    os.environ.update(json.loads(server.stdout.readline()))
    return server


def measure(client: Any, folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """MB/s of each way, and ratios, a value a round."""
    checkpoint, size = make_checkpoint(folder, options.megabytes)
    report: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        report.setdefault(name, []).append(value)

    for _ in range(options.rounds):
        plain = timed(lambda: upload_plainly(client, checkpoint / "state.h5"))
        note("one stream of upload_file, MB/s", size / plain / 1e6)
        for nodes in (1, 2):
            seconds = push(folder, nodes, client)
            note(f"{nodes} uploader(s), MB/s", size / seconds / 1e6)
            note(f"{nodes} uploader(s) / one stream", plain / seconds)
    for name, value in steps_while_pushing(folder, client, options.rounds):
        note(name, value)
    return report


def make_checkpoint(folder: Path, megabytes: int) -> tuple[Path, int]:
    import hpcframe as hf

    side = round((megabytes * 1e6 / 8) ** (1 / 3))
    u = hf.Grid((side,) * 3).field("u").fill(lambda x, y, z: np.sin(9 * x) + y * z)
    hf.Checkpoints(folder / "checkpoints").save(1, u)
    path = folder / "checkpoints" / "step-0000001"
    return path, sum(file.stat().st_size for file in path.iterdir())


def timed(action: Callable[[], None]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def upload_plainly(client: Any, path: Path) -> None:
    from boto3.s3.transfer import TransferConfig

    client.upload_file(str(path), BUCKET, "plain", Config=TransferConfig(use_threads=False))


def push(folder: Path, nodes: int, client: Any) -> float:
    """Seconds from the first part to the manifest: programs are started before."""
    empty(client, folder)
    workers = [uploader(folder, node, nodes) for node in range(nodes)]
    for worker in reversed(workers):  # the first one decides when all is done
        assert worker.stdin is not None
        if worker is workers[0]:
            worker.stdin.close()
    workers[0].wait()
    for worker in workers[1:]:
        worker.stdin.close()
        worker.wait()
    said = json.loads((folder / "staging" / "uploader-0.json").read_text())
    assert said["finished"], said["error"]
    return float(said["seconds"])


def empty(client: Any, folder: Path) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="run/"):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    shutil.rmtree(folder / "staging", ignore_errors=True)


def uploader(folder: Path, node: int, nodes: int, **options: Any) -> subprocess.Popen[bytes]:
    chosen = {"url": URL, "push": ["checkpoints"], "part_size": 8 * 2**20, **options}
    job = {"checkpoints": str(folder / "checkpoints"), "token": "here", "node": node, "nodes": nodes, "options": chosen}
    worker = subprocess.Popen([sys.executable, "-m", "hpcframe.staging.uploader"], stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(job).encode() + b"\n")
    worker.stdin.flush()
    return worker


def steps_while_pushing(folder: Path, client: Any, rounds: int) -> list[tuple[str, float]]:
    """How much longer steps take while an uploader pushes, over steps alone; in turns."""
    import hpcframe as hf

    u, v = hf.Grid((96, 96, 96), periodic=True).fields("u", "v")

    @hf.stencil
    def diffuse(v, u, k):  # type: ignore[no-untyped-def]
        v[0, 0, 0] = u[0, 0, 0] + k * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] - 4.0 * u[0, 0, 0])

    def steps() -> float:
        return timed(lambda: diffuse.iterate(v, u, steps=1500, k=0.1))

    def waited() -> float:  # seconds that this process could have computed and another one had its core
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9

    os.sched_setaffinity(
        0, sorted(os.sched_getaffinity(0))[:1]
    )  # as a rank that its launcher binds; the server has the others
    [steps() for _ in range(4)]
    found = []
    for _ in range(rounds):
        alone = steps()
        empty(client, folder)
        worker = uploader(folder, 0, 1)
        wait_until_sending(folder)
        before = waited()
        pushing = steps()
        lost = waited() - before
        end(worker)
        worker = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=leave_first_core)
        found += [
            ("steps while pushing / steps alone", pushing / alone),
            ("share of that time in which others had the core, %", 100 * lost / pushing),
            ("steps while the other core computes / steps alone", steps() / alone),
        ]
        end(worker)
    return found


def leave_first_core() -> None:
    os.sched_setaffinity(0, range(1, os.cpu_count() or 2))


def end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()


def wait_until_sending(folder: Path) -> None:
    path = folder / "staging" / "uploader-0.json"
    while not (path.exists() and json.loads(path.read_text())["current"]):
        time.sleep(0.01)


if __name__ == "__main__":
    main()
