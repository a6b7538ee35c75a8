"""What an uploader says of itself, in a file that the run and `hpcframe stage wait` read."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from hpcframe.checkpoint.record import BrokenRecordError, read_record
from hpcframe.files import write_text

FOLDER = "staging"  # in the folder of a run
SILENT = 60.0  # s after which an uploader that said nothing is taken for dead: it has the lowest priority


class State(msgspec.Struct, kw_only=True):
    """An uploader's own words."""

    token: str
    node: int
    process: int
    host: str
    url: str = ""  # where to
    push: list[str] = []  # what, as in [staging]
    at: float = 0.0  # s since 1970, when this was written
    ready: bool = False  # S3 has answered
    ended: bool = False  # it does nothing more
    finished: bool = False  # nothing was left to push when it ended
    pushed: int = 0  # checkpoints that it completed in S3
    latest: str = ""  # the name of the last of them
    files: int = 0  # of the output
    looked: float = 0.0  # s since 1970, when it had last looked at the folder; what follows is as of then
    pending: list[str] = []
    deferred: list[str] = []  # what changes all the time, or comes too soon after the last: pushed later
    left: list[str] = []  # why something that is newer than all in S3 is not pushed
    current: str = ""  # what is being pushed
    size: int = 0  # bytes of it
    arrived: int = 0  # bytes of it that S3 has
    sent: int = 0  # bytes in all
    seconds: float = 0.0  # s in which something was under way
    error: str = ""  # what went wrong last; "" once it works again
    refused: bool = False  # somebody has to change something
    failures: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether it goes on, and was written lately."""
        return not self.ended and time.time() - self.at < SILENT


def place(run: Path, node: int) -> Path:
    """Where an uploader's state is."""
    return run / FOLDER / f"uploader-{node}.json"


def write(run: Path, state: State) -> None:
    """Raises HpcframeError."""
    state.at = time.time()
    write_text(place(run, state.node), msgspec.json.encode(state).decode())


def read(run: Path, node: int = 0) -> State | None:
    """The state of an uploader; None where there is none. Raises OSError."""
    try:
        return read_record(place(run, node), State)
    except BrokenRecordError:
        return None
