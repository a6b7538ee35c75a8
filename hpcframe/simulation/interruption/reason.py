"""Why a run is to stop."""

from __future__ import annotations

import enum
from typing import Protocol


class Reason(enum.IntEnum):
    """Why a run is to stop; the greatest of all ranks' reasons is the agreed one, so they are ordered by urgency."""

    NONE = 0
    STOP_FILE = 1
    REBALANCE = 2
    TIME_LIMIT = 3
    SIGINT = 4
    SIGUSR1 = 5
    SIGTERM = 6
    SPOT = 7

    def describe(self) -> str:
        """In words, to follow "stopped by". Not collective."""
        return WORDS.get(self, self.name)  # a signal by its name


WORDS = {
    Reason.NONE: "nothing",
    Reason.STOP_FILE: "the stop file",
    Reason.REBALANCE: "an EC2 rebalance recommendation",
    Reason.TIME_LIMIT: "the time limit of the job",
    Reason.SIGINT: "Ctrl-C",
    Reason.SPOT: "an EC2 Spot interruption notice",
}


class Source(Protocol):
    """One thing that may ask this rank to stop."""

    def look(self) -> tuple[Reason, float]:
        """The reason to stop, if there is one, and the time left until the end (s), infinite where it is not known."""
