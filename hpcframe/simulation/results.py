"""What a run says of itself at the end: numbers for summary.json, and a few lines for people."""

from __future__ import annotations

import math
import time
from typing import Any

from mpi4py import MPI

from hpcframe.simulation import phases
from hpcframe.simulation.fabric import Fabric, advice
from hpcframe.simulation.loop import Run
from hpcframe.simulation.summary import machine, versions


def summarise(run: Run, fabric: Fabric) -> dict[str, Any]:
    """The sections of summary.json, the same on every rank; `fabric` was made before the run. Collective."""
    grid, steps = run.grid, run.step
    advance = run.comm.allreduce(run.timing.advance, MPI.MAX)
    files = run.timing.output + run.timing.checkpoints
    spent = phases.phases_of({**grid.seconds, "files": files}, run.comm)
    return {
        "status": _status(run),
        "model": run.configuration.simulation.model,
        "steps": steps,
        "first_step": run.first_step,
        "time_s": run.time,
        "dt_s": run.steps.dt,
        "grid": {
            "shape": list(grid.shape),
            "ranks": grid.size,
            "layout": list(grid.layout),
            "nodes": len(set(grid.shared.node_of_rank)),
        },
        "seconds": {
            "total": time.perf_counter() - run.timing.begun,
            "set_up": run.timing.set_up,
            "first_steps": run.timing.first_chunk,
            "advance": advance,
            "diagnostics": run.timing.diagnostics,
            "output": run.timing.output,
            "checkpoints": run.timing.checkpoints,
        },
        "phases": spent,
        "checkpoints": run.checkpointing.summary(run.not_kept),
        "staging": run.staging.summary() if run.staging else None,
        "speed": _speed(run, advance),
        "halo_share": phases.halo_share(spent),
        "imbalance": phases.imbalance(spent),
        "efa": fabric.summary(run.comm, run.step - run.first_step),
        "final": final_norms(run),
        "configuration": run.configuration.table,
        "versions": versions(),
        "machine": machine(),
    }


def _status(run: Run) -> str:
    if not run.is_interrupted:
        return "done"
    return f"interrupted by {run.stopped_by.describe()}"


def _speed(run: Run, seconds: float) -> dict[str, Any]:
    """Rates without the first steps, which compile. T_eff: bytes that must move over the time they took
    (S. Omlin, L. Rass, I. Utkin, ImplicitGlobalGrid.jl and ParallelStencil.jl, 2022)."""
    steps = run.step - run.first_step - run.timing.first_steps
    seconds -= run.timing.first_chunk
    if steps <= 0 or seconds <= 0:
        return {"note": "too few steps to measure", "bandwidth_GB_per_s": run.bandwidth / 1e9}
    points = math.prod(run.grid.shape) * steps
    effective = points * run.model.bytes_a_point() / seconds
    return {
        "steps_per_s": steps / seconds,
        "GLUP_per_s": points / seconds / 1e9,
        "T_eff_GB_per_s": effective / 1e9,
        "bandwidth_GB_per_s": run.bandwidth / 1e9,
        "share_of_bandwidth": effective / run.bandwidth,
    }


def final_norms(run: Run) -> dict[str, Any]:
    """Norms of the state and the model's diagnostics: equal to the last bit on any number of ranks. Collective."""
    terms: dict[str, Any] = {f"norm2({name})": ("norm2", field) for name, field in run.model.state.items()}
    terms |= {f"norminf({name})": ("norminf", field) for name, field in run.model.state.items()}
    terms |= run.model.diagnostics()
    return dict(zip(terms, run.grid.reduce(*terms.values()), strict=True))


def describe(run: Run, summary: dict[str, Any]) -> str:
    """A few lines on what was done, how fast, and where it is."""
    speed = summary["speed"]
    seconds = summary["seconds"]["total"]
    lines = [
        f"{summary['status']}: {run.step} steps to t = {run.time:g} s in {seconds:.1f} s on {run.grid.size} rank(s)"
    ]
    if "GLUP_per_s" in speed:
        lines.append(
            f"speed: {speed['GLUP_per_s']:.3g} GLUP/s, {speed['T_eff_GB_per_s']:.3g} GB/s of "
            f"{speed['bandwidth_GB_per_s']:.3g} GB/s measured ({100 * speed['share_of_bandwidth']:.0f} %)"
        )
    lines.append(phases.describe(summary["phases"]))
    lines += _describe_checkpoints(summary["checkpoints"], run.configuration.checkpoint.interval)
    return "\n".join(filter(None, [*lines, advice(summary)]))


def _describe_checkpoints(made: dict[str, Any], interval: str) -> list[str]:
    if not made["count"]:
        return []
    lines = [
        f"checkpoints: {made['count']} of {made['bytes'] / 1e6:.3g} MB, steps waited {made['blocking_seconds']:.3g} s "
        f"for them ({100 * made['waste_actual']:.2g} % of the run)"
    ]
    if interval:
        hours = made["mean_seconds_between_interruptions"] / 3600
        lines.append(
            f"interval: {made['interval_seconds']:.3g} s, the best where an interruption comes every {hours:.3g} h; "
            f"predicted loss {100 * made['waste_predicted']:.2g} % of the time"
        )
    return lines
