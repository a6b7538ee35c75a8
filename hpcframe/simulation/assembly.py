"""From a configuration to the grid and the model that it describes."""

from __future__ import annotations

from mpi4py import MPI

from hpcframe.grid.boundary import Condition, Dirichlet, Neumann
from hpcframe.simulation import schema
from hpcframe.simulation.configuration import Configuration, check_names, convert_parameters
from hpcframe.simulation.expression import Expression
from hpcframe.simulation.model import Model, find_model
from hpcframe.stencils.reductions import Grid


def build_model(configuration: Configuration, comm: MPI.Intracomm) -> Model:
    """The grid and the model that a configuration describes. Collective."""
    kind = find_model(configuration.simulation.model)
    check_names(configuration, kind.fields, kind.states())
    parameters = convert_parameters(kind.Parameters, configuration.parameters, configuration.source)
    section = configuration.grid
    grid = Grid(
        section.shape,
        extent=section.extent,
        origin=section.origin,
        periodic=configuration.boundary.periodic,
        ranks=section.ranks,
        comm=comm,
    )
    grid.time_blocking = configuration.time.blocking
    return kind(grid, parameters, lambda name: conditions(configuration, name))


def conditions(configuration: Configuration, name: str) -> dict[tuple[int, int], Condition]:
    """The boundary conditions of a field by wall."""
    found = configuration.boundary.conditions(name)
    return {wall: _condition(condition) for wall, condition in found.items()}


def _condition(section: schema.Condition) -> Condition:
    value = Expression(section.value, ("t",)) if isinstance(section.value, str) else section.value
    return Dirichlet(value) if section.kind == "dirichlet" else Neumann(value)
