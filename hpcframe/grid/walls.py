"""Boundary conditions applied: the part of a field's halo that lies beyond the domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

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

    def layer(self, distance: int) -> Block:
        """The layer this far beyond the outermost interior point (negative: inside, -1 is that point)."""
        at = self._start + self._count + distance if self.upper else self._start - 1 - distance
        block = list(self._ghost)
        block[self.axis] = slice(at, at + 1)
        return tuple(block)

    def layers(self) -> list[tuple[Block, Block]]:
        """(ghost, inside) pairs from the wall outwards; the wall runs through the outermost point if staggered."""
        return [(self.layer(m), self.layer(-1 - m - self.staggered)) for m in range(self.width)]

    def outermost(self) -> tuple[Block, Block]:
        return self.layer(-1), self.layer(-1)

    def mirror(self, time: float) -> tuple[list[float], list[complex]]:
        """Sign and shift for each layer: ghost = sign * inside + shift."""
        condition = self.condition
        if isinstance(condition, Dirichlet):
            value = _at(condition.value, time)
            return [-1.0] * self.width, [2 * value] * self.width
        assert isinstance(condition, Neumann)
        spacing = self.field.grid.spacing[self.axis]
        gradient = _at(condition.gradient, time)
        # The pair of points is 2m+1 half spacings apart, or 2m+2 where a point lies on the wall.
        return [1.0] * self.width, [gradient * (2 * m + 1 + self.staggered) * spacing for m in range(self.width)]

    def pinned(self, time: float) -> tuple[list[float], list[complex]]:
        """The same for the point on the wall itself, which takes the wall's value."""
        return [0.0], [_at(self.condition.value, time)]  # type: ignore[union-attr]

    def depends_on_time(self) -> bool:
        condition = self.condition
        return callable(condition.value if isinstance(condition, Dirichlet) else condition.gradient)  # type: ignore[union-attr]

    def fill(self, time: float) -> None:
        """Let the user's function fill the region."""
        ghost = [layer for layer, _ in self.layers()]
        inside = [layer for _, layer in self.layers()]
        side = Side(self._stacked(ghost), self._stacked(inside), self._coordinates(), time, self.axis, self.upper)
        self.condition(side)  # type: ignore[operator]  # the constructor of Walls has sorted the others out

    def _stacked(self, layers: Sequence[Block]) -> npt.NDArray:
        """A view of consecutive layers, the normal first and outwards, components last."""
        array = self.field.local_data
        lead = len(self.field.components)
        first, last = layers[0][self.axis].start, layers[-1][self.axis].start
        step = 1 if last >= first else -1
        stop = last + step
        block = list(layers[0])
        block[self.axis] = slice(first, stop if stop >= 0 else None, step)
        view = np.moveaxis(array[(..., *block)], lead + self.axis, 0)
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
        lead = (slice(None),) + (slice(0, 1),) * (3 - field.grid.ndim)
        layers = [pair for wall in walls for pair in ([wall.outermost()] if outermost else wall.layers())]
        self._table = mirror_table(field.four_axes, self._flat, [(lead + to, lead + at) for to, at in layers])
        self._timed = any(wall.depends_on_time() for wall in walls)
        self._factors = self._factors_at(field.grid.time)

    def _factors_at(self, time: float) -> tuple[npt.NDArray, npt.NDArray]:
        pairs = [wall.pinned(time) if self._outermost else wall.mirror(time) for wall in self._walls]
        signs = [sign for pair in pairs for sign in pair[0]]
        shifts = [shift for pair in pairs for shift in pair[1]]
        return np.array(signs, self._flat.dtype), np.array(shifts, self._flat.dtype)

    def fill(self, time: float) -> None:
        if self._timed:
            self._factors = self._factors_at(time)
        self._compiled(self._flat, self._table, *self._factors)


class Walls:
    """Regions of one field beyond the domain, filled in order."""

    def __init__(
        self, field: Field, regions: Sequence[tuple[Direction, Axes]], compiled: Callable[..., None]
    ) -> None:
        self._grid = field.grid
        walls = [Wall(field, direction, width) for direction, width in regions]
        pinned = [wall for wall in walls if wall.face and wall.staggered and isinstance(wall.condition, Dirichlet)]
        self._pins = [_Mirrored(field, compiled, pinned, outermost=True)] if pinned else []
        self._fills: list[_Mirrored | Wall] = []
        for standard, run in groupby(walls, lambda wall: isinstance(wall.condition, Dirichlet | Neumann)):
            self._fills += [_Mirrored(field, compiled, list(run), outermost=False)] if standard else list(run)

    def pin(self) -> None:
        """Set the points that lie on a Dirichlet wall; before neighbours are sent any of them."""
        for pins in self._pins:
            pins.fill(self._grid.time)

    def fill(self) -> None:
        """Fill the halo beyond the walls."""
        for fills in self._fills:
            fills.fill(self._grid.time)
