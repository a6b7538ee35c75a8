"""`--dry-run`: what a run would do, without its memory and its time."""

from __future__ import annotations

import math
from typing import Any

from mpi4py import MPI

from hpcframe.grid.decomposition import decompose, largest_block, surface
from hpcframe.grid.field import Field
from hpcframe.grid.halo import check_halo
from hpcframe.grid.memory import padded_shape
from hpcframe.simulation.assembly import build_model, conditions
from hpcframe.simulation.configuration import Configuration, check_names, convert_parameters
from hpcframe.simulation.initial import set_initial
from hpcframe.simulation.model import Model, find_model
from hpcframe.simulation.schedule import Steps, choose_steps, is_due, output_interval
from hpcframe.stencils.reductions import Grid

SMALL = 32  # cells an axis of the grid on which the model is asked for its fields
AFFORDABLE = 1 << 30  # bytes a process: up to that, initial values are made to find the stable step


class _RecordingGrid(Grid):
    """Remembers the fields that a model makes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.made: list[Field] = []
        super().__init__(*args, **options)

    def field(self, name: str, **options: Any) -> Field:
        self.made.append(super().field(name, **options))
        return self.made[-1]

    def fields(self, *names: str, **options: Any) -> tuple[Field, ...]:
        return tuple(self.field(name, **options) for name in names)


def explain(configuration: Configuration, comm: MPI.Intracomm, ranks: int | None = None) -> str:
    """The text of a dry run. Collective over `comm`.

    Args:
        ranks: how many to plan for; those of `comm` if not given.

    Raises:
        InputError: what a run would refuse, but for halos that only a step widens.
    """
    section = configuration.grid
    ranks = ranks or comm.size
    plan = decompose(section.shape, configuration.boundary.periodic, [0] * ranks, section.ranks)
    fields = _fields_of(configuration)
    for field in fields:
        check_halo(field.name, field.halo, plan, field.staggered)
    block = tuple(-(-length // parts) for length, parts in zip(plan.shape, plan.layout, strict=True))
    memory = sum(_bytes_of(field, block) for field in fields)
    state = sum(field.dtype.itemsize * math.prod(field.components) for field in _state(configuration, fields))
    sent, cells = 2 * surface(plan.shape, plan.layout, plan.periodic), math.prod(plan.shape)
    spacing = _product(f"{e / n:.4g}" for e, n in zip(section.extent, section.shape, strict=True))
    imbalance = largest_block(plan.shape, plan.layout) * ranks / cells
    lines = [
        f"model        {configuration.simulation.model}",
        f"grid         {_product(section.shape)} cells, spacing {spacing} m",
        f"ranks        {ranks} as {_product(plan.layout)}: blocks of {_product(plan.smallest)} to {_product(block)} "
        f"cells, imbalance {imbalance:.3f}",
        f"halo         {sent:,} cells sent for each layer, {100 * sent / cells:.2g} % of the grid",
        f"memory       {_bytes(memory)} a rank for {len(fields)} fields, {_bytes(memory * ranks)} in all",
        *_time_lines(configuration, comm, memory * ranks // comm.size, state * math.prod(section.shape)),
    ]
    return "\n".join(lines)


def _fields_of(configuration: Configuration) -> list[Field]:
    """The fields that the model makes, found on a small grid of the same spacing."""
    kind = find_model(configuration.simulation.model)
    check_names(configuration, kind.fields, kind.states())
    section = configuration.grid
    shape = tuple(min(SMALL, length) for length in section.shape)
    extent = tuple(s * e / n for s, e, n in zip(shape, section.extent, section.shape, strict=True))
    grid = _RecordingGrid(
        shape, extent=extent, origin=section.origin, periodic=configuration.boundary.periodic, comm=MPI.COMM_SELF
    )
    parameters = convert_parameters(kind.Parameters, configuration.parameters, configuration.source)
    kind(grid, parameters, lambda name: conditions(configuration, name))
    return grid.made


def _state(configuration: Configuration, fields: list[Field]) -> list[Field]:
    names = find_model(configuration.simulation.model).fields
    return [next(field for field in fields if field.name == name) for name in names]


def _bytes_of(field: Field, block: tuple[int, ...]) -> int:
    whole = tuple(count + 2 * width for count, width in zip(block, field.halo, strict=True))
    padded = math.prod(padded_shape(whole, field.dtype.itemsize))
    return padded * field.dtype.itemsize * math.prod(field.components)


def _time_lines(configuration: Configuration, comm: MPI.Intracomm, memory: int, state: int) -> list[str]:
    size = f"state        {_bytes(state)}: the size of an output of all fields"
    if memory > AFFORDABLE and configuration.time.dt is None:
        return [f"time         found at the start of a run: it takes {_bytes(memory)} a process to tell now", size]
    stable, model = math.inf, None
    if memory <= AFFORDABLE:
        model = build_model(configuration, comm)
        set_initial(model, configuration.initial)
        stable = model.stable_dt()
    steps = choose_steps(configuration.time, stable)
    if model:
        model.prepare(steps.dt)  # where a model checks what it can only know by now
    interval = output_interval(configuration.output, steps)
    count = sum(is_due(step, interval, steps.count) for step in range(steps.count + 1))
    return [
        f"time         {steps.count} steps of {steps.dt:.6g} s to {steps.count * steps.dt:.6g} s; the stable limit is "
        f"{stable:.6g} s",
        size,
        *_checkpoint_lines(configuration, steps, model),
        f"output       {count} file(s) in {configuration.simulation.directory}/output",
    ]


def _checkpoint_lines(configuration: Configuration, steps: Steps, model: Model | None) -> list[str]:
    section, fields = configuration.checkpoint, model.checkpointed.values() if model else ()
    size = sum(field.dtype.itemsize * math.prod(field.shape) for field in fields)
    each = f" of {_bytes(size)}" if size else ""
    if section.every_steps:
        count = sum(is_due(step, section.every_steps, steps.count) for step in range(1, steps.count + 1))
        return [f"checkpoints  {count}{each}, the latest {section.keep} are kept"]
    when = f"every {section.every_seconds:g} s" if section.every_seconds else "at an interval that a run finds"
    return [f"checkpoints  {when if section.periodic else 'only if the run is interrupted'}{each}"]


def _product(values: Any) -> str:
    return " x ".join(map(str, values))


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
