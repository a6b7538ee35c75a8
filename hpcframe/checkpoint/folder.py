"""The folder of checkpoints: names, what is there, and how something appears or goes in one step. No MPI.

    step-0000100/                a checkpoint: complete since it has this name
    step-0000100.bad/            one that did not verify, with the reason in REASON.txt
    .step-0000100.<token>.partial, .removed, .replaced      being written, being removed, making place for a new one

What begins with a dot is nobody's once the run that made it has ended; `clean` then puts the folder in order.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from hpcframe.checkpoint.manifest import NAME

STEP = re.compile(r"step-(\d+)")
LEFT_OVER = re.compile(r"\.(step-\d+)\.\w+\.(partial|removed|replaced)")
UNFINISHED = re.compile(r"\.hpcframe-\w+\.partial")  # small files
REASON = "REASON.txt"


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:07d}"


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, the newest first. Raises OSError. Not collective."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        name = STEP.fullmatch(path.name)
        if name and path.is_dir():
            found[int(name[1])] = path
    return dict(sorted(found.items(), reverse=True))


def hidden(final: Path, kind: str, token: str = "") -> Path:
    """The name of a checkpoint that is not one yet, or no more."""
    return final.with_name(f".{final.name}.{token or secrets.token_hex(4)}.{kind}")


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk. Raises OSError. Not collective."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(partial: Path, final: Path, manifest: str) -> list[str]:
    """Make a checkpoint of a folder whose data is on disk: from here on it is there, or, in a crash, was never.

    A checkpoint of the same step makes place for it; where that cannot be removed a line comes back that says so.
    Raises OSError. Not collective.
    """
    with open(partial / NAME, "x", encoding="utf-8") as file:
        file.write(manifest)
        file.flush()
        os.fsync(file.fileno())
    sync(partial)
    replaced = None
    if final.exists():
        replaced = hidden(final, "replaced")
        final.rename(replaced)
    try:
        partial.rename(final)
    except OSError:
        if replaced:
            replaced.rename(final)
        raise
    sync(final.parent)
    return _delete(replaced) if replaced else []


def remove(path: Path) -> None:
    """Take a checkpoint away: at once for who looks, then from the disk. Raises OSError. Not collective."""
    going = hidden(path, "removed")
    path.rename(going)
    shutil.rmtree(going)


def set_aside(path: Path, reason: str) -> Path:
    """Rename a checkpoint that cannot be used, so that no restart finds it again; its new path. Raises OSError."""
    aside = path.with_name(f"{path.name}.bad")
    while aside.exists():
        aside = path.with_name(f"{path.name}.{secrets.token_hex(2)}.bad")
    path.rename(aside)
    sync(path.parent)
    with suppress(OSError):  # on a full disk, say, the name has to tell enough
        (aside / REASON).write_text(reason + "\n", encoding="utf-8")
    return aside


def clean(folder: Path) -> list[str]:
    """Put in order what an interrupted run left: nothing half written or half removed stays. Not collective.

    Returns:
        A line for each thing that could not be removed. It does no harm, but takes room.

    Raises:
        OSError: the folder cannot be read, or a checkpoint cannot be given its name back.
    """
    lines = []
    for path in sorted(folder.iterdir()):
        name = LEFT_OVER.fullmatch(path.name)
        if name and name[2] == "replaced" and not (folder / name[1]).exists():
            path.rename(folder / name[1])
        elif name or UNFINISHED.fullmatch(path.name):
            lines += _delete(path)
    return lines


def discard(path: Path) -> None:
    """Delete a folder as far as that can be done now: `clean` does the rest. Not collective."""
    with suppress(OSError):  # even with ignore_errors a failed close of a folder is raised
        shutil.rmtree(path, ignore_errors=True)


def _delete(path: Path) -> list[str]:
    """Delete a folder, or a file that somebody put in the place of one; a line where that fails."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        return [f"{path} could not be removed: {error}; remove it by hand"]
    return []
