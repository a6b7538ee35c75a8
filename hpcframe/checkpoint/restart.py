"""Which checkpoint a run continues from: the newest that verifies, and not the same one for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcframe.checkpoint import attempts
from hpcframe.checkpoint.folder import set_aside, steps_in
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError, Manifest
from hpcframe.checkpoint.restoring import check_fits, read_fields
from hpcframe.checkpoint.session import Session
from hpcframe.checkpoint.verify import read_manifest
from hpcframe.errors import InputError, NoCheckpointError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field


@dataclass(frozen=True)
class Restored:
    """What a run continues from.

    Attributes:
        step: its number.
        time: simulated time (s).
        attributes: those that were saved.
        path: the folder of the checkpoint.
        run: the same for all incarnations of a run.
        whole: all of its fields were restored.
        refused: checkpoints that could not be used, with the reasons.
    """

    step: int
    time: float
    attributes: dict[str, Any]
    path: Path
    run: str
    whole: bool
    refused: list[str] = field(default_factory=list)


def choose_and_read(
    session: Session, arrays: Mapping[str, Field], path: Path | None, check: Callable[[dict[str, Any]], None]
) -> Restored | None:
    """Set fields from the newest checkpoint that verifies. Collective. See `hf.Checkpoints.restore`."""
    comm = session.grid.comm
    candidates: list[Path] = []
    with collectively(comm, "looking for checkpoints"), explained(session.folder):
        if comm.rank == 0:
            candidates = _candidates(session.folder, path)
    candidates = comm.bcast(candidates)
    if not candidates:
        return None
    bad: dict[Path, str] = {}
    for candidate in candidates:
        manifest, reason = _read_manifest(session, candidate)
        if manifest:
            check_fits(manifest, arrays, candidate)
            check(manifest.attributes)
            if path is None:
                _count_attempt(session, manifest.step)
            reason = read_fields(candidate, manifest, arrays, session.progress)
            if not reason:
                session.grid.time = manifest.time
                if path is None:
                    _set_aside(session, bad)
                refused = [f"{folder.name}: {why}" for folder, why in bad.items()]
                whole = arrays.keys() == {record.name for record in manifest.arrays}
                return Restored(
                    manifest.step, manifest.time, manifest.attributes, candidate, manifest.run, whole, refused
                )
        bad[candidate] = reason
    reasons = "; ".join(f"{folder.name}: {why}" for folder, why in bad.items())
    raise NoCheckpointError(
        f"no checkpoint in {candidates[0].parent} can be used: {reasons}. "
        f"Give another one (--restart <path>), or begin anew (--restart none)"
    )


def _candidates(folder: Path, path: Path | None) -> list[Path]:
    """What to try, in this order. For rank 0."""
    if path is not None:
        return _given(path)
    steps = steps_in(folder)
    if not steps:
        return []
    first = attempts.choose(folder, list(steps))
    order = sorted(steps, key=lambda step: (step > first, -step))  # it, the older ones, what was passed over
    return [steps[step] for step in order]


def _count_attempt(session: Session, step: int) -> None:
    """On the disk before anything is loaded; what was refused before does not count. Collective."""
    with collectively(session.grid.comm, "counting the restart"), explained(session.folder):
        if session.grid.rank == 0 and not session.counted:
            attempts.record(session.folder, list(steps_in(session.folder)), step)
            session.counted = True


def _given(path: Path) -> list[Path]:
    if (path / NAME).is_file():
        return [path]
    steps = steps_in(path)
    if not steps:
        raise InputError(f"{path} is no checkpoint, and no folder of checkpoints: it has no {NAME} and no step-<n>")
    return list(steps.values())


def _read_manifest(session: Session, folder: Path) -> tuple[Manifest | None, str]:
    """The manifest, or why the checkpoint is bad. Collective."""
    found: tuple[Manifest | None, str] = (None, "")
    with collectively(session.grid.comm, f"reading {folder}"), explained(folder):
        if session.grid.rank == 0:
            try:
                found = read_manifest(folder), ""
            except BadCheckpointError as error:
                found = None, str(error)
    return session.grid.comm.bcast(found)


def _set_aside(session: Session, bad: Mapping[Path, str]) -> None:
    """So that they are not tried again, now that there is an older one to go on from. Collective."""
    with collectively(session.grid.comm, "setting bad checkpoints aside"), explained(session.folder):
        if session.grid.rank == 0:
            for folder, reason in bad.items():
                set_aside(folder, reason)
