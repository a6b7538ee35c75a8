"""What was pushed from the folder of a run, in a record there, for those who come later. No MPI."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hpcframe.checkpoint.record import BrokenRecordError, read_record, write_record
from hpcframe.staging.state import FOLDER

NAME = "pushed.json"
REMEMBERED = 100  # checkpoints at most

Version = tuple[int, int]  # of a file: bytes, and the time (ns) of its last change


class Pushed(msgspec.Struct):
    """What is in S3 as it is here.

    Attributes:
        url: where to.
        files: of the output.
        checkpoints: steps of complete ones, by their names in S3, in the order in which they were found there.
    """

    url: str = ""
    files: dict[str, Version] = {}
    checkpoints: dict[str, int] = {}

    def add(self, name: str, step: int) -> None:
        """A checkpoint."""
        self.checkpoints.pop(name, None)
        kept = list(self.checkpoints.items())[1 - REMEMBERED :]
        self.checkpoints = dict([*kept, (name, step)])


def read_pushed(run: Path, url: str) -> Pushed:
    """Of another location nothing is known. Raises OSError."""
    try:
        pushed = read_record(run / FOLDER / NAME, Pushed)
    except BrokenRecordError:
        pushed = None
    return pushed if pushed and pushed.url == url else Pushed(url, {}, {})


def write_pushed(run: Path, pushed: Pushed) -> None:
    """Raises OSError."""
    write_record(run / FOLDER / NAME, msgspec.to_builtins(pushed))
