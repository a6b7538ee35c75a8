"""STREAM's triad on any number of ranks at once: see serving.py. `run PASSES` answers {"seconds", "GB/s"} of all."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI
from serving import claim_stdout, serve, timed
from triad import Triad


def main() -> None:
    """Serve."""
    answers = claim_stdout()
    comm = MPI.COMM_WORLD
    triad = Triad()

    def run(passes: str) -> dict[str, Any]:
        found = timed(lambda: [triad.sweep() for _ in range(int(passes))], comm)
        return {**found, "GB/s": comm.size * int(passes) * triad.bytes / found["seconds"] / 1e9}

    serve(answers, {"bytes": triad.bytes}, {"run": run}, comm)


if __name__ == "__main__":
    main()
