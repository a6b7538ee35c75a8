"""Several steps in one pass over memory: which boxes of points are computed in which order. Pure, no MPI.

A wavefront runs over the planes of the first axis: step t follows step t - 1 at the distance that the stencil reaches,
so that it finds its neighbours computed and still in the cache, and overwrites what nobody reads any more. In three
dimensions planes are cut into bands of rows, skewed in the same way. No point is computed twice, but for those
beyond the block that a neighbour computes too: each step there ends one reach earlier than the one before.

Threads take bands in turn. What a band does in its turn k reads, and overwrites, only what the band before it has done
with after its own turn k: that is all they have to wait for.

M. Wolfe, More iteration space tiling, Supercomputing 1989; T. Malas et al., SIAM J. Sci. Comput. 37 (2015), C439-C464.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpcframe.grid.decomposition import Axes
from hpcframe.stencils.regions import Box


class Piece(NamedTuple):
    """Points that are computed at once: those of `box`, in step `step`, by turn `turn` of band `band`."""

    band: int
    turn: int
    step: int
    box: Box


@dataclass(frozen=True)
class Wavefront:
    """Steps over a block.

    Attributes:
        points: of the block along each axis.
        beyond: for each axis whether points beyond the lower and the upper side are computed, too: a neighbour's.
        reach: how far the stencil reads along each axis.
        depth: steps in one pass.
        planes: planes of the first axis that are computed at once.
        rows: of the second of three axes that are computed at once.
    """

    points: Axes
    beyond: Sequence[tuple[bool, bool]]
    reach: Axes
    depth: int
    planes: int
    rows: int

    def bounds(self, axis: int, step: int) -> tuple[int, int]:
        """The points along an axis that a step computes."""
        more = (self.depth - 1 - step) * self.reach[axis]
        lower, upper = self.beyond[axis]
        return -more * lower, self.points[axis] + more * upper

    def pieces(self) -> Iterator[Piece]:
        """All pieces, in an order in which each finds what it reads: bands, and in each band turns, in ascending order.

        Bands are of rows in three dimensions, and their turns are planes; else they are of planes, and turns are steps.
        """
        if len(self.points) == 3:
            for band, row in enumerate(self._positions(1, self.rows)):
                for turn, plane in enumerate(self._positions(0, self.planes)):
                    for step in range(self.depth):
                        yield from self._piece(band, turn, step, plane, row)
        else:
            for band, plane in enumerate(self._positions(0, self.planes)):
                for step in range(self.depth):
                    yield from self._piece(band, step, step, plane)

    def _piece(self, band: int, turn: int, step: int, plane: int, row: int | None = None) -> Iterator[Piece]:
        """The piece where the front of the first step begins at a plane, and a row; nothing where it has no points."""
        box = [self.bounds(axis, step) for axis in range(len(self.points))]
        box[0] = self._front(0, step, plane, self.planes)
        if row is not None:
            box[1] = self._front(1, step, row, self.rows)
        if all(begin < end for begin, end in box):
            yield Piece(band, turn, step, tuple(box))

    def _positions(self, axis: int, size: int) -> range:
        """Where the front of the first step begins, until that of the last step has passed all points."""
        begin, end = self.bounds(axis, 0)
        return range(begin, end + (self.depth - 1) * self.reach[axis], size)

    def _front(self, axis: int, step: int, position: int, size: int) -> tuple[int, int]:
        lower, upper = self.bounds(axis, step)
        begin = position - step * self.reach[axis]
        return max(begin, lower), min(begin + size, upper)
