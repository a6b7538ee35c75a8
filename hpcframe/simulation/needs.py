"""What a model needs on its grid, known without its memory: it is asked on a small grid of the same spacing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

from hpcframe.errors import InputError
from hpcframe.grid.decomposition import Axes, Decomposition, decompose
from hpcframe.grid.field import Field
from hpcframe.grid.halo import check_halo
from hpcframe.grid.memory import padded_shape
from hpcframe.simulation.assembly import conditions
from hpcframe.simulation.configuration import Configuration, check_names, convert_parameters
from hpcframe.simulation.model import Model, find_model
from hpcframe.stencils.reductions import Grid

SMALL = 32  # cells an axis of the grid on which the model is asked for its fields


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


@dataclass(frozen=True)
class Needs:
    """What a configuration's model needs.

    Attributes:
        fields: all fields that the model makes, those of a small grid.
        state: those of them that can be written out.
        checkpointed: those that a restart needs; none where the model makes them later.
        bytes_a_point: that a step must move.
    """

    configuration: Configuration
    fields: tuple[Field, ...]
    state: tuple[Field, ...]
    checkpointed: tuple[Field, ...]
    bytes_a_point: int

    def decomposition(self, ranks: int, ranks_a_node: int | None = None) -> Decomposition:
        """How that many ranks share the grid; all on one node if not told.

        Raises:
            InputError: they cannot.
        """
        section, a_node = self.configuration.grid, ranks_a_node or ranks
        nodes = [rank // a_node for rank in range(ranks)]
        plan = decompose(section.shape, self.configuration.boundary.periodic, nodes, section.ranks)
        for field in self.fields:
            check_halo(field.name, field.halo, plan, field.staggered)
        return plan

    def fits(self, ranks: int) -> bool:
        """Whether that many ranks can share the grid."""
        try:
            self.decomposition(ranks)
        except InputError:
            return False
        return True

    def memory_a_rank(self, plan: Decomposition) -> int:
        """Bytes of all fields on the rank with the largest block."""
        return sum(_bytes_of(field, largest(plan)) for field in self.fields)

    def state_bytes(self) -> int:
        """Bytes of an output of all fields, about."""
        return sum(_bytes_a_point(field) for field in self.state) * math.prod(self.configuration.grid.shape)

    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint; 0 where the model does not tell."""
        return sum(_bytes_a_point(field) * math.prod(self._points(field)) for field in self.checkpointed)

    def _points(self, field: Field) -> Axes:
        section, periodic = self.configuration.grid, self.configuration.boundary.periodic
        return Decomposition(section.shape, periodic, (1,) * len(periodic), (0,)).points(field.staggered)


def needs_of(configuration: Configuration) -> Needs:
    """Ask the model. Not collective.

    Raises:
        InputError: the configuration and the model do not go together.
    """
    kind = find_model(configuration.simulation.model)
    check_names(configuration, kind.fields, kind.states())
    section = configuration.grid
    shape = tuple(min(SMALL, length) for length in section.shape)
    extent = tuple(s * e / n for s, e, n in zip(shape, section.extent, section.shape, strict=True))
    grid = _RecordingGrid(
        shape, extent=extent, origin=section.origin, periodic=configuration.boundary.periodic, comm=MPI.COMM_SELF
    )
    parameters = convert_parameters(kind.Parameters, configuration.parameters, configuration.source)
    model = kind(grid, parameters, lambda name: conditions(configuration, name))
    state = tuple(next(field for field in grid.made if field.name == name) for name in kind.fields)
    return Needs(configuration, tuple(grid.made), state, _checkpointed(model), model.bytes_a_point())


def _checkpointed(model: Model) -> tuple[Field, ...]:
    names = (*model.fields, *model.history)
    known = all(hasattr(model, name) for name in names)  # `prepare` may make some, and that knows the real grid
    return tuple(model.checkpointed.values()) if known else ()


def largest(plan: Decomposition) -> Axes:
    """The most cells that any block has along each axis."""
    return tuple(-(-length // parts) for length, parts in zip(plan.shape, plan.layout, strict=True))


def _bytes_of(field: Field, block: Axes) -> int:
    whole = tuple(count + 2 * width for count, width in zip(block, field.halo, strict=True))
    return math.prod(padded_shape(whole, field.dtype.itemsize)) * _bytes_a_point(field)


def _bytes_a_point(field: Field) -> int:
    return field.dtype.itemsize * math.prod(field.components)
