"""Did Elastic Fabric Adapters carry what the ranks told each other? MPI falls back to TCP without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcframe import efa

CARRIED, NOT_CARRIED, NO_EFA = "carried", "not carried", "no EFA"

# Bytes that a node's adapters must have sent for each step: a step tells the neighbours the borders of blocks, far more
# than this. A few bytes in all come from elsewhere, as from a program that looks which adapters there are.
LEAST_A_STEP = 64

ADVICE = (
    "EFA did not carry the messages between nodes: set FI_PROVIDER=efa, so that a run fails that cannot use it, and "
    "with Open MPI OMPI_MCA_pml=cm OMPI_MCA_mtl=ofi, with Intel MPI I_MPI_FABRICS=shm:ofi I_MPI_OFI_PROVIDER=efa; "
    "`hpcframe doctor` looks for what is missing"
)


class Fabric:
    """The adapters of all nodes, from its making on."""

    def __init__(self, node: MPI.Intracomm, root: Path = efa.ROOT) -> None:
        """Read the counters of this node, by one rank of it. Not collective.

        Args:
            node: the ranks that share memory with this one.
            root: the folder that holds /sys.
        """
        self._root = root
        self._reads = node.rank == 0
        self._adapters = len(efa.adapters(root)) if self._reads else 0
        self._before = efa.traffic(root) if self._reads else efa.Traffic(0, 0)

    def summary(self, comm: MPI.Intracomm, steps: int) -> dict[str, Any]:
        """The section "efa" of summary.json, the same on every rank, after `steps` steps. Collective.

        Counters are those of the node: what else there moved anything by the adapters, such as a Lustre that is
        reached by EFA, is in them too, and can hide that the messages went another way.
        """
        moved = efa.traffic(self._root).since(self._before) if self._reads else efa.Traffic(0, 0)
        sends = moved.sent >= max(1, LEAST_A_STEP * steps)
        totals = np.array([self._reads, self._adapters > 0, sends, moved.sent, moved.received], np.int64)
        comm.Allreduce(MPI.IN_PLACE, totals, MPI.SUM)
        nodes, equipped, sending, sent, received = totals.tolist()
        return {"verdict": verdict(nodes, equipped, sending), "bytes_sent": sent, "bytes_received": received}


def verdict(nodes: int, equipped: int, sending: int) -> str:
    """What became of a run on `nodes`, of which `equipped` have adapters and `sending` sent by them. Not collective.

    One node that sends next to nothing by its adapters was reached by other ways, and slows all.
    """
    if not equipped:
        return NO_EFA
    return CARRIED if sending == nodes else NOT_CARRIED


def advice(summary: dict[str, Any]) -> str:
    """What to do, by a summary of a run; "" where there is nothing. Not collective."""
    needed = summary["grid"]["nodes"] > 1
    return ADVICE if needed and summary["efa"]["verdict"] == NOT_CARRIED else ""
