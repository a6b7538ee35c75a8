"""All that asks a run to stop, in one look."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from mpi4py import MPI

from hpcframe.grid.agreement import collectively
from hpcframe.metadata import metadata_host
from hpcframe.simulation.interruption.reason import Reason, Source
from hpcframe.simulation.interruption.signals import Signals
from hpcframe.simulation.interruption.spot import SpotNotices
from hpcframe.simulation.interruption.stop_file import StopFile
from hpcframe.simulation.interruption.time_limit import MARGIN, TimeLimit


class Interruptions:
    """What asks this rank to stop. The run agrees on the greatest reason of all ranks, and stops between two steps.

    Each rank looks at its signals, the first rank of each node at EC2's notices, rank 0 at the stop file and the clock.
    """

    def __init__(
        self,
        directory: Path,
        comm: MPI.Intracomm,
        node_comm: MPI.Intracomm,
        time_limit: float = 0.0,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Takes over signals, so for a program that owns its process; call it in the main thread. Collective.

        Args:
            directory: of the run; the stop file is STOP in it.
            node_comm: the ranks of `comm` on this node.
            time_limit: seconds from the start of the process; 0 for none. In a Slurm job its end counts if earlier.
            environment: where Slurm and the user say what is above and AWS_EC2_METADATA_SERVICE_ENDPOINT.

        Raises:
            HpcframeError: an old stop file cannot be removed.
            InputError: AWS_EC2_METADATA_SERVICE_ENDPOINT is not a URL.
        """
        self.comm = comm
        self._signals = Signals(environment)
        self._stop_file: StopFile | None = None
        self._limit: TimeLimit | None = None
        self._spot: SpotNotices | None = None
        with collectively(comm, "looking for what may interrupt the run"):
            if comm.rank == 0:
                self._stop_file, self._limit = StopFile(directory), TimeLimit(time_limit, environment)
            host = metadata_host(environment) if node_comm.rank == 0 else None
            if host:
                self._spot = SpotNotices(host)
        found = (self._signals, self._stop_file, self._limit, self._spot)
        self._sources: list[Source] = [source for source in found if source]

    def look(self) -> tuple[Reason, float]:
        """This rank's reason to stop, and the seconds left until the end, infinite where unknown. Not collective."""
        reasons, left = zip(*(source.look() for source in self._sources), strict=True)
        return max(reasons), min(left)

    def time_left(self) -> float:
        """Seconds until the wall-clock end of the job; known on rank 0, infinite elsewhere. Not collective."""
        return self._limit.time_left() if self._limit else math.inf

    @property
    def margin(self) -> float:
        """Seconds before the end of the job at which the run is to stop; only that of rank 0 counts."""
        return self._limit.margin if self._limit else MARGIN

    @margin.setter
    def margin(self, seconds: float) -> None:
        if self._limit:
            self._limit.margin = seconds

    def obeyed(self) -> None:
        """The run has stopped: remove the stop file, if there is one. Collective.

        Raises:
            HpcframeError: it cannot be removed.
        """
        with collectively(self.comm, "removing the stop file"):
            if self._stop_file:
                self._stop_file.remove()

    def close(self) -> None:
        """Give the signals back, and look no longer. Not collective."""
        self._signals.close()
        if self._spot:
            self._spot.close()
