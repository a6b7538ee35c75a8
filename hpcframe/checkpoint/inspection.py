"""What a folder of checkpoints holds, whether it is right, and what of it can go. No MPI, on a folder of any origin."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from hpcframe.checkpoint.folder import LEFT_OVER, REASON, remove, steps_in
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError, Extent, Manifest
from hpcframe.checkpoint.retention import to_remove
from hpcframe.checkpoint.verify import extents_of, read_manifest, reading
from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import explained

GIVE = "give the folder of a run, its folder `checkpoints`, or one checkpoint in it"
FOLDER = "checkpoints"  # in the folder of a run
NAMED = re.compile(r"step-(\d+)(\.\w+)?(\.bad)?|" + LEFT_OVER.pattern)
THREADS = min(8, len(os.sched_getaffinity(0)))
UNFINISHED = {
    "partial": "not complete: being written, or left by a run that was killed",
    "removed": "being removed, or left by a run that was killed",
    "replaced": "replaced by a newer one of this step, or left by a run that was killed",
}


def nothing(_: int) -> None:
    """Shows no progress."""


@dataclass(frozen=True)
class Entry:
    """A checkpoint, or what was or will be one.

    Attributes:
        step: its number; None where nothing tells it.
        manifest: None where it cannot be read.
        state: "complete" as far as the manifest and the lengths of files tell, or what it is instead.
        bytes: that it takes on the disk.
    """

    path: Path
    step: int | None
    manifest: Manifest | None
    state: str
    bytes: int


# -- what there is ----------------------------------------------------------------------------------------------


def is_checkpoint(path: Path) -> bool:
    """Whether a path is one checkpoint, good or bad, and not a folder of them: by its manifest, or by its name.
    Raises OSError."""
    named = NAMED.fullmatch(path.absolute().name)
    return path.is_dir() and ((path / NAME).exists() or (bool(named) and not (path / FOLDER).is_dir()))


def folder_of(path: Path) -> Path:
    """The folder of checkpoints that a path means.

    Raises:
        InputError: it is none, or cannot be looked into.
    """
    with explained(path):
        if not path.is_dir():
            raise InputError(f"{path}: {'this is a file' if path.exists() else 'no such folder'}; {GIVE}")
        if is_checkpoint(path):
            raise InputError(f"{path} is one checkpoint; give the folder that it is in")
        path = path / FOLDER if (path / FOLDER).is_dir() else path
    return path


def checkpoints_at(path: Path) -> list[Path]:
    """The checkpoints that a path means, the newest first: itself, or those in it that a restart would look at.

    Raises:
        InputError: there are none.
    """
    with explained(path):
        if is_checkpoint(path):
            return [path]
        folder = folder_of(path)
        steps = steps_in(folder)
    if not steps:
        raise InputError(f"{folder} holds no checkpoints; {GIVE}")
    return list(steps.values())


def entries_at(path: Path) -> list[Entry]:
    """All that a path means, by step, the newest first: also what was set aside, and what is not complete.

    Raises:
        InputError: there is nothing.
    """
    with explained(path):
        if is_checkpoint(path):
            return [_entry(path)]
        folder = folder_of(path)
        paths = [each for each in folder.iterdir() if is_checkpoint(each)]
    if not paths:
        raise InputError(f"{folder} holds no checkpoints; {GIVE}")
    return sorted(map(_entry, paths), key=lambda entry: (-1 if entry.step is None else -entry.step, entry.path.name))


def earlier_runs(path: Path) -> list[Path]:
    """Folders of checkpoints that an earlier run left, beside those that a path means."""
    found: list[Path] = []
    with explained(path):
        if not is_checkpoint(path):
            found = [each for each in sorted(folder_of(path).glob("before-*")) if each.is_dir() and steps_in(each)]
    return found


def _entry(path: Path) -> Entry:
    left_over = LEFT_OVER.fullmatch(path.name)
    manifest, state = _manifest(path)
    if left_over:
        state = UNFINISHED[left_over[2]]
    elif path.name.endswith(".bad"):
        state = f"set aside: {_reason(path)}"
    named = re.search(r"step-(\d+)", path.absolute().name)
    step = manifest.step if manifest else int(named[1]) if named else None
    return Entry(path, step, manifest, state, disk_usage(path))


def _manifest(path: Path) -> tuple[Manifest | None, str]:
    try:
        return read_manifest(path), "complete"
    except PermissionError:
        return None, f"bad: {NAME} is not yours to read: ask who wrote it"
    except (BadCheckpointError, OSError) as error:
        return None, f"bad: {error}"


def _reason(path: Path) -> str:
    try:
        return (path / REASON).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"nobody knows why, there is no {REASON}"


def disk_usage(path: Path) -> int:
    """Bytes that a folder's files take on the disk. What goes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def read_body(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """The manifest of a checkpoint, and the same as JSON has it.

    Raises:
        HpcframeError: it cannot be read.
    """
    try:
        return read_manifest(path), json.loads((path / NAME).read_text(encoding="utf-8"))["manifest"]
    except (BadCheckpointError, OSError) as error:
        raise HpcframeError(
            f"{path}: {error}. `hpcframe checkpoint ls {path.parent}` shows what else is there"
        ) from error


# -- whether it is right ----------------------------------------------------------------------------------------


def faults(path: Path, threads: int = THREADS, progress: Callable[[int], None] = nothing) -> Iterator[str]:
    """All that is wrong with a checkpoint, found by reading it whole, in the order of the manifest.

    Args:
        progress: told the bytes of each extent that was read.
    """
    manifest, state = _manifest(path)
    if manifest is None:
        yield state.removeprefix("bad: ")
        return
    extents = extents_of(manifest)
    longest = max((extent.length for _, extent in extents), default=0)
    with ExitStack() as stack:
        free: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        for _ in range(threads):
            free.put((stack.enter_context(reading(path, manifest)), np.empty(longest, np.uint8)))

        def check(item: tuple[str, Extent]) -> str:
            what, extent = item
            reader, buffer = free.get()
            try:
                reader.read(extent, buffer[: extent.length], what)
            except BadCheckpointError as error:
                return str(error)
            finally:
                free.put((reader, buffer))
            return ""

        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for (_, extent), fault in zip(extents, pool.map(check, extents), strict=True):
            progress(extent.length)
            if fault:
                yield fault


def bytes_to_read(path: Path) -> int:
    """Bytes that `faults` reads; 0 where it cannot read any."""
    manifest, _ = _manifest(path)
    return sum(extent.length for _, extent in extents_of(manifest)) if manifest else 0


# -- what can go ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pruning:
    """What is to be removed from a folder, the newest first.

    Attributes:
        newest: the step of the newest checkpoint that verifies.
        bad: newer ones, which do not, and why.
        removed: what is to go, and the bytes that it takes on the disk.
    """

    newest: int
    bad: dict[Path, str]
    removed: dict[Path, int]


def plan_pruning(
    folder: Path, keep: int, every: int = 0, pinned: Iterable[int] = (), threads: int = THREADS
) -> Pruning:
    """Which checkpoints can go. Reads from the newest on, until one verifies; that one is never removed.

    Args:
        folder: as `folder_of` finds it.
        keep: so many of the latest stay.
        every: those whose step is a multiple of this stay, too; 0: none.
        pinned: these steps stay, too.

    Raises:
        InputError: there are no checkpoints.
        HpcframeError: none verifies.
    """
    bad: dict[Path, str] = {}
    for path in checkpoints_at(folder):
        fault = next(faults(path, threads), "")
        if fault:
            bad |= {path: fault} if path.exists() else {}  # a run may have removed it meanwhile
            continue
        steps = steps_in(folder)
        newest = next(step for step, place in steps.items() if place == path)
        going = to_remove(list(steps), keep, every, set(pinned), {newest})
        return Pruning(newest, bad, {steps[step]: disk_usage(steps[step]) for step in sorted(going, reverse=True)})
    wrong = "; ".join(f"{path.name}: {fault}" for path, fault in bad.items())
    raise HpcframeError(f"none of the checkpoints in {folder} verifies, so none is removed: {wrong}")


def remove_planned(pruning: Pruning) -> None:
    """Remove what was planned and is still there. Raises HpcframeError where it cannot be."""
    for path in pruning.removed:
        with explained(path):
            if path.exists():
                remove(path)
