"""The other end of remote.py: a program answers commands, one a line, each with one line of JSON.

Needs nothing but Python, and mpi4py where there are ranks, so that it works in every peer's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TextIO

Answer = Mapping[str, Any] | None
PAUSE = 0.002  # s, between the looks of a rank that waits for a command


def claim_stdout() -> TextIO:
    """Standard output for the answers alone: what others print from now on goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def serve(
    answers: TextIO, about: Answer, commands: Mapping[str, Callable[[str], Answer]], communicator: Any = None
) -> None:
    """Answer until told to `end`, or until standard input ends.

    Collective over `communicator`, if there is one: each rank does each command. The first rank reads, and its answers
    are those that count.
    """
    leading = communicator is None or communicator.rank == 0
    if leading:
        print(json.dumps(about), file=answers, flush=True)
    while (line := _next_line(communicator)) not in ("", "end\n"):
        command, _, argument = line.strip().partition(" ")
        try:
            answer = commands[command](argument)
        except Exception:
            traceback.print_exc()
            _end(communicator)
        if leading:
            print(json.dumps(answer or {}), file=answers, flush=True)


def _end(communicator: Any) -> NoReturn:
    """Leave with exit code 1, and take the other ranks along: they would wait forever."""
    if communicator is not None:
        communicator.Abort(1)
    sys.exit(1)


def _next_line(communicator: Any) -> str:
    """The next command, on every rank. Ranks that wait sleep: what is measured meanwhile needs their cores."""
    if communicator is None or communicator.size == 1:
        return sys.stdin.readline()
    if communicator.rank == 0:
        line = sys.stdin.readline()
        for rank in range(1, communicator.size):
            communicator.send(line, rank)
        return line
    while not communicator.iprobe(source=0):
        time.sleep(PAUSE)
    return communicator.recv(source=0)


def timed(action: Callable[[], object], communicator: Any = None) -> dict[str, float]:
    """Seconds until the last rank is done, and how many cores a rank kept busy meanwhile. Collective."""
    if communicator is not None:
        communicator.Barrier()
    start, cpu = time.perf_counter(), time.process_time()
    action()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if communicator is not None:
        seconds, cpu = (max(communicator.allgather(value)) for value in (seconds, cpu))
    return {"seconds": seconds, "cores": cpu / seconds}
