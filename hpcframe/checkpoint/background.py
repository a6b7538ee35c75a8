"""Writing a checkpoint behind the simulation: a thread of each rank writes, and no thread calls MPI.

The ranks agree through small files in the folder that is being written: each leaves its part there once its tiles are
on the disk, and rank 0, when all parts are there, completes the checkpoint. So it is committed without another call
from the application.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hpcframe.checkpoint.draft import Draft, Part
from hpcframe.errors import RemoteError
from hpcframe.files import write_text

PARTS = "parts"  # the folder of the parts, gone when the checkpoint is complete
LOOK_EVERY, LOOK_LATER = 0.005, 0.5  # s between two looks for parts: at first, and in the end
PATIENCE_AT_EXIT = 60.0  # s that a program which ends waits for what is being written


class BackgroundWriter(threading.Thread):
    """One rank's share of one checkpoint.

    Attributes:
        draft: of the checkpoint.
        error: why it failed; None while all is well.
        seconds: from the start to durable on this rank's disk; on rank 0, to committed.
    """

    def __init__(self, draft: Draft, work: Callable[[BackgroundWriter], None]) -> None:
        """`work` does all of it; what it raises becomes `error`. Not collective."""
        super().__init__(name=f"checkpoint-{draft.step}", daemon=True)
        self.draft = draft
        self.error: Exception | None = None
        self.seconds = 0.0
        self._work = work
        self._abandoned = threading.Event()
        self._begun = time.perf_counter()
        atexit.register(self._finish)

    def run(self) -> None:
        try:
            self._work(self)
        except Exception as error:  # told to the main thread, which raises it on every rank
            self.error = error

    def done(self) -> None:
        """Say that the share is durable. Called by the work."""
        self.seconds = time.perf_counter() - self._begun

    def abandon(self) -> None:
        """Do not wait for other ranks any more: one of them failed."""
        self._abandoned.set()

    def settle(self) -> None:
        """Wait for the end of it."""
        self.join()
        atexit.unregister(self._finish)

    def _finish(self) -> None:
        self.join(PATIENCE_AT_EXIT)
        if self.error:
            print(
                f"hpcframe: the checkpoint of step {self.draft.step} was not completed: {self.error}", file=sys.stderr
            )

    def leave(self, folder: Path, rank: int, part: Part) -> None:
        """Leave a part for rank 0."""
        write_text(folder / PARTS / f"{rank}.json", part.to_json())

    def wait_for_parts(self, folder: Path, ranks: int) -> list[Part]:
        """The parts of all other ranks. For rank 0.

        Raises:
            RemoteError: it was abandoned.
        """
        missing, parts, pause = {f"{rank}.json" for rank in range(1, ranks)}, [], LOOK_EVERY
        while missing:
            for name in missing.intersection(os.listdir(folder / PARTS)):
                parts.append(Part.from_json((folder / PARTS / name).read_text(encoding="utf-8")))
                missing.remove(name)
            pause = min(2 * pause, LOOK_LATER)
            if missing and self._abandoned.wait(pause):
                raise RemoteError(f"the checkpoint of step {self.draft.step} was given up, since another rank failed")
        shutil.rmtree(folder / PARTS)
        return parts
