"""From the arguments of a call to a sweep over the block: checked and planned once, then reused.

Whatever writes points is called in the same way: fields in the order of its parameters, scalars by position or name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcframe.errors import InputError, nearest
from hpcframe.grid.exchange import HaloExchange
from hpcframe.grid.field import Field
from hpcframe.grid.halo import Reads, widths
from hpcframe.stencils.regions import Box, shares, split
from hpcframe.threads import team

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid

Scalar = float | complex


@dataclass(frozen=True)
class Call:
    """The shape of a call.

    Attributes:
        name: of the stencil, kernel or reduction; errors begin with it.
        parameters: all names in order; `fields` are those that take a Field.
        writes: fields that are written to.
        defaults: values of scalars that may be left out.
    """

    name: str
    parameters: tuple[str, ...]
    fields: tuple[str, ...]
    writes: tuple[str, ...]
    defaults: Mapping[str, Any]

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Field], dict[str, Scalar]]:
        """Sort arguments into fields and scalars.

        Raises:
            InputError: an argument is missing, unknown, given twice, or of the wrong kind.
        """
        if len(args) > len(self.parameters):
            raise InputError(f"{self.name}: takes {self._usage()}, got {len(args)} arguments")
        given = dict(zip(self.parameters, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.parameters:
                raise InputError(f"{self.name}: no parameter '{name}'{nearest(name, self.parameters)}")
            if name in given:
                raise InputError(f"{self.name}: '{name}' is given twice")
            given[name] = value
        missing = [name for name in self.parameters if name not in given and name not in self.defaults]
        if missing:
            raise InputError(f"{self.name}: takes {self._usage()}; missing: {', '.join(missing)}")
        values = {**self.defaults, **given}
        fields = {name: self._field(name, values[name]) for name in self.fields}
        return fields, {n: self.scalar(n, values[n]) for n in self.parameters if n not in self.fields}

    def _usage(self) -> str:
        return f"({', '.join(self.parameters)})"

    def _field(self, name: str, value: Any) -> Field:
        if not isinstance(value, Field):
            raise InputError(f"{self.name}: '{name}' is indexed by offsets, so it takes a Field; got {value!r:.80}")
        return value

    def scalar(self, name: str, value: Any) -> Scalar:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Field):
            raise InputError(f"{self.name}: '{name}' is never indexed by offsets, so it takes a number; got {value!r}")
        if not isinstance(value, bool | int | float | complex):
            raise InputError(f"{self.name}: '{name}' takes a number; got {value!r:.80}")
        # Whole numbers too become floating-point ones: 0 on one rank and 0.5 on another call the same compiled loop.
        return value if isinstance(value, complex) else float(value)

    def check(self, fields: Mapping[str, Field]) -> CartesianGrid:
        """The grid that all fields live on. Raises InputError where they do not fit together."""
        first = next(iter(fields.values()))
        grid = first.grid
        for field in fields.values():
            if field.grid is not grid:
                raise InputError(f"{self.name}: fields '{first.name}' and '{field.name}' live on different grids")
        self._check_writes(fields)
        return grid

    def _check_writes(self, fields: Mapping[str, Field]) -> None:
        for name in self.writes:
            twice = [other for other, field in fields.items() if other != name and field is fields[name]]
            if twice:
                raise InputError(
                    f"{self.name}: field '{fields[name].name}' is passed twice, as '{name}', which is written, and as "
                    f"'{twice[0]}': points are computed in any order, so give another field to write to"
                )
            if fields[name].frozen:
                raise InputError(f"{self.name}: field '{fields[name].name}' is frozen and cannot be written to")
        staggerings = {fields[name].staggered for name in self.writes}
        if len(staggerings) > 1:
            raise InputError(
                f"{self.name}: writes to fields staggered in different ways, {sorted(staggerings)}: they have "
                f"different points, so make one stencil for each"
            )


def reach(
    point_reads: Mapping[str, set[tuple[int, ...]]], fields: Mapping[str, Field], staggered: tuple[int, ...]
) -> dict[Field, Reads]:
    """The offsets at which each field's halo is read when the points of a staggering are computed."""
    reads: dict[Field, set[tuple[int, ...]]] = {}
    for name, indices in point_reads.items():
        field = fields[name]
        offsets = {where[len(field.components) :] for where in indices}
        for axis in staggered:
            # The last point of a staggered axis lies on the upper wall, beyond the last cell centre.
            if axis not in field.staggered and not field.grid.periodic[axis]:
                offsets |= {(*o[:axis], o[axis] + 1, *o[axis + 1 :]) for o in offsets}
        reads.setdefault(field, set()).update(offset for offset in offsets if any(offset))
    return {field: frozenset(offsets) for field, offsets in reads.items() if offsets}


