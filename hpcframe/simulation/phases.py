"""Where the time of a run went, by phase: the mean over ranks, and the slowest one.

The clocks are always on: a few looks at a counter a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mpi4py import MPI

NAMES = {
    "compute": "computing",
    "pack": "filling halos",
    "wait": "waiting for messages",
    "reduce": "reductions",
    "files": "files",
}

Phases = dict[str, dict[str, float]]


def phases_of(seconds: Mapping[str, float], comm: MPI.Intracomm) -> Phases:
    """Mean and greatest time (s) over ranks of each phase. Collective.

    Args:
        seconds: this rank's own, by the keys of `NAMES`.
    """
    mine = np.array([seconds[name] for name in NAMES])
    greatest, total = np.empty_like(mine), np.empty_like(mine)
    comm.Allreduce(mine, greatest, MPI.MAX)
    comm.Allreduce(mine, total, MPI.SUM)
    pairs = zip(NAMES, (total / comm.size).tolist(), greatest.tolist(), strict=True)
    return {name: {"mean": mean, "slowest": slowest} for name, mean, slowest in pairs}


def halo_share(phases: Phases) -> float:
    """The time for halos, of that for computing and halos."""
    halos = phases["pack"]["mean"] + phases["wait"]["mean"]
    return halos / (phases["compute"]["mean"] + halos) if halos else 0.0


def imbalance(phases: Phases) -> float:
    """Computing time of the slowest rank over the mean."""
    compute = phases["compute"]
    return compute["slowest"] / compute["mean"] if compute["mean"] else 1.0


def describe(phases: Phases) -> str:
    """One line: the shares of the phases in their sum, those below half a percent left out."""
    total = sum(phase["mean"] for phase in phases.values())
    shares = {name: round(100 * phase["mean"] / total) if total else 0 for name, phase in phases.items()}
    parts = [f"{NAMES[name]} {share} %" for name, share in shares.items() if share]
    return f"time: {', '.join(parts)}; slowest rank {imbalance(phases):.2f} of the mean" if parts else ""
