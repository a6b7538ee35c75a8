"""What to exchange, planned without MPI: from the offsets that readers read to regions, messages and copies.

A direction is a tuple of -1, 0 and 1, one an axis: (1, 0, 0) is the upper face of the first axis, (1, 1, 0) an edge.
Only directions that some offset reaches are exchanged: a star stencil sends faces, a box stencil edges and corners.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from hpcframe.errors import InputError
from hpcframe.grid.decomposition import Axes, Block, Decomposition

Offset = tuple[int, ...]
Direction = tuple[int, ...]
Reads = frozenset[Offset]


def widths(reads: Iterable[Offset]) -> dict[Direction, Axes]:
    """Per direction that the offsets reach: how many layers along each axis, 0 where the direction is 0."""
    needed: dict[Direction, Axes] = {}
    for offset in reads:
        signs = [(0, (step > 0) - (step < 0)) if step else (0,) for step in offset]
        for direction in product(*signs):
            if any(direction):
                reach = tuple(abs(step) if sign else 0 for step, sign in zip(offset, direction, strict=True))
                known = needed.get(direction, reach)
                needed[direction] = tuple(map(max, known, reach))
    return dict(sorted(needed.items(), key=lambda item: (sum(map(abs, item[0])), item[0])))


def box_reads(halo: Axes) -> Reads:
    """Offsets that reach every layer of a halo, corners included."""
    return frozenset(product(*((-width, 0, width) if width else (0,) for width in halo)))


def halo_of(reads: Iterable[Offset], ndim: int) -> Axes:
    """The halo along each axis that the offsets need."""
    return tuple(max((abs(offset[axis]) for offset in reads), default=0) for axis in range(ndim))


def check_halo(name: str, halo: Axes, decomposition: Decomposition, staggered: Sequence[int] = ()) -> None:
    """Refuse a halo wider than the smallest block: its cells would belong to a neighbour's neighbour.

    A staggered field's halo beyond a wall mirrors one layer further in, so it has to be narrower by one.

    Raises:
        InputError: the same on every rank, since it depends on the decomposition alone.
    """
    for axis, (width, cells) in enumerate(zip(halo, decomposition.smallest, strict=True)):
        cut = decomposition.layout[axis] > 1
        mirrors_further = axis in staggered and cut and not decomposition.periodic[axis]
        if width > cells - (mirrors_further and width > 0):
            raise InputError(
                f"field '{name}' needs a halo of {width} along axis {axis}"
                f"{', and one layer more as it is staggered' if mirrors_further else ''}, but the smallest of the "
                f"{decomposition.layout[axis]} blocks there has {cells} cells (grid {list(decomposition.shape)} on "
                f"{list(decomposition.layout)} ranks): run on fewer ranks, give a rank layout with fewer blocks "
                f"along axis {axis}, or enlarge the grid"
            )


@dataclass(frozen=True)
class Shape:
    """The local array of a field: interior points and halo layers along each axis."""

    points: Axes
    halo: Axes

    def interior(self) -> Block:
        return tuple(slice(width, width + count) for count, width in zip(self.points, self.halo, strict=True))

    def ghost(self, direction: Direction, width: Axes) -> Block:
        """The halo region in a direction."""
        return tuple(map(self._ghost, direction, width, self.points, self.halo))

    def edge(self, direction: Direction, width: Axes) -> Block:
        """The interior points next to the block's side in a direction: what the neighbour there reads."""
        return tuple(map(self._edge, direction, width, self.points, self.halo))

    @staticmethod
    def _ghost(sign: int, width: int, count: int, halo: int) -> slice:
        if sign == 0:
            return slice(halo, halo + count)
        return slice(halo - width, halo) if sign < 0 else slice(halo + count, halo + count + width)

    @staticmethod
    def _edge(sign: int, width: int, count: int, halo: int) -> slice:
        if sign == 0:
            return slice(halo, halo + count)
        return slice(halo, halo + width) if sign < 0 else slice(halo + count - width, halo + count)


@dataclass
class Transfers:
    """The regions of one field that a rank sends, receives, copies within itself, and fills at the domain's edge.

    `sends` and `receives` map a neighbour to regions in the order in which they lie in the one message to or from
    it: by the sender's direction, which the receiver sees as its opposite.
    """

    sends: dict[int, list[Block]] = field(default_factory=dict)
    receives: dict[int, list[Block]] = field(default_factory=dict)
    copies: list[tuple[Block, Block]] = field(default_factory=list)  # (to, from)
    edges: list[Direction] = field(default_factory=list)  # directions that leave the domain


def plan_transfers(
    decomposition: Decomposition, rank: int, shape: Shape, needed: Mapping[Direction, Axes]
) -> Transfers:
    """What one rank does so that the halo of one field is filled in every direction of `needed`."""
    plan = Transfers()
    for direction in sorted(needed):
        opposite = tuple(-sign for sign in direction)
        source = decomposition.neighbour(rank, direction)
        target = decomposition.neighbour(rank, opposite)
        if target is not None and target != rank:
            plan.sends.setdefault(target, []).append(shape.edge(opposite, needed[direction]))
        if source is None:
            plan.edges.append(direction)
        elif source == rank:
            plan.copies.append((shape.ghost(direction, needed[direction]), shape.edge(opposite, needed[direction])))
        else:
            plan.receives.setdefault(source, []).append(shape.ghost(direction, needed[direction]))
    plan.edges.sort(key=lambda direction: (sum(map(abs, direction)), direction))
    return plan
