"""Ghost points beyond walls, right after the points that they mirror are computed: rows for the compiled mirror.

A field is mirrored box by box, in the same way as by `grid.walls` and with the same arithmetic, as it would be after a
whole sweep. Pure, no MPI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcframe.grid.decomposition import Axes
from hpcframe.grid.halo import Direction
from hpcframe.grid.walls import Wall

if TYPE_CHECKING:
    from hpcframe.grid.field import Field

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ghosts:
    """What follows from each of some boxes.

    Attributes:
        dtype: of the field.
        walls: what is mirrored, and how, a direction each.
        table: a row a mirrored region, as `compile_mirror` takes them.
        kinds: for each row which of the walls it belongs to.
        boxes: for each row which box it follows from.
        ends: where the rows of each box end: those of box k are table[ends[k] : ends[k + 1]].
    """

    dtype: np.dtype
    walls: Sequence[Wall]
    table: Numbers
    kinds: Numbers
    boxes: Numbers
    ends: Numbers

    def factors(self, steps: Numbers, times: Sequence[float]) -> list[npt.NDArray]:
        """Sign, shift and slope of each row. Calls functions of the user's where walls depend on time.

        Args:
            steps: that each box belongs to.
            times: (s) after each step, when its results are mirrored.
        """
        mirrors = [[wall.mirror(time) for wall in self.walls] for time in times]
        values = np.array(mirrors, self.dtype).reshape(len(times), len(self.walls), 3)
        rows = values[steps[self.boxes], self.kinds]
        return [np.ascontiguousarray(column) for column in rows.T]


def ghosts_of(field: Field, walls: Mapping[Direction, Axes], boxes: Numbers) -> Ghosts:
    """The ghost points that mirror points of boxes.

    Args:
        walls: directions that leave the domain, and how many layers are needed along each axis.
        boxes: (number, axes, 2): begin and end of each box, counted from the first point of the block.
    """
    order = sorted(walls, key=lambda direction: (sum(map(abs, direction)), direction))
    parts = [_rows(field, direction, walls[direction], boxes) for direction in order]
    numbers = np.concatenate([which for which, _ in parts] or [np.zeros(0, np.int64)])
    rows = np.concatenate([table for _, table in parts] or [np.zeros((0, 16), np.int64)])
    kinds = np.repeat(np.arange(len(parts)), [len(which) for which, _ in parts])
    sorting = np.argsort(numbers, kind="stable")  # box by box, within a box in the order of directions
    return Ghosts(
        field.dtype,
        [Wall(field, direction, walls[direction]) for direction in order],
        np.ascontiguousarray(rows[sorting]),
        kinds[sorting],
        numbers[sorting],
        np.searchsorted(numbers[sorting], np.arange(len(boxes) + 1)),
    )


def _rows(field: Field, direction: Direction, width: Axes, boxes: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers of the boxes that have ghosts in a direction, and a row of the table for each."""
    outside = [axis for axis, sign in enumerate(direction) if sign]
    layers = {axis: _layers(direction[axis], width[axis], field.local.points[axis], boxes[:, axis]) for axis in outside}
    which = np.flatnonzero(np.all([first < last for first, last in layers.values()], axis=0))
    start, strides = field.addressing()
    along = strides[len(field.components) :]
    to = np.full(len(which), start, np.int64)
    counts, steps = [], []
    for axis, stride in enumerate(along):
        if axis in layers:
            first, last = (bound[which] for bound in layers[axis])
            upper = direction[axis] > 0
            to += (field.local.points[axis] + first if upper else -1 - first) * stride
            counts.append(last - first)
            steps.append(stride if upper else -stride)
        else:
            to += boxes[which, axis, 0] * stride
            counts.append(boxes[which, axis, 1] - boxes[which, axis, 0])
            steps.append(stride)
    return which, _table(field, outside[-1], direction[outside[-1]], to, counts, steps, layers[outside[-1]][0][which])


def _layers(sign: int, width: int, points: int, bounds: Numbers) -> tuple[Numbers, Numbers]:
    """The layers from the wall inwards, the first 0, that boxes have points in: first, and one past the last."""
    begin, end = bounds[:, 0], bounds[:, 1]
    if sign < 0:
        return np.maximum(begin, 0), np.minimum(end, width)
    return points - np.minimum(end, points), points - np.maximum(begin, points - width)


def _table(
    field: Field, axis: int, sign: int, to: Numbers, counts: Sequence[Numbers], steps: Sequence[int], first: Numbers
) -> Numbers:
    """Rows that mirror along `axis`: see `grid.copying`. Missing axes have length one, components come first."""
    missing = 3 - len(counts)
    _, strides = field.addressing()
    stride = steps[axis]
    inwards = [-step if k == axis else step for k, step in enumerate(steps)]
    # Layer 0 of the ghosts is one step beyond the outermost point, layer m lies 2 m + 1 steps from what it mirrors.
    at = to - (2 * first + 1) * stride
    components = int(np.prod(field.components, dtype=int))
    columns = [
        to, at, components, *[1] * missing, *counts,
        strides[len(field.components) - 1] if field.components else 0, *[0] * missing, *steps,
        strides[len(field.components) - 1] if field.components else 0, *[0] * missing, *inwards,
        1 + missing + axis, first,
    ]  # fmt: skip
    return np.stack([np.broadcast_to(np.asarray(column), to.shape) for column in columns], axis=1).astype(np.int64)
