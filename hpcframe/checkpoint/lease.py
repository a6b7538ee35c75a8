"""The right to write into a folder of checkpoints: only the latest incarnation of a run has it.

A batch system may start a job again on other nodes while the former ranks still run, cut off. Whoever starts later
takes the lease; who finds it gone before completing a checkpoint stops.
"""

from __future__ import annotations

import datetime
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpcframe.checkpoint.record import BrokenRecordError, read_record, write_record
from hpcframe.errors import HpcframeError

NAME = "LEASE.json"


class Holder(msgspec.Struct, frozen=True):
    """What an incarnation says of itself in the file."""

    token: str
    job: str  # of Slurm; "" elsewhere
    restarts: int  # how often Slurm had started this job again
    host: str
    process: int
    since: str

    def __str__(self) -> str:
        job = f"job {self.job}, started again {self.restarts} time(s), " if self.job else ""
        return f"{job}process {self.process} on {self.host}, since {self.since},"

    def is_later_than(self, other: Holder) -> bool:
        """Whether both are of one job and this one was started later."""
        return bool(self.job) and self.job == other.job and self.restarts > other.restarts


@dataclass(frozen=True)
class Lease:
    """The right to write, as long as the file names its holder."""

    folder: Path
    holder: Holder

    @staticmethod
    def take(folder: Path, environment: Mapping[str, str]) -> Lease:
        """Take the folder over from whoever has it. For rank 0; not collective.

        Args:
            environment: of the process, with SLURM_JOB_ID and SLURM_RESTART_COUNT in a job of Slurm.

        Raises:
            HpcframeError: a later incarnation of the same job has it already.
            OSError: the file cannot be read or written.
        """
        lease, former = Lease(folder, _this_process(environment)), _read(folder)
        if former and former.is_later_than(lease.holder):
            raise HpcframeError(
                f"{former} has {folder}; this process belongs to an earlier start of that job and ends. Nothing is to "
                f"be done, unless you started it by hand: then in another job"
            )
        write_record(folder / NAME, msgspec.to_builtins(lease.holder))
        return lease

    def check(self) -> None:
        """Ask just before a checkpoint is completed. For rank 0; not collective.

        Raises:
            HpcframeError: somebody else has taken the folder over, or the file is gone.
            OSError: it cannot be read.
        """
        holder = _read(self.folder)
        if holder is None or holder.token != self.holder.token:
            raise HpcframeError(
                f"{holder or f'somebody who left no readable {NAME}'} has taken {self.folder} over, so this run cannot "
                f"keep checkpoints there any more: let the other one go on, or end it and start this one again"
            )


def _this_process(environment: Mapping[str, str]) -> Holder:
    restarts = environment.get("SLURM_RESTART_COUNT", "")  # not set before a job is started again
    return Holder(
        token=secrets.token_hex(8),
        job=environment.get("SLURM_JOB_ID", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        host=platform.node(),
        process=os.getpid(),
        since=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    )


def _read(folder: Path) -> Holder | None:
    """Who has it; None where the file is not there, or names nobody."""
    try:
        return read_record(folder / NAME, Holder)
    except BrokenRecordError:
        return None
