"""Boundary conditions applied: the part of a field's halo that lies beyond the domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcframe.grid.boundary import Dirichlet, Neumann, Side
from hpcframe.grid.copying import mirror_table
from hpcframe.grid.decomposition import Axes, Block
from hpcframe.grid.halo import Direction

if TYPE_CHECKING:
    from hpcframe.grid.boundary import Condition
    from hpcframe.grid.field import Field


class Wall:
    """One region beyond a wall: where it is, and how its layers follow from those inside."""

    def __init__(self, field: Field, direction: Direction, width: Axes) -> None:
        # A corner beyond several walls follows from the region beside it, filled before: reflect along the last axis.
        outside = [axis for axis, sign in enumerate(direction) if sign and _beyond(field, axis, sign)]
        self.field = field
        self.axis = outside[-1]
        self.upper = direction[self.axis] > 0
        self.width = width[self.axis]
        self.staggered = self.axis in field.staggered
        self.face = sum(map(abs, direction)) == 1
        self._ghost = field.local.ghost(direction, width)
        self._start = field.local.halo[self.axis]
        self._count = field.local.points[self.axis]

    @property
    def condition(self) -> Condition:
        return self.field.boundary[self.axis, int(self.upper)]

    def _layers(self, first: int, count: int) -> Block:
        """Consecutive layers, the nearest to the wall first, from a distance beyond the outermost point (-1 is that
        point itself), outwards for ghosts and inwards for what they mirror."""
        outwards = 1 if (first >= 0) == self.upper else -1
        at = self._start + self._count + first if self.upper else self._start - 1 - first
        stop = at + outwards * count
        block = list(self._ghost)
        block[self.axis] = slice(at, stop if stop >= 0 else None, outwards)
        return tuple(block)

    @property
    def ghost(self) -> Block:
        """The halo layers, from the wall outwards."""
        return self._layers(0, self.width)

    @property
    def inside(self) -> Block:
        """The layers that they mirror, from the wall inwards; a staggered field's outermost point is on the wall."""
        return self._layers(-1 - self.staggered, self.width)

    @property
    def outermost(self) -> Block:
        """The outermost interior layer."""
        return self._layers(-1, 1)

    def mirror(self, time: float) -> tuple[float, complex, complex]:
        """sign, shift and slope: layer m is sign * inside + (shift + m * slope)."""
        condition = self.condition
        if isinstance(condition, Dirichlet):
            return -1.0, 2 * _at(condition.value, time), 0.0
        assert isinstance(condition, Neumann)
        # A pair of points is 2m+1 half spacings apart, or 2m+2 where a point lies on the wall.
        rise = _at(condition.gradient, time) * self.field.grid.spacing[self.axis]
        return 1.0, rise * (1 + self.staggered), 2 * rise

    def pinned(self, time: float) -> tuple[float, complex, complex]:
        """The same for the point on the wall itself, which takes the wall's value."""
        return 0.0, _at(self.condition.value, time), 0.0  # type: ignore[union-attr]

    def depends_on_time(self) -> bool:
        condition = self.condition
        return callable(condition.value if isinstance(condition, Dirichlet) else condition.gradient)  # type: ignore[union-attr]

    def fill(self, time: float) -> None:
        """Let the user's function fill the region."""
        views = (self._view(self.ghost), self._view(self.inside))
        side = Side(*views, self._coordinates(), time, self.axis, self.upper)
        self.condition(side)  # type: ignore[operator]  # the constructor of Walls has sorted the others out

    def _view(self, block: Block) -> npt.NDArray:
        """Layers with the normal first and components last."""
        lead = len(self.field.components)
        index: tuple[Any, ...] = (..., *block)
        view = np.moveaxis(self.field.local_data[index], lead + self.axis, 0)
        return np.moveaxis(view, range(1, lead + 1), range(-lead, 0)) if lead else view

    def _coordinates(self) -> tuple[npt.NDArray, ...]:
        field, grid = self.field, self.field.grid
        parts = tuple(
            slice(own.start + ghost.start - halo, own.start + ghost.stop - halo)
            for own, ghost, halo in zip(field.block, self._ghost, field.halo, strict=True)
        )
        arrays = grid.coordinates_of(parts, field.staggered)
        if not self.upper:
            arrays = tuple(np.flip(array, self.axis) for array in arrays)
        return tuple(np.moveaxis(array, self.axis, 0) for array in arrays)


def _beyond(field: Field, axis: int, sign: int) -> bool:
    grid = field.grid
    at = grid.coordinates[axis] + sign
    return not grid.periodic[axis] and not 0 <= at < grid.layout[axis]


def _at(value: object, time: float) -> complex:
    return value(time) if callable(value) else value  # type: ignore[return-value]


class _Mirrored:
    """Consecutive walls of Dirichlet and Neumann conditions: one compiled call."""

    def __init__(self, field: Field, compiled: Callable[..., None], walls: Sequence[Wall], outermost: bool) -> None:
        self._compiled = compiled
        self._walls = walls
        self._outermost = outermost
        self._flat = field.storage
        self._table = mirror_table(self._flat, [self._region(wall) for wall in walls])
        self._timed = any(wall.depends_on_time() for wall in walls)
        # Functions of time are the user's: they are called in fill(), where an error reaches every rank.
        self._factors = [] if self._timed else self._factors_at(field.grid.time)

    def _region(self, wall: Wall) -> tuple[npt.NDArray, npt.NDArray, int]:
        missing = 3 - wall.field.grid.ndim
        lead = (slice(None),) + (slice(0, 1),) * missing
        to, at = (wall.outermost,) * 2 if self._outermost else (wall.ghost, wall.inside)
        array = wall.field.four_axes
        return array[lead + to], array[lead + at], 1 + missing + wall.axis

    def _factors_at(self, time: float) -> list[npt.NDArray]:
        factors = [wall.pinned(time) if self._outermost else wall.mirror(time) for wall in self._walls]
        return [np.array(column, self._flat.dtype) for column in zip(*factors, strict=True)]

    def fill(self, time: float) -> None:
        if self._timed:
            self._factors = self._factors_at(time)
        self._compiled(self._flat, self._table, *self._factors, 0, len(self._table))


class Walls:
    """Regions of one field beyond the domain, filled in order."""

    def __init__(self, field: Field, regions: Sequence[tuple[Direction, Axes]], compiled: Callable[..., None]) -> None:
        self._grid = field.grid
        walls = [Wall(field, direction, width) for direction, width in regions]
        pinned = [wall for wall in walls if wall.face and wall.staggered and isinstance(wall.condition, Dirichlet)]
        self._pins = [_Mirrored(field, compiled, pinned, outermost=True)] if pinned else []
        self._fills: list[_Mirrored | Wall] = []
        for standard, run in groupby(walls, lambda wall: isinstance(wall.condition, Dirichlet | Neumann)):
            same = list(run)
            self._fills += [_Mirrored(field, compiled, same, outermost=False)] if standard else same

    @property
    def has_pins(self) -> bool:
        """Whether points lie on a wall whose value is given."""
        return bool(self._pins)

    def pin(self) -> None:
        """Set the points that lie on a Dirichlet wall; before neighbours are sent any of them."""
        for pins in self._pins:
            pins.fill(self._grid.time)

    def fill(self) -> None:
        """Fill the halo beyond the walls."""
        for fills in self._fills:
            fills.fill(self._grid.time)
