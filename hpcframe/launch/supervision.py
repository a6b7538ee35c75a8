"""Run a program that may hang, and end it with all that it started when it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GRACE = 5.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Answer:
    """What came of a program.

    Attributes:
        code: its exit code, minus the signal's number where one ended it, or None where it was out of time.
        output: its standard output, as far as it came.
        errors: its standard error.
    """

    code: int | None
    output: str = ""
    errors: str = ""


def run_within(seconds: float, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program with nothing on standard input for up to `seconds`. Not collective.

    Args:
        environment: all of it; that of this process if not given.
    """
    pipe = subprocess.PIPE
    job = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace", process_group=0,
        env=environment,
    )  # fmt: skip
    try:
        output, errors = job.communicate(timeout=seconds)
        return Answer(job.returncode, output, errors)
    except subprocess.TimeoutExpired as late:
        return Answer(None, _text(late.stdout), _text(late.stderr))
    finally:
        if job.returncode is None:  # out of time, or this process is being interrupted
            _end_group(job)


def _text(stream: bytes | str | None) -> str:
    """Python hands over bytes there, also where text was asked for."""
    return stream.decode(errors="replace") if isinstance(stream, bytes) else stream or ""


def _end_group(job: subprocess.Popen[str]) -> None:
    """End a process and its group: by SIGTERM, on which an mpiexec ends its ranks, and else by SIGKILL.

    Does not wait for a process that the kernel cannot end, such as one that waits for a dead file system.
    """
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):  # nobody is left in the group
        os.killpg(job.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            job.poll()
            os.killpg(job.pid, 0)
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGKILL)
    job.poll()
