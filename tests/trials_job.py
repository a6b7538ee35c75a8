"""The job that a kill campaign hurts: steps that anybody can check, and a checkpoint after each.

    python trials_job.py FOLDER [--driver direct] [--asynchronous] [--steps 6] [--until 6]

It goes on from what is in the folder, writes `restored` (the step it went on from) and, at the end, final.npy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SHAPE = (14, 12, 10)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--driver", default="direct")
    parser.add_argument("--asynchronous", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--until", type=int, default=6, help="stop after this step, as an interruption would")
    return parser.parse_args(given)


def initial(*x: np.ndarray) -> np.ndarray:
    return x[0] + 2.0 * x[1] - x[2]


def advance(u: np.ndarray, v: np.ndarray, step: int) -> None:
    """Exact in every order, on any number of ranks; a step that is left out or done twice shows."""
    u *= 0.5
    u += v
    v -= 0.25 * u
    v += step


def expected(steps: int) -> np.ndarray:
    """(2, *SHAPE): u and v after all steps."""
    x = np.meshgrid(*((np.arange(n) + 0.5) * (1.0 / n) for n in SHAPE), indexing="ij", sparse=True)
    u = np.array(np.broadcast_to(initial(*x), SHAPE))
    v = np.zeros(SHAPE)
    for step in range(1, steps + 1):
        advance(u, v, step)
    return np.stack([u, v])


def run(options: argparse.Namespace) -> None:
    """The job. Collective over COMM_WORLD."""
    import hpcframe as hf
    from hpcframe.checkpoint import tiles

    tiles.TILE_BYTES = 2048  # so that this small grid has several tiles a rank
    grid = hf.Grid(SHAPE)
    u, v = grid.fields("u", "v")
    u.fill(initial)
    settings = {"keep": 2, "driver": options.driver, "asynchronous": options.asynchronous}
    checkpoints = hf.Checkpoints(options.folder / "checkpoints", **settings)
    restored = checkpoints.restore(u, v)
    first = restored.step if restored else 0
    if grid.rank == 0:
        (options.folder / "restored").write_text(str(first))
    for step in range(first + 1, options.until + 1):
        advance(u.interior, v.interior, step)
        checkpoints.save(step, u, v, attributes={"step": step})
    checkpoints.wait()
    whole = [field.gather() for field in (u, v)]
    if grid.rank == 0 and options.until == options.steps:
        np.save(options.folder / "final.npy", np.stack(whole))


def main() -> int:
    """Exit code 3 where no checkpoint can be used, as of hpcframe.run."""
    from mpi4py import MPI

    from hpcframe.simulation.failure import end_job

    comm = MPI.COMM_WORLD.Dup()
    try:
        run(arguments())
    except Exception as error:
        return end_job(comm, error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
