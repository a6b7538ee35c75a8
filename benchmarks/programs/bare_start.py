"""The least that a program with MPI and numba does before it can begin."""

import numba  # noqa: F401  # imported, for that takes its time
from mpi4py import MPI

MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.rank == 0:
    print("first step", flush=True)
