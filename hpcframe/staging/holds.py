"""Checkpoints that must stay on the disk until they are in S3: a file for each, which says who holds it. No MPI.

A killed uploader leaves its hold. Whoever looks after the same run next lets go of it, lest it keep a checkpoint for
ever.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

import msgspec

from hpcframe.checkpoint.record import BrokenRecordError, read_record
from hpcframe.files import explained, write_text
from hpcframe.staging.state import FOLDER

HOLDS = "holds"  # the folder of the files, whose names are steps


class Holder(msgspec.Struct, frozen=True):
    """Who holds a checkpoint.

    Attributes:
        token: of the uploaders of one start of a run; "" of a command.
        born: when the process was, as the kernel counts: another one may get its number later.
    """

    token: str
    host: str
    process: int
    born: str

    @staticmethod
    def this(token: str) -> Holder:
        return Holder(token, platform.node(), os.getpid(), _born(os.getpid()))

    def is_alive(self) -> bool:
        """Of a process on this machine."""
        return self.born != "" and self.born == _born(self.process)


class Holds:
    """What one process holds: one checkpoint at a time, the one that it brings to S3."""

    def __init__(self, run: Path, token: str) -> None:
        """Not collective; nothing is held yet."""
        self._folder = run / FOLDER / HOLDS
        self._me = Holder.this(token)
        self._step: int | None = None

    def begin(self, step: int | None) -> None:
        """Let go of what the dead hold, but for one step that this process goes on with. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if step is not None:
            self.take(step)
        for path in self._folder.iterdir():
            if path.name.isdecimal() and path.name != str(self._step) and self._is_free(path):
                path.unlink(missing_ok=True)

    def take(self, step: int) -> None:
        """Hold a step, and no other any more; what somebody else holds is held. Raises HpcframeError, OSError."""
        path = self._folder / str(step)
        if step != self._step:
            self.release()
        self._step = step
        if self._is_free(path):
            write_text(path, msgspec.json.encode(self._me).decode())

    def release(self) -> None:
        """Hold nothing any more. Raises OSError."""
        if self._step is not None:
            path, self._step = self._folder / str(self._step), None
            if _read(path) == self._me:  # and not somebody else's by now
                path.unlink(missing_ok=True)

    def _is_free(self, path: Path) -> bool:
        """Whether nobody holds it who lives."""
        holder = _read(path)
        if holder is None or holder == self._me:
            return holder is None
        if holder.host == self._me.host:
            return not holder.is_alive()
        # A run has one process that holds, so that of another machine was of an earlier start; a command cannot know.
        return bool(self._me.token)


def _read(path: Path) -> Holder | None:
    """Who holds it; None where nobody says so. Raises OSError."""
    try:
        return read_record(path, Holder)
    except BrokenRecordError:
        return None


def _born(process: int) -> str:
    """When a process of this machine was; "" where it is dead."""
    with suppress(OSError):
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if told[0] in "ZX" else told[19]
    return ""


def held(run: Path) -> set[int]:
    """Steps whose checkpoints are on their way to S3, and must stay until they are there. Raises HpcframeError."""
    folder = run / FOLDER / HOLDS
    with explained(folder):
        return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()} if folder.is_dir() else set()
