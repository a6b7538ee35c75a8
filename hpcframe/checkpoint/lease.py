"""The right to write into a folder of checkpoints: only the latest incarnation of a run has it.

A batch system may start a job again on other nodes while the former ranks still run, cut off. Whoever starts later
takes the lease; who finds it gone before completing a checkpoint stops.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcframe.checkpoint.folder import sync
from hpcframe.errors import HpcframeError
from hpcframe.files import partial_name

NAME = "LEASE.json"


@dataclass(frozen=True)
class Lease:
    """What one incarnation wrote when it took the folder."""

    folder: Path
    token: str
    job: str  # of Slurm; "" elsewhere
    restarts: int  # how often Slurm had started this job again
    host: str
    process: int
    since: str

    @staticmethod
    def take(folder: Path, environment: Mapping[str, str]) -> Lease:
        """Take the folder over from whoever has it. For rank 0; not collective.

        Raises:
            HpcframeError: a later incarnation of the same job has it already.
            OSError: the file cannot be written.
        """
        restarts = environment.get("SLURM_RESTART_COUNT", "0")
        lease = Lease(
            folder,
            secrets.token_hex(8),
            environment.get("SLURM_JOB_ID", ""),
            int(restarts) if restarts.isdigit() else 0,
            platform.node(),
            os.getpid(),
            datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        )
        holder = _read(folder)
        if lease.job and holder.get("job") == lease.job and int(holder.get("restarts", 0)) > lease.restarts:
            raise HpcframeError(f"{_who(holder)} has {folder} and started later than this one, which therefore ends")
        lease._write()
        return lease

    def check(self) -> None:
        """Raises HpcframeError where somebody else has taken the folder. For rank 0; not collective."""
        holder = _read(self.folder)
        if holder.get("token") != self.token:
            raise HpcframeError(
                f"{_who(holder)} has taken {self.folder} over, so this run cannot keep checkpoints there any more: let "
                f"the other one go on, or end it and start this one again"
            )

    def _write(self) -> None:
        table = {name: value for name, value in asdict(self).items() if name != "folder"}
        partial = partial_name(self.folder / NAME)
        with open(partial, "x", encoding="utf-8") as file:
            file.write(json.dumps(table) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / NAME)
        sync(self.folder)


def _read(folder: Path) -> dict[str, Any]:
    """What is there; nothing where there is no lease, or none that makes sense."""
    try:
        table = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return table if isinstance(table, dict) and str(table.get("restarts", "0")).isdigit() else {}
    except (FileNotFoundError, ValueError):
        return {}


def _who(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "somebody"
    job = f"job {holder.get('job')}, started again {holder.get('restarts')} time(s), " if holder.get("job") else ""
    return f"{job}process {holder.get('process')} on {holder.get('host')}, since {holder.get('since')},"
