"""Programs that are measured, each in a process of its own, or on ranks, that answers over pipes: see serving.py.

The parent of MPI ranks must not be an MPI process itself, so nothing here imports MPI or numba.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcframe.launch import local

HERE = Path(__file__).resolve().parent
PEERS = {"Devito": ".peers", "py-pde": ".peers-pde", "JAX": ".peers-jax"}  # environments that peers.sh makes


class Absent(Exception):
    """What is not installed or cannot be had here; the message says so."""


class Failed(Exception):
    """A program that ended, or gave another result than it should."""


def python_of(peer: str) -> str:
    """The Python of a peer's environment. Raises Absent."""
    python = HERE / PEERS[peer] / "bin" / "python"
    if not python.exists():
        raise Absent(f"{peer} is not installed: run benchmarks/peers.sh")
    return str(python)


class Remote:
    """A program that stays alive between rounds, so that neither start-up nor compiling is timed.

    `about` is what it says of itself. It leaves at the end of a `with` block.
    """

    def __init__(
        self,
        program: str,
        *arguments: object,
        python: str = sys.executable,
        ranks: int = 1,
        threads: int = 1,
        core: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Starts benchmarks/`program`, on ranks by hpcframe's own launcher, or on one `core` alone if that is given."""
        command = [python, str(HERE / program), *map(str, arguments)]
        chosen = {
            "PATH": os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": str(HERE),
            "NUMBA_NUM_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            **(settings or {}),
        }
        self._program = Path(program).name
        self._process = subprocess.Popen(
            local.command(ranks, command) if ranks > 1 else command,
            env=local.environment({**os.environ, **chosen}, oversubscribed=ranks > local.cores()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {core})
        self.about = self._answer()

    def ask(self, command: str, argument: object = "") -> dict[str, Any]:
        """The answer to a command. Raises Failed where the program has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it answers then says so
            self._process.stdin.write(f"{command} {argument}\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self._program} ended with exit code {self._process.wait()}: its words are above")
        return json.loads(line)

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.write("end\n")
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
