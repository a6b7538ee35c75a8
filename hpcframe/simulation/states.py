"""Files by which the watchdogs of all ranks see each other: one a rank, in a hidden folder on a shared file system."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from mpi4py import MPI

from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.simulation.stall import RankState

ATTEMPTS, BETWEEN = 3, 0.02  # to read a file that is just being written; s


class StateFiles:
    """The folder `<directory>/.watchdog-<token>`. Its methods call no MPI; but for `close` they raise OSError.

    Attributes:
        token: what tells this folder from that of any other run.
    """

    def __init__(self, directory: Path, comm: MPI.Intracomm, state: RankState) -> None:
        """Make the files of all ranks. Collective. Raises InputError, on every rank, where that cannot be."""
        self.token: str = comm.bcast(secrets.token_hex(8))
        self._size = comm.size
        self._folder = directory / f".watchdog-{self.token}"
        self._own = self._path(state.rank)
        self._reporter = self._folder / "reporter"
        with collectively(comm, "making the watchdog's folder"), explained(self._folder):
            if comm.rank == 0:
                for older in directory.glob(".watchdog-*"):  # of runs that were killed
                    shutil.rmtree(older, ignore_errors=True)
                self._folder.mkdir()
        with collectively(comm, "making the watchdog's files"), explained(self._own):
            self._own.write_bytes(msgspec.json.encode(state))

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.json"

    def write(self, state: RankState) -> None:
        """Replace what this rank's file says. The file is there, or was removed for good: it is not made anew."""
        text = msgspec.json.encode(state)
        file = os.open(self._own, os.O_WRONLY)
        try:
            os.pwrite(file, text, 0)
            os.ftruncate(file, len(text))
        finally:
            os.close(file)

    def read(self) -> dict[int, RankState]:
        """What the files of all ranks say; a rank that closed has none."""
        states: dict[int, RankState] = {}
        for rank in range(self._size):
            with suppress(FileNotFoundError):
                states[rank] = self._read(self._path(rank))
        return states

    def _read(self, path: Path) -> RankState:
        for _ in range(ATTEMPTS):
            try:
                return msgspec.json.decode(path.read_bytes(), type=RankState)
            except msgspec.DecodeError:
                time.sleep(BETWEEN)
        raise OSError(f"{path} is not whole")

    def claim_report(self, claim: str) -> str:
        """The claim of the rank that reports: this one, unless another rank came first."""
        try:
            with open(self._reporter, "x", encoding="utf-8") as file:
                file.write(claim)
            return claim
        except FileExistsError:
            return self._reporter.read_text(encoding="utf-8")

    def leave_report(self) -> None:
        """Withdraw this rank's claim."""
        self._reporter.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all at once, by a new name first, so that no rank writes meanwhile."""
        gone = self._folder.rename(self._folder.with_name(f"{self._folder.name}.ended"))
        shutil.rmtree(gone)

    def close(self) -> None:
        """Remove this rank's file, and with the last one the folder."""
        with suppress(OSError):  # others still have files there; or the folder was removed, which is as well
            self._own.unlink(missing_ok=True)
            self._folder.rmdir()
