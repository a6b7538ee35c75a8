"""The most memory that a rank ever holds, against its fields: one command, `run STEPS`. See serving.py.

Steps of the 7-point Laplacian, an exact sum and a file: what a run does.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from hpcframe_stars import star7
from mpi4py import MPI
from serving import claim_stdout, serve

import hpcframe as hf

KILOBYTE = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def main() -> None:
    """Parse, plan, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 256, 256), help="points (512 256 256)")
    options = parser.parse_args()
    answers = claim_stdout()
    comm = MPI.COMM_WORLD
    grid = hf.Grid(options.shape, comm=comm)

    def run(steps: str) -> dict[str, Any]:
        u, v = grid.fields("u", "v")
        u.fill(lambda x, y, z: x)  # a whole block of values would be memory of ours, not of hpcframe
        u, v = star7.iterate(v, u, steps=int(steps), k=0.1)
        grid.sum(u)
        with tempfile.TemporaryDirectory() as folder:
            hf.save(Path(comm.bcast(folder)) / "state.h5", u)
            comm.Barrier()
        fields = u.local_data.nbytes + v.local_data.nbytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE
        return {"peak_bytes": max(comm.allgather(peak)), "field_bytes": max(comm.allgather(fields))}

    serve(answers, {}, {"run": run}, comm)


if __name__ == "__main__":
    main()
