"""The communicator a grid works on: a private duplicate, its nodes, and a check of how it was launched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from mpi4py import MPI

from hpcframe.errors import InputError

# What launchers tell each task about how many they started, most specific first.
TASK_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")


TASK_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Communicator:
    """What every grid on one communicator shares.

    Attributes:
        comm: duplicate of the user's communicator, so that no message of theirs meets one of ours.
        node: the ranks of `comm` that share memory with this one.
        node_of_rank: the number of the node of every rank.
    """

    comm: MPI.Intracomm
    node: MPI.Intracomm
    node_of_rank: tuple[int, ...]


def connect(comm: MPI.Intracomm) -> Communicator:
    """The private duplicate of a communicator, made at the first call and kept with it. Collective.

    Duplicates are a scarce resource (some MPIs have 2,000), so all grids on a communicator share one. It is freed
    with the communicator.
    """
    known = cast("Communicator | None", comm.Get_attr(_keyval))
    if known is None:
        private = comm.Dup()
        node = cast(MPI.Intracomm, private.Split_type(MPI.COMM_TYPE_SHARED))
        leaders = private.allgather(private.rank if node.rank == 0 else None)
        number = {rank: index for index, rank in enumerate(r for r in leaders if r is not None)}
        leader = node.bcast(private.rank)
        known = Communicator(private, node, tuple(private.allgather(number[leader])))
        comm.Set_attr(_keyval, known)
    return known


def _free(comm: MPI.Comm, keyval: int, known: Communicator) -> None:
    known.node.Free()
    known.comm.Free()


_keyval = MPI.Comm.Create_keyval(delete_fn=_free)


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The rank that the launcher gave this task, whatever MPI makes of it; 0 where there was none. Not collective."""
    told = next((name for name in TASK_RANKS if environment.get(name, "").isdigit()), None)
    return int(environment[told]) if told else 0


def check_launch(world_size: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a job whose launcher started several tasks that each believe to be alone.

    It happens when mpiexec or `srun --mpi` belongs to another MPI than mpi4py loaded: N ranks then compute the same
    thing N times and overwrite each other's files.

    Raises:
        InputError: the launcher says that it started more than one task, and this process is a world of one.
    """
    told = next((name for name in TASK_COUNTS if environment.get(name, "").isdigit()), None)
    if world_size > 1 or told is None or int(environment[told]) <= 1:
        return
    library = MPI.Get_library_version().split(",")[0].strip("\0 \n")
    raise InputError(
        f"the launcher started {environment[told]} tasks ({told}), but MPI sees each of them alone: mpi4py runs on "
        f"{library}, the launcher belongs to another MPI or speaks another protocol. Use the mpiexec of that library, "
        f"or `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH, Intel MPI); `hpcframe doctor` checks it. "
        f"If one process is meant, pass comm=MPI.COMM_SELF or unset {told}."
    )