def margins(grid: CartesianGrid, reads: Mapping[Field, Reads]) -> list[tuple[int, int]]:
    """For each axis the layers at its lower and upper side that read what a neighbour sends."""
    sides = []
    needed = [widths(offsets) for offsets in reads.values()]
    for axis in range(grid.ndim):
        lower, upper = (
            max((w[axis] for field in needed for o, w in field.items() if o[axis] == sign), default=0)
            if grid.decomposition.neighbour(grid.rank, [sign * (axis == a) for a in range(grid.ndim)])
            not in (None, grid.rank)
            else 0
            for sign in (-1, 1)
        )
        sides.append((lower, upper))
    return sides


class HaloReads:
    """The exchange before a sweep: nothing that is known to be fresh is sent again."""

    def __init__(self, grid: CartesianGrid, reads: Mapping[Field, Reads]) -> None:
        """Collective: plans."""
        self._grid = grid
        self._reads = reads
        self._needed = [(field, widths(offsets)) for field, offsets in reads.items()]
        self._stale: list[Field] = []
        self._exchange: HaloExchange | None = None
        if reads:  # halos must be wide enough before anybody addresses them
            self._exchange = grid.plan_exchange(reads)
            self._stale = list(reads)

    def start(self) -> HaloExchange | None:
        """Begin the exchange of what is stale; None where nothing is. Collective."""
        stale, changed = [], False
        for field, needed in self._needed:
            in_step = field.in_step(needed)
            if not (in_step and field.frozen):
                stale.append(field)
                changed = changed or not in_step
        if not stale or not (changed or self._exposed_anywhere(stale)):
            return None
        if stale != self._stale or self._exchange is None or not self._exchange.current:
            self._exchange = self._grid.plan_exchange({field: self._reads[field] for field in stale})
            self._stale = stale
        self._exchange.start()
        return self._exchange

    def _exposed_anywhere(self, fields: Sequence[Field]) -> bool:
        """Nothing that all ranks know of has changed; but a view on some rank may have been written through."""
        begin = perf_counter()
        exposed = bool(self._grid.comm.allreduce(any(field.exposed() for field in fields)))
        self._grid.seconds["wait"] += perf_counter() - begin
        return exposed


class Sweep:
    """One way of computing all points of the block: interior while messages travel, then borders.

    Attributes:
        interior: the boxes of each thread, in the order in which it computes them.
        borders: the boxes that wait for messages.
    """

    def __init__(
        self, grid: CartesianGrid, fields: Mapping[str, Field], call: Call, reads: Mapping[Field, Reads]
    ) -> None:
        """Collective: plans the exchange, and widens halos where needed."""
        self.halo = HaloReads(grid, reads)
        self._seconds = grid.seconds
        self.written = tuple(fields[name] for name in call.writes)
        interior, borders = split(self.written[0].local.points, margins(grid, reads))
        self.interior: list[list[Box]] = shares(interior, grid.threads, bool(borders))
        self.borders: list[Box] = borders
        self.planned_for(fields)

    def planned_for(self, fields: Mapping[str, Field]) -> None:
        """Say that this suits the fields as they are now."""
        self._generations = [(field, field.generation) for field in fields.values()]

    @property
    def current(self) -> bool:
        """Whether the fields still have the memory that this was planned for."""
        for field, generation in self._generations:  # noqa: SIM110  # in every step: quicker than all(...)
            if field.generation != generation:
                return False
        return True

    def run(self, compute: Callable[[Any], None], interior: Sequence[Sequence[Any]], borders: Any) -> None:
        """Compute all points. Collective.

        Args:
            compute: computes a piece, in any thread.
            interior, borders: those of this class, in the form that `compute` takes; borders None where there are none.
        """
        exchange = self.halo.start()
        for field in self.written:
            field.written()
        begin = perf_counter()
        try:
            if len(interior) == 1:
                _compute_share(compute, interior[0], exchange)
            else:
                team().run(
                    lambda member: _compute_share(compute, interior[member], None if member else exchange),
                    len(interior),
                )
        finally:  # an error here is no reason for neighbours to wait
            self._seconds["compute"] += perf_counter() - begin
            if exchange:
                exchange.finish()
        if borders is not None:
            begin = perf_counter()
            compute(borders)
            self._seconds["compute"] += perf_counter() - begin


def _compute_share(compute: Callable[[Any], None], pieces: Sequence[Any], exchange: HaloExchange | None) -> None:
    """Between pieces MPI gets the chance to go on with messages, which many libraries do only when they are called."""
    for number, piece in enumerate(pieces):
        if number and exchange:
            exchange.progress()
        compute(piece)
