"""The communicator a grid works on: a private duplicate, and its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from mpi4py import MPI


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
