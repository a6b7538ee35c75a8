"""Which protocol a launcher must speak for the MPI that is loaded: with the wrong one every rank is alone."""

from __future__ import annotations

import os
from collections.abc import Mapping

from hpcframe.errors import InputError

# What launchers tell each task about how many they started, most specific first. SLURM_NTASKS is not among them: it
# is there in all of a job, also where nothing was started by srun.
TASK_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
MPIRUN = ("OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")  # what mpirun sets, and srun does not: of Open MPI, of the others
TASK_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
SPOKEN = ("PMIX_RANK", "PMI_RANK", "PMI_FD")  # what srun gives a task to find the others by, in any protocol


def protocol_of(library: str) -> str:
    """The --mpi of srun that an MPI needs, by what the MPI says of itself, such as "Open MPI v5.0.11". Not collective.

    >>> protocol_of("Open MPI v5.0.11"), protocol_of("Intel(R) MPI Library 2021.15")
    ('pmix', 'pmi2')
    """
    return "pmix" if library.startswith("Open MPI") else "pmi2"


def name_of(library: str) -> str:
    """The first words of what an MPI says of itself. Not collective."""
    lines = library.strip("\0 \n").splitlines() or ["an MPI that does not name itself"]
    return " ".join(lines[0].split(",")[0].split())


def check_protocol(library: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse, before MPI starts, what an MPI would end with a message of its own. Not collective.

    Args:
        library: what the MPI that is loaded says of itself.

    Raises:
        InputError: srun speaks a protocol that this MPI does not.
    """
    if "SLURM_STEP_ID" not in environment or any(name in environment for name in MPIRUN):
        return  # not started by srun: a site may set SLURM_MPI_TYPE everywhere
    spoken = environment.get("SLURM_MPI_TYPE", "")
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and not any(name in environment for name in SPOKEN):
        spoken = "no protocol (--mpi=none)"
    elif not spoken.startswith("pm") or spoken.startswith(protocol_of(library)):
        return
    raise InputError(
        f"srun speaks {spoken}, so that MPI sees each task alone: mpi4py runs on {name_of(library)}, start it by "
        f"`srun --mpi={protocol_of(library)}`; `hpcframe doctor` checks it"
    )


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The rank that the launcher gave this task, whatever MPI makes of it; 0 where there was none. Not collective."""
    told = next((name for name in TASK_RANKS if environment.get(name, "").isdigit()), None)
    return int(environment[told]) if told else 0


def check_launch(world_size: int, library: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a job whose launcher started several tasks that each believe to be alone.

    It happens when mpiexec or `srun --mpi` belongs to another MPI than mpi4py loaded: N ranks then compute the same
    thing N times and overwrite each other's files. Not collective.

    Args:
        library: what the MPI that is loaded says of itself.

    Raises:
        InputError: the launcher says that it started more than one task, and this process is a world of one.
    """
    told = next((name for name in TASK_COUNTS if environment.get(name, "").isdigit()), None)
    if world_size > 1 or told is None or int(environment[told]) <= 1:
        return
    raise InputError(
        f"the launcher started {environment[told]} tasks ({told}), but MPI sees each of them alone: mpi4py runs on "
        f"{name_of(library)}, the launcher belongs to another MPI or speaks another protocol. Use the mpiexec of that "
        f"library, or `srun --mpi={protocol_of(library)}`; `hpcframe doctor` checks it. "
        f"If one process is meant, pass comm=MPI.COMM_SELF or unset {told}."
    )
