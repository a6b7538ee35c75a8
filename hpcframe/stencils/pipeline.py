"""How threads that compute bands of a wavefront wait for each other: each band counts the turns that it has done.

A band may do a turn when the band before it has done that turn. Called from compiled loops.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from hpcframe.grid.flags import APART, PATIENCE, load, offer_core, store

SPACING = APART // 8  # int64 between two counts
ALL = 2**62  # more turns than there are


@njit(nogil=True)
def publish(done: Any, band: int, turns: int) -> None:
    """Say that a band has done its first turns."""
    store(done.ctypes.data + band * APART, turns)


@njit(nogil=True)
def wait_for(done: Any, band: int, turn: int) -> int:
    """Wait until a band has done a turn; returns how many it has done."""
    looks = 0
    address = done.ctypes.data + band * APART
    turns = load(address)
    while turns <= turn:
        looks += 1
        if looks > PATIENCE:
            offer_core()
        turns = load(address)
    return turns
