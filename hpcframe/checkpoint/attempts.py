"""The marker of restarts that made no new checkpoint: what ends a loop of restarts from one that cannot be run from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpcframe.checkpoint.folder import step_folder
from hpcframe.checkpoint.record import BrokenRecordError, read_record, write_record
from hpcframe.errors import FruitlessRestartsError

NAME = "ATTEMPTS.json"
SAME, ALL = 2, 3  # attempts from the newest, and attempts in all


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attempts since the last new checkpoint."""

    tried: list[int]  # steps, in order
    present: list[int]  # steps of the checkpoints that there were


def choose(folder: Path, candidates: Sequence[int]) -> int:
    """From which step to restart. For rank 0; not collective.

    Args:
        candidates: steps of the checkpoints that there are, the newest first; at least one.

    Returns:
        The newest; in the third attempt since the last new checkpoint the next older, if there is one.

    Raises:
        FruitlessRestartsError: it is the fourth.
        OSError: the marker cannot be read.
    """
    tried = _tried(folder, candidates)
    if len(tried) >= ALL:
        raise FruitlessRestartsError(
            f"{folder}: {len(tried)} restarts, from step {', '.join(map(str, tried))}, all ended before a new "
            f"checkpoint was there. Find out why from what they said. Then try one by hand "
            f"(--restart {step_folder(folder, candidates[0])}), or begin anew (--restart none)"
        )
    return candidates[1] if len(tried) >= SAME and len(candidates) > 1 else candidates[0]


def record(folder: Path, candidates: Sequence[int], step: int) -> None:
    """Count a restart from a step: before its load begins, which may take the machine down. For rank 0; not collective.
    Raises OSError."""
    tried = [*_tried(folder, candidates), step]
    write_record(folder / NAME, {"tried": tried, "present": list(candidates)})


def clear(folder: Path) -> None:
    """A new checkpoint is there, or the count is to start anew. For rank 0; not collective. Raises OSError."""
    (folder / NAME).unlink(missing_ok=True)


def _tried(folder: Path, candidates: Sequence[int]) -> list[int]:
    """Steps of the attempts so far. A marker that cannot be read is one of an attempt all the same."""
    try:
        marker = read_record(folder / NAME, Marker)
    except BrokenRecordError:
        return [candidates[0]]
    # A run may have been killed between its checkpoint and `clear`: a step that is new tells as much.
    if marker is None or not set(candidates) <= set(marker.present):
        return []
    return marker.tried
