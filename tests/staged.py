"""Runs and checkpoints for the tests of staging."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
from s3 import BUCKET

import hpcframe as hf

HPCFRAME = str(Path(sysconfig.get_path("scripts"), "hpcframe"))
URL = f"s3://{BUCKET}/mine"
PATIENCE = 100  # s: a program that takes longer hangs


def checkpoint(folder: Path, step: int, size: int = 128, value: float = 0.0, **options) -> Path:
    """A checkpoint of `size`^3 numbers, by this process."""
    from mpi4py import MPI

    grid = hf.Grid((size,) * 3, comm=MPI.COMM_SELF)
    u = grid.field("u").fill(lambda x, y, z: np.sin(20 * x * y) + z + value)
    checkpoints = hf.Checkpoints(folder / "checkpoints", keep=100, **options)
    restored = checkpoints.restore(u) if (folder / "checkpoints").is_dir() else None
    u.fill(lambda x, y, z: np.sin(20 * x * y) + z + value)
    assert restored is None or restored.step < step
    checkpoints.save(step, u)
    return folder / "checkpoints" / f"step-{step:07d}"


def stage(*arguments, **options) -> subprocess.CompletedProcess[str]:
    """`hpcframe stage ...`."""
    command = [HPCFRAME, "stage", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)


def run(folder: Path, *more: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """`hpcframe run sim.toml` in a folder."""
    command = [HPCFRAME, "run", "-n", str(ranks), "sim.toml", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def killed(command: list[str], when, number: int = signal.SIGKILL) -> int:
    """The exit code of a program that gets a signal as soon as something is so."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    while not when():
        assert time.monotonic() < end, "waited in vain"
        assert process.poll() is None, "it ended before"
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait()


def push_command(folder: Path, url: str = URL, streams: int = 2) -> list[str]:
    return [sys.executable, HPCFRAME, "stage", "push", str(folder), url, f"--streams={streams}"]


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and all((one / n).read_bytes() == (other / n).read_bytes() for n in names)
