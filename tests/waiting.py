"""Waiting for what other threads and processes do."""

import time

PATIENCE = 60  # s: what takes longer hangs


def until(condition) -> None:
    """Wait for something that other threads and processes do."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)
