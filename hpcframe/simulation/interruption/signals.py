"""Requests to stop that are signals: Ctrl-C, SIGTERM, and SIGUSR1, which is what launchers pass on."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from types import FrameType

from hpcframe.simulation.interruption.reason import Reason

WATCHED = {signal.SIGINT: Reason.SIGINT, signal.SIGTERM: Reason.SIGTERM, signal.SIGUSR1: Reason.SIGUSR1}


class Signals:
    """The signals that this process got. Asked twice by a person, the process ends without waiting for the step.

    A person presses Ctrl-C twice, which is SIGINT and SIGINT, or SIGUSR1 and SIGTERM where hpcframe's launcher
    translates them. In a Slurm job the latter are its warning and its time limit, and a checkpoint may be under way.
    A signal other than SIGINT that comes twice is one that both Slurm and mpiexec passed on.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Takes over SIGINT, SIGTERM and SIGUSR1, in the main thread. Not collective."""
        self._seen = {Reason.NONE}
        self._translated = "SLURM_JOB_ID" not in environment
        self._former = {number: signal.signal(number, self._note) for number in WATCHED}

    def look(self) -> tuple[Reason, float]:
        """As of `Source`; how long after a signal the end comes is never known. Not collective."""
        return max(self._seen), math.inf

    def close(self) -> None:
        """Give the signals back. Not collective."""
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        asked = WATCHED[signal.Signals(number)]
        if self._insists(asked):
            os._exit(128 + number)
        self._seen.add(asked)

    def _insists(self, asked: Reason) -> bool:
        if asked in self._seen:
            return asked is Reason.SIGINT
        return self._translated and Reason.SIGUSR1 in self._seen
