"""The run as a program: python job.py FOLDER '{"driver": "direct", ...}' [--until STEP]

It continues from the newest checkpoint in FOLDER/checkpoints, and leaves FOLDER/final.npz with its last state and
FOLDER/events with a line for each thing that happened on rank 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from campaign.simulation import EVERY, STEPS, Simulation
from mpi4py import MPI

import hpcframe as hf


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--until", type=int, default=STEPS)
    given = parser.parse_args()
    try:
        run(given.folder, given.options, given.until)
    except hf.HpcframeError as error:  # on all ranks
        print(f"rank {MPI.COMM_WORLD.rank}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def run(folder: Path, options: dict[str, object], until: int) -> None:
    simulation = Simulation(MPI.COMM_WORLD)
    checkpoints = hf.Checkpoints(folder / "checkpoints", **options)
    note(folder, f"restored {simulation.restore(checkpoints)}")
    while simulation.step < until:
        simulation.advance()
        if simulation.step % EVERY == 0:
            simulation.save(checkpoints)
            note(folder, f"saved {checkpoints.saved}")
    checkpoints.wait()
    note(folder, f"saved {checkpoints.saved}")
    state = simulation.state()
    if state:
        np.savez(folder / "final.npz", **state)
    note(folder, "ended")


def note(folder: Path, event: str) -> None:
    """A line that stays, whatever happens next."""
    if MPI.COMM_WORLD.rank == 0:
        with open(folder / "events", "a") as file:
            file.write(event + "\n")


if __name__ == "__main__":
    sys.exit(main())
