"""How a grid is cut into blocks, one a rank: pure functions, no MPI.

The layout (blocks along each axis) is searched, not guessed: every factorisation of the number of ranks is tried
and the one with the least surface to communicate on *this* grid is taken. Where nodes hold equal numbers of ranks, a
node's ranks own one compact box; surface between nodes is counted before surface within them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcframe.errors import InputError

Axes = tuple[int, ...]
Block = tuple[slice, ...]


def cuts(cells: int, parts: int) -> tuple[int, ...]:
    """Where an axis of `cells` is cut into `parts` blocks: parts + 1 positions; lengths differ by at most one."""
    return tuple(part * cells // parts for part in range(parts + 1))


def factorisations(number: int, ndim: int) -> Iterator[Axes]:
    """Every tuple of `ndim` positive integers whose product is `number`."""
    if ndim == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in factorisations(number // first, ndim - 1):
                yield (first, *rest)


def surface(shape: Axes, layout: Axes, periodic: Sequence[bool]) -> int:
    """Cells on one side of all the cuts of a layout: proportional to what an exchange sends."""
    cells = math.prod(shape)
    total = 0
    for length, parts, wraps in zip(shape, layout, periodic, strict=True):
        if parts > 1:
            total += (parts if wraps else parts - 1) * (cells // length)
    return total


def largest_block(shape: Axes, layout: Axes) -> int:
    """Cells of the largest block: the rank that everybody waits for."""
    return math.prod(-(-length // parts) for length, parts in zip(shape, layout, strict=True))


@dataclass(frozen=True)
class Layout:
    """Blocks along each axis, as boxes of `node` blocks that stay within a node."""

    ranks: Axes
    node: Axes


def choose_layout(
    shape: Axes, ranks: int, periodic: Sequence[bool], wanted: Axes | None = None, group: int | None = None
) -> Layout | None:
    """The layout with the least surface, or None where no layout leaves every rank a cell.

    Args:
        shape: cells along each axis.
        ranks: number of blocks.
        periodic: whether each axis wraps around.
        wanted: blocks along each axis as the user gave them; 0 leaves an axis free.
        group: ranks that share a node; it divides `ranks`. None: all of them.
    """
    group = ranks if group is None else group
    wanted = wanted or (0,) * len(shape)
    best: tuple[tuple[int, ...], Layout] | None = None
    for outer in factorisations(ranks // group, len(shape)):
        between = surface(shape, outer, periodic)
        for inner in factorisations(group, len(shape)):
            layout = tuple(o * i for o, i in zip(outer, inner, strict=True))
            if not _fits(shape, layout, wanted):
                continue
            # Ties go to blocks of equal size, then to long rows: the last axis is contiguous in memory.
            cost = (between, surface(shape, layout, periodic), largest_block(shape, layout), *reversed(layout))
            if best is None or cost < best[0]:
                best = (cost, Layout(layout, inner))
    return best[1] if best else None


def _fits(shape: Axes, layout: Axes, wanted: Axes) -> bool:
    return all(
        parts <= length and want in (0, parts) for length, parts, want in zip(shape, layout, wanted, strict=True)
    )


@dataclass(frozen=True)
class Decomposition:
    """Who owns what. `rank_at_place` maps a block's place (row-major over `layout`) to the rank that owns it."""

    shape: Axes
    periodic: tuple[bool, ...]
    layout: Axes
    rank_at_place: tuple[int, ...]

    @cached_property
    def _place_of_rank(self) -> tuple[int, ...]:
        return tuple(sorted(range(self.ranks), key=self.rank_at_place.__getitem__))

    @cached_property
    def _cuts(self) -> tuple[Axes, ...]:
        return tuple(map(cuts, self.shape, self.layout))

    @property
    def ranks(self) -> int:
        return len(self.rank_at_place)

    def coordinates(self, rank: int) -> Axes:
        """The block's position in the layout."""
        return unravel(self._place_of_rank[rank], self.layout)

    def rank_at(self, coordinates: Sequence[int]) -> int | None:
        """The rank at a position, wrapped around periodic axes; None outside the domain."""
        place = 0
        for at, parts, wraps in zip(coordinates, self.layout, self.periodic, strict=True):
            if not 0 <= at < parts and not wraps:
                return None
            place = place * parts + at % parts
        return self.rank_at_place[place]

    def neighbour(self, rank: int, direction: Sequence[int]) -> int | None:
        """The rank next to `rank`, one step of -1, 0 or 1 along each axis; None at the edge of the domain."""
        return self.rank_at([at + step for at, step in zip(self.coordinates(rank), direction, strict=True)])

    def block(self, rank: int, staggered: Sequence[int] = ()) -> Block:
        """The slice of the global array that a rank owns.

        A field staggered along an axis lives on cell faces: on an axis that is not periodic it has one point more
        than there are cells, and the last block owns it.
        """
        return tuple(self.along(axis, axis in staggered)[at] for axis, at in enumerate(self.coordinates(rank)))

    def along(self, axis: int, staggered: bool = False) -> tuple[slice, ...]:
        """The points of each block along one axis."""
        cut = self._cuts[axis]
        last = cut[-1] + int(staggered and not self.periodic[axis])
        return tuple(map(slice, cut[:-1], (*cut[1:-1], last)))

    def points(self, staggered: Sequence[int] = ()) -> Axes:
        """Shape of a global array of this staggering."""
        return tuple(
            length + int(axis in staggered and not self.periodic[axis]) for axis, length in enumerate(self.shape)
        )

    @property
    def smallest(self) -> Axes:
        """The least number of cells that any block has along each axis: no halo may be wider."""
        return tuple(length // parts for length, parts in zip(self.shape, self.layout, strict=True))


def unravel(place: int, layout: Axes) -> Axes:
    """Row-major place -> position along each axis."""
    position = []
    for parts in reversed(layout):
        place, at = divmod(place, parts)
        position.append(at)
    return tuple(reversed(position))


def decompose(
    shape: Axes, periodic: tuple[bool, ...], node_of_rank: Sequence[int], wanted: Axes | None = None
) -> Decomposition:
    """Cut a grid over ranks that run on the given nodes.

    Args:
        shape: cells along each axis (1 to 3 axes).
        periodic: whether each axis wraps around.
        node_of_rank: for each rank the number of the node it runs on.
        wanted: blocks along each axis; 0 leaves an axis free.

    Raises:
        InputError: no layout gives every rank at least one cell.
    """
    ranks = len(node_of_rank)
    # Where nodes hold unequal numbers of ranks, boxes of their greatest common divisor still stay within a node.
    group = math.gcd(*Counter(node_of_rank).values())
    layout = choose_layout(shape, ranks, periodic, wanted, group)
    if layout is None:
        raise InputError(_why_impossible(shape, ranks, wanted))
    return Decomposition(shape, periodic, layout.ranks, _place_ranks(layout, node_of_rank, group))


def _place_ranks(layout: Layout, node_of_rank: Sequence[int], group: int) -> tuple[int, ...]:
    """Ranks sorted by node fill one box of the layout after another."""
    boxes = tuple(total // inner for total, inner in zip(layout.ranks, layout.node, strict=True))
    rank_at_place = [0] * len(node_of_rank)
    by_node = sorted(range(len(node_of_rank)), key=lambda rank: (node_of_rank[rank], rank))
    for number, rank in enumerate(by_node):
        box, within = divmod(number, group)
        position = (
            outer * size + inner
            for outer, size, inner in zip(unravel(box, boxes), layout.node, unravel(within, layout.node), strict=True)
        )
        place = 0
        for at, parts in zip(position, layout.ranks, strict=True):
            place = place * parts + at
        rank_at_place[place] = rank
    return tuple(rank_at_place)


def _why_impossible(shape: Axes, ranks: int, wanted: Axes | None) -> str:
    grid = " x ".join(map(str, shape))
    free = (False,) * len(shape)
    fewer = next((n for n in range(ranks - 1, 0, -1) if choose_layout(shape, n, free, wanted)), None)
    more = next((n for n in range(ranks + 1, 2 * ranks + 1) if choose_layout(shape, n, free, wanted)), None)
    remedy = " or ".join(str(n) for n in (fewer, more) if n)
    asked = f" as {list(wanted)}" if wanted and any(wanted) else ""
    if wanted and any(want > length for want, length in zip(wanted, shape, strict=True)):
        return (
            f"a rank layout of {list(wanted)} cuts a grid of {grid} cells into empty blocks: give fewer ranks an axis"
        )
    if not remedy:
        return f"{ranks} ranks cannot be laid out{asked} on {grid} cells: change or leave out the rank layout"
    return f"{ranks} ranks cannot each own a block of {grid} cells{asked}: run with {remedy} ranks, or a larger grid"
