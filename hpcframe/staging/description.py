"""Checkpoints in S3 in words, for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from hpcframe.checkpoint.description import aligned, readable_bytes
from hpcframe.staging.location import RemoteCheckpoint


def table(found: Sequence[RemoteCheckpoint]) -> str:
    """A line for each: run, step, size, when it was completed, state."""
    rows = [("run", "step", "size", "completed", "state")]
    for one in found:
        when = one.committed.astimezone().strftime("%Y-%m-%d %H:%M:%S") if one.committed else "-"
        state = "complete" if one.committed else "not complete: under way, or left by an upload that was interrupted"
        rows.append((one.run, str(one.step), readable_bytes(one.bytes), when, state))
    return aligned(rows)
