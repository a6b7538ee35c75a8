"""From mpiexec to the first step, on two ranks, with everything compiled before."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from measuring import Effort, race, ratio, spread
from remote import HERE, Failed

from hpcframe.launch import local
from hpcframe.simulation.bandwidth import MEASUREMENTS
from rows.row import Row

RANKS = 2
BARE = [str(HERE / "programs/bare_start.py")]
SCRIPT = [str(HERE / "programs/first_step.py")]
RUN = ["-m", "hpcframe.run", "sim.toml"]
CASE = f"""
[simulation]
model = "{HERE}/programs/first_step_model.py:Announced"
directory = "out"
[grid]
shape = [64, 64, 64]
[time]
steps = 1
[output]
picture = false
"""


def first_step(effort: Effort, program: list[str]) -> dict[str, Any]:
    """Time to the first step over that to a first barrier without hpcframe."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sim.toml").write_text(CASE)
        contenders = {
            name: partial(announced, arguments, folder) for name, arguments in (("ours", program), ("bare", BARE))
        }
        for start in [*contenders.values()] * MEASUREMENTS:
            start()  # compiles, measures the memory, and fills the file system's cache
        seconds = race(contenders, effort.rounds)
    return {
        "figure": ratio(seconds["ours"], seconds["bare"]),
        "seconds": {name: spread(rounds) for name, rounds in seconds.items()},
    }


def announced(arguments: list[str], folder: str) -> float:
    """Seconds until the program says that its first step is done; then its end is awaited."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = local.environment({**given, "PYTHONPATH": str(HERE)}, oversubscribed=local.cores() < RANKS)
    command = local.command(RANKS, [sys.executable, *arguments])
    begin, taken = time.perf_counter(), None
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if taken is None and "first step" in line:
                taken = time.perf_counter() - begin
    if process.returncode or taken is None:
        raise Failed(f"{' '.join(command)} ended with exit code {process.returncode}")
    return taken


ROWS = [
    Row(key, title, "mpi4py, numba and a barrier", 1.3, partial(first_step, program=program), at_most=True)
    for key, title, program in (
        ("launch-script", "launch to first step, a script, 2 ranks", SCRIPT),
        ("launch-run", "launch to first step, hpcframe.run, 2 ranks", RUN),
    )
]
