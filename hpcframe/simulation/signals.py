"""Requests to stop that come from outside: Ctrl-C, SIGTERM, and SIGUSR1, which is what launchers pass on."""

from __future__ import annotations

import os
import signal
from types import FrameType

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether this process was asked to stop. The run looks at it between steps and stops on all ranks at once."""

    def __init__(self) -> None:
        """Takes over SIGINT, SIGTERM and SIGUSR1; for a program that owns its process. Not collective."""
        self.signal = 0
        for number in WATCHED:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:  # asked twice: do not wait for the step to end
            os._exit(128 + number)
        self.signal = number
