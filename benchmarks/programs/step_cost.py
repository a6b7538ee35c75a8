"""A step on blocks so small that there is nothing to compute, and its messages alone: see serving.py.

`steps N` does N steps of the 7-point Laplacian on 16^3 points a rank; `messages N` N exchanges of as many bytes between
the same ranks by persistent requests of mpi4py, and nothing else.
"""

from __future__ import annotations

import argparse

import numpy as np
from hpcframe_stars import star7
from mpi4py import MPI
from serving import claim_stdout, serve, timed

import hpcframe as hf


class Steps:
    """A row of blocks with zero walls, one a rank."""

    def __init__(self, comm: MPI.Intracomm, size: int) -> None:
        grid = hf.Grid((size * comm.size, size, size), ranks=(comm.size, 1, 1), comm=comm)
        self.fields = grid.fields("u", "v", boundary=hf.Dirichlet(0.0))

    def __call__(self, steps: int) -> None:
        newest, other = self.fields
        self.fields = star7.iterate(other, newest, steps=steps, k=0.1)


class Messages:
    """What each rank sends to those beside it: one face."""

    def __init__(self, comm: MPI.Intracomm, size: int) -> None:
        beside = [rank for rank in (comm.rank - 1, comm.rank + 1) if 0 <= rank < comm.size]
        self.buffers = np.zeros((2, len(beside), size * size))
        received, sent = self.buffers
        self.requests = [comm.Recv_init(buffer, rank) for buffer, rank in zip(received, beside, strict=True)]
        self.requests += [comm.Send_init(buffer, rank) for buffer, rank in zip(sent, beside, strict=True)]

    def __call__(self, exchanges: int) -> None:
        for _ in range(exchanges):
            MPI.Prequest.Startall(self.requests)
            MPI.Prequest.Waitall(self.requests)


def main() -> None:
    """Parse, plan, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=16, help="points on a side a rank (16)")
    options = parser.parse_args()
    answers = claim_stdout()
    comm = MPI.COMM_WORLD
    steps, messages = Steps(comm, options.size), Messages(comm, options.size)
    commands = {
        "steps": lambda count: timed(lambda: steps(int(count)), comm),
        "messages": lambda count: timed(lambda: messages(int(count)), comm),
    }
    serve(answers, {}, commands, comm)


if __name__ == "__main__":
    main()
