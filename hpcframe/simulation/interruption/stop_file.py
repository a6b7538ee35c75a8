"""The request to stop of somebody who has no terminal there: a file named STOP in the folder of the run."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

from hpcframe.files import explained
from hpcframe.simulation.interruption.reason import Reason

NAME = "STOP"
PAUSE = 1.0  # s between two looks, so that a shared file system hardly sees them


class StopFile:
    """The stop file of a run; for rank 0 alone."""

    def __init__(self, directory: Path) -> None:
        """Remove a file that is there already: it was meant for a former run. Not collective.

        Raises:
            HpcframeError: it cannot be removed.
        """
        self.path = directory / NAME
        self._found = False
        self._next_look = 0.0
        if self.path.exists():
            self.remove()
            warnings.warn(f"removed {self.path}, which was there before the run began", RuntimeWarning, stacklevel=2)

    def look(self) -> tuple[Reason, float]:
        """As of `Source`. Not collective."""
        now = time.monotonic()
        if not self._found and now >= self._next_look:
            self._next_look = now + PAUSE
            self._found = self.path.exists()
        return (Reason.STOP_FILE if self._found else Reason.NONE), math.inf

    def remove(self) -> None:
        """Remove the file, if there is one. Not collective. Raises HpcframeError where that cannot be done."""
        with explained(self.path):
            self.path.unlink(missing_ok=True)
        self._found = False
