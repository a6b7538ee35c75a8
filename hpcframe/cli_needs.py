"""What commands ask of a simulation without ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcframe.simulation.needs import Needs

ALONE = "OMPI_MCA_ess_singleton_isolated"  # without it Open MPI 4 starts a daemon for one process, and needs a shell


def needs_in(configuration: Path, overrides: list[str]) -> Needs:
    """What a run with these overrides needs; refused here is what the run would refuse."""
    from hpcframe.simulation.configuration import load

    loaded = load(configuration, overrides)
    given = os.environ.get(ALONE)
    os.environ.setdefault(ALONE, "1")
    from hpcframe.simulation.needs import needs_of

    if given is None:  # the ranks of the job are not alone
        del os.environ[ALONE]
    return needs_of(loaded)


def steps_of(needs: Needs, memory: int) -> int | None:
    """How many; what the run would refuse of its initial values and time step is refused here, if they are small."""
    from mpi4py import MPI

    from hpcframe.simulation.planning import time_stepping

    stepping = time_stepping(needs.configuration, MPI.COMM_SELF, memory)
    return stepping.steps.count if stepping else needs.configuration.time.steps
