"""How much FSx for Lustre checkpoints need, and the cheapest that is enough. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcframe.errors import InputError

# USD for a GB a month, PERSISTENT_2 on SSD, by MB/s a TiB: aws.amazon.com/fsx/lustre/pricing, us-east-1, 2025.
PRICES = {125: 0.145, 250: 0.210, 500: 0.340, 1000: 0.600}
STEP = 2400  # GiB: the first size is half of it, all others are multiples
FULL = 0.8  # Lustre slows down where it is fuller
WRITING = 0.05  # of the time between checkpoints may be spent on writing them


@dataclass(frozen=True)
class FileSystem:
    """A file system PERSISTENT_2.

    Attributes:
        capacity: GiB.
        throughput: MB/s for each TiB.
    """

    capacity: int
    throughput: int

    @property
    def rate(self) -> float:
        """MB/s of all of it."""
        return self.capacity / 1024 * self.throughput

    @property
    def dollars_a_month(self) -> float:
        return self.capacity * PRICES[self.throughput]


def is_capacity(gib: int) -> bool:
    """Whether PERSISTENT_2 may have that size."""
    return gib == STEP // 2 or (gib > 0 and gib % STEP == 0)


def capacity(gib: float) -> int:
    """The least size that holds so much."""
    return STEP // 2 if gib <= STEP // 2 else STEP * math.ceil(gib / STEP)


def cheapest(checkpoint: float, interval: float, kept: int, other: float = 0.0) -> FileSystem:
    """The cheapest file system on which checkpoints fit, and are written in a small part of the time between them.

    Args:
        checkpoint: bytes of one.
        interval: s between two of them.
        kept: how many; one more is there while it is written.
        other: bytes of what else is kept there.

    Raises:
        InputError: something is negative or zero.
    """
    if checkpoint <= 0 or interval <= 0 or kept < 1 or other < 0:
        raise InputError("a checkpoint has a size, an interval and a number to keep, all of them positive")
    room = (checkpoint * (kept + 1) + other) / FULL / 2**30
    rate = checkpoint / 1e6 / (WRITING * interval)
    fitting = [FileSystem(capacity(max(room, rate / each * 1024)), each) for each in PRICES]
    return min(fitting, key=lambda one: (one.dollars_a_month, one.capacity))
