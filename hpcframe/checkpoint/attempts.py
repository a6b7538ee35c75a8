"""The marker of restarts that made no new checkpoint: what ends a loop of restarts from one that cannot be run from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from hpcframe.checkpoint.folder import sync
from hpcframe.errors import NoCheckpointError
from hpcframe.files import partial_name

NAME = "ATTEMPTS.json"
SAME, ALL = 2, 3  # attempts from the newest, and attempts in all


def begin(folder: Path, candidates: Sequence[int]) -> int:
    """Record a restart, before anything is loaded, and say from which step. For rank 0; not collective.

    Args:
        candidates: steps of the checkpoints that there are, the newest first; at least one.

    Returns:
        The newest; in the third attempt since the last new checkpoint the next older, if there is one.

    Raises:
        NoCheckpointError: it is the fourth.
        OSError: the marker cannot be written.
    """
    count = _count(folder) + 1
    if count > ALL:
        raise NoCheckpointError(
            f"{folder}: {ALL} restarts ended without a new checkpoint, from step {candidates[0]} and the one before: "
            f"find out why, then restart with --restart {folder / f'step-{candidates[0]:07d}'} to try once more, or "
            f"--restart none to begin anew"
        )
    _record(folder, count)
    return candidates[min(1, len(candidates) - 1)] if count > SAME else candidates[0]


def clear(folder: Path) -> None:
    """A new checkpoint is there. For rank 0; not collective. Raises OSError."""
    (folder / NAME).unlink(missing_ok=True)


def _count(folder: Path) -> int:
    """Attempts so far. A marker that cannot be read is one of an attempt all the same."""
    try:
        return int(json.loads((folder / NAME).read_text(encoding="utf-8"))["attempts"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError):
        return 1


def _record(folder: Path, count: int) -> None:
    """On the disk before the load begins, which may take the machine down."""
    partial = partial_name(folder / NAME)
    with open(partial, "x", encoding="utf-8") as file:
        file.write(json.dumps({"attempts": count}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / NAME)
    sync(folder)
