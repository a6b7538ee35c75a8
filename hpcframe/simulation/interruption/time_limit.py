"""The end of the job by the clock: a limit that the user gives, and the end that Slurm sets."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from hpcframe.simulation.interruption.reason import Reason
from hpcframe.simulation.interruption.slurm import seconds_to_end

MARGIN = 60.0  # s


class TimeLimit:
    """When the job ends; for rank 0 alone, as clocks of nodes differ.

    Attributes:
        margin: time (s) before the end from which on it is a reason to stop, since a checkpoint takes time; of a
            short job no more than half, or each of its starts would stop at once.
    """

    def __init__(self, limit: float, environment: Mapping[str, str]) -> None:
        """`limit` is in seconds from the start of the process, 0 for none; Slurm's end counts if it is earlier.

        Not collective.
        """
        given = limit - age_of_process() if limit > 0 else math.inf
        self.margin = MARGIN
        left = min(given, seconds_to_end(environment))
        self._half = max(left, 0.0) / 2
        self._end = time.monotonic() + left

    def time_left(self) -> float:
        """Seconds until the end, not below 0; infinite where there is none. Not collective."""
        return max(self._end - time.monotonic(), 0.0)

    def look(self) -> tuple[Reason, float]:
        """As of `Source`. Not collective."""
        left = self.time_left()
        return (Reason.TIME_LIMIT if left <= min(self.margin, self._half) else Reason.NONE), left


def age_of_process() -> float:
    """Seconds since this process began, which loading of libraries may make minutes; 0 where Linux is not there to ask.

    Source: proc(5), field 22 of /proc/<pid>/stat, in clock ticks after boot.
    """
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return 0.0
    after_name = stat.read_text().rpartition(")")[2].split()  # the name in brackets may hold anything
    begin = int(after_name[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - begin, 0.0)
