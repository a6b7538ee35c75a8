"""What the ranks of a trial launch do: count themselves, and each hear from the next.

mpiexec -n 2 python -m hpcframe.launch.checks.handshake
"""

from __future__ import annotations

import dataclasses
import json
import re


@dataclasses.dataclass(frozen=True)
class Reply:
    """What one rank saw.

    Attributes:
        rank: its number.
        size: how many ranks it counts.
        heard: the number that the next rank sent.
        nodes: how many nodes the ranks are on.
        library: what its MPI says of itself.
    """

    rank: int
    size: int
    heard: int
    nodes: int
    library: str


def replies(output: str) -> list[Reply]:
    """The replies among what the ranks, and whatever started them, printed. Not collective."""
    found = (json.loads(text) for text in re.findall(r'\{"rank": [^{}]*\}', output))
    return sorted((Reply(**reply) for reply in found), key=lambda reply: reply.rank)


def main() -> None:
    """Print this rank's reply. Collective."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    reply = Reply(
        rank=comm.rank,
        size=comm.size,
        heard=comm.sendrecv(comm.rank, dest=(comm.rank - 1) % comm.size, source=(comm.rank + 1) % comm.size),
        nodes=comm.allreduce(int(node.rank == 0)),
        library=re.sub(r"[{}\0]", "", MPI.Get_library_version()),
    )
    print(json.dumps(dataclasses.asdict(reply)) + "\n", end="", flush=True)  # one write: ranks share the line


if __name__ == "__main__":
    main()
