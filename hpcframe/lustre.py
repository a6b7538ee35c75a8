"""What Lustre is asked: by its own command `lfs`, and by the table of mounted file systems."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpcframe.errors import HpcframeError

MOUNTS = Path("/proc/self/mounts")
PATIENCE = 10.0  # s for lfs to answer


class LfsError(HpcframeError):
    """What went wrong with lfs."""


@dataclass(frozen=True)
class Mount:
    """A mounted file system: from where, at which folder, of which kind."""

    source: str
    folder: Path
    kind: str


def mount_of(path: Path, mounts: Path = MOUNTS) -> Mount | None:
    """The file system that a path is on: the last that is mounted at it, or nearest above it. Not collective."""
    path, found = path.resolve(), None
    for line in _lines(mounts):
        source, where, kind, *_ = line.split(" ")
        place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), where))  # a space is \\040
        if path.is_relative_to(place) and (found is None or len(place.parts) >= len(found.folder.parts)):
            found = Mount(source, place, kind)
    return found


def _lines(mounts: Path) -> list[str]:
    try:
        return mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux, so not Lustre
        return []


def lfs(*arguments: str) -> str:
    """What it says. Not collective. Raises LfsError where it fails or does not answer."""
    command, english = ["lfs", *arguments], {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, errors="replace", stdin=subprocess.DEVNULL, timeout=PATIENCE, env=english
        )
    except subprocess.TimeoutExpired:
        raise LfsError(f"`lfs {arguments[0]}` did not answer within {PATIENCE:g} s") from None
    except OSError as error:
        raise LfsError(f"lfs cannot be started: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LfsError(f"`lfs {arguments[0]}` failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
