"""`--dry-run`: what a run would do, without its memory and its time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mpi4py import MPI

from hpcframe.grid.decomposition import largest_block, surface
from hpcframe.simulation.assembly import build_model
from hpcframe.simulation.configuration import Configuration
from hpcframe.simulation.initial import set_initial
from hpcframe.simulation.needs import largest, needs_of
from hpcframe.simulation.schedule import Steps, choose_steps, is_due, output_interval

AFFORDABLE = 1 << 30  # bytes a process: up to that, initial values are made to find the stable step


@dataclass(frozen=True)
class TimeStepping:
    """The steps of a run, and the model's largest stable one (s): infinite where it takes too much memory to tell."""

    steps: Steps
    stable: float


def explain(configuration: Configuration, comm: MPI.Intracomm, ranks: int | None = None) -> str:
    """The text of a dry run. Collective over `comm`.

    Args:
        ranks: how many to plan for; those of `comm` if not given.

    Raises:
        InputError: what a run would refuse, but for halos that only a step widens.
    """
    section = configuration.grid
    ranks = ranks or comm.size
    needs = needs_of(configuration)
    plan = needs.decomposition(ranks)
    memory = needs.memory_a_rank(plan)
    sent, cells = 2 * surface(plan.shape, plan.layout, plan.periodic), math.prod(plan.shape)
    spacing = product(f"{e / n:.4g}" for e, n in zip(section.extent, section.shape, strict=True))
    imbalance = largest_block(plan.shape, plan.layout) * ranks / cells
    total = memory * ranks
    stepping = time_stepping(configuration, comm, total // comm.size)
    lines = [
        f"model        {configuration.simulation.model}",
        f"grid         {product(section.shape)} cells, spacing {spacing} m",
        f"ranks        {ranks} as {product(plan.layout)}: blocks of {product(plan.smallest)} to "
        f"{product(largest(plan))} cells, imbalance {imbalance:.3f}",
        f"halo         {sent:,} cells sent for each layer, {100 * sent / cells:.2g} % of the grid",
        f"memory       {in_bytes(memory)} a rank for {len(needs.fields)} fields, {in_bytes(total)} in all",
        _time_line(stepping, total // comm.size),
        f"state        {in_bytes(needs.state_bytes())}: the size of an output of all fields",
        *(_files_lines(configuration, stepping.steps, needs.checkpoint_bytes()) if stepping else []),
    ]
    return "\n".join(lines)


def time_stepping(configuration: Configuration, comm: MPI.Intracomm, memory: int) -> TimeStepping | None:
    """The steps of a run; None where it takes too much memory to tell. Collective over `comm`.

    Args:
        memory: bytes a process that the fields take on `comm`.

    Raises:
        InputError: what a run would refuse of its initial values and its time step.
    """
    if memory > AFFORDABLE:
        known = configuration.time.dt is not None
        return TimeStepping(choose_steps(configuration.time, math.inf), math.inf) if known else None
    model = build_model(configuration, comm)
    set_initial(model, configuration.initial)
    stable = model.stable_dt()
    steps = choose_steps(configuration.time, stable)
    model.prepare(steps.dt)  # where a model checks what it can only know by now
    return TimeStepping(steps, stable)


def _time_line(stepping: TimeStepping | None, memory: int) -> str:
    if stepping is None:
        return f"time         found at the start of a run: it takes {in_bytes(memory)} a process to tell now"
    steps = stepping.steps
    return (
        f"time         {steps.count} steps of {steps.dt:.6g} s to {steps.count * steps.dt:.6g} s; the stable limit is "
        f"{stepping.stable:.6g} s"
    )


def _files_lines(configuration: Configuration, steps: Steps, size: int) -> list[str]:
    interval = output_interval(configuration.output, steps)
    count = sum(is_due(step, interval, steps.count) for step in range(steps.count + 1))
    return [
        f"checkpoints  {checkpoints_in_words(configuration, steps.count, size)}",
        f"output       {count} file(s) in {configuration.simulation.directory}/output",
        *_staging_lines(configuration),
    ]


def _staging_lines(configuration: Configuration) -> list[str]:
    section = configuration.staging
    if section is None:
        return []
    often = f", one every {section.every_seconds:g} s at most" if section.every_seconds else ""
    kept = f"the latest {section.keep} checkpoints are kept there" if section.keep else "all checkpoints are kept there"
    return [f"staging      {' and '.join(section.push)} to {section.url}{often}; {kept}"]


def checkpoints_in_words(configuration: Configuration, steps: int | None, size: int) -> str:
    """How many or when, and how large each is.

    Args:
        steps: of the run; None where that is not known.
        size: bytes of a checkpoint; 0 where that is not known.
    """
    section, each = configuration.checkpoint, f" of {in_bytes(size)}" if size else ""
    if section.every_steps and steps:
        count = sum(is_due(step, section.every_steps, steps) for step in range(1, steps + 1))
        return f"{count}{each}, the latest {section.keep} are kept"
    if section.every_steps:
        return f"every {section.every_steps} steps{each}, the latest {section.keep} are kept"
    when = f"every {section.every_seconds:g} s" if section.every_seconds else "at an interval that a run finds"
    return f"{when}{each}" if section.periodic else f"one{each}, only if the run is interrupted"


def product(values: Iterable[object]) -> str:
    """
    >>> product((4, 8))
    '4 x 8'
    """
    return " x ".join(map(str, values))


def in_bytes(number: float) -> str:
    """
    >>> in_bytes(2.5e9)
    '2.5 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
