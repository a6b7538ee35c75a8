"""Tiles: the boxes in which a checkpoint holds an array, the same on any number of ranks. Pure functions, no MPI.

A tile is whole in one place of a file and is written by one rank, so no two ranks touch the same bytes. It belongs to
the rank that holds the most of it: with blocks and tiles cut alike, most tiles do not leave their rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy.typing as npt

from hpcframe.grid.decomposition import Axes, Block, Decomposition

TILE_BYTES = 4 * 2**20  # large enough for a disk and a stripe, small enough for a share of the last-level cache
MOST_TILES = 2**16  # of an array: above that tiles grow, so that manifests stay small


def tile_shape(shape: Axes, components: int, itemsize: int) -> Axes:
    """The shape of the tiles of an array whose first `components` axes are not cut.

    The longest axis is halved until a tile is small enough; so tiles differ little, and blocks whose number along an
    axis is a power of two end where tiles do.
    """
    most = max(TILE_BYTES, math.prod(shape) * itemsize // MOST_TILES)
    leading, points = shape[:components], shape[components:]
    parts = [1] * len(points)
    tile = points
    while math.prod(leading + tile) * itemsize > most and max(tile, default=1) > 1:
        parts[tile.index(max(tile))] *= 2
        tile = tuple(-(-length // count) for length, count in zip(points, parts, strict=True))
    return leading + tile


@dataclass(frozen=True)
class Tiling:
    """An array cut into tiles; those at the far edges may reach beyond it."""

    shape: Axes
    tile: Axes

    @property
    def counts(self) -> Axes:
        """Tiles along each axis."""
        return tuple(-(-length // tile) if tile else 0 for length, tile in zip(self.shape, self.tile, strict=True))

    def places(self) -> list[Axes]:
        """The position of every tile among the others, in C order."""
        return list(product(*map(range, self.counts)))

    def box(self, place: Axes) -> Block:
        """The part of the array in a tile."""
        return tuple(
            slice(at * tile, min((at + 1) * tile, length))
            for at, tile, length in zip(place, self.tile, self.shape, strict=True)
        )

    def is_clipped(self, place: Axes) -> bool:
        """Whether a tile reaches beyond the array."""
        return any((at + 1) * tile > length for at, tile, length in zip(place, self.tile, self.shape, strict=True))


@dataclass(frozen=True)
class Chosen(Sequence[npt.NDArray]):
    """Some of a sequence of tiles, made when they are asked for."""

    tiles: Sequence[npt.NDArray]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.tiles[self.indices[index]]


@dataclass(frozen=True)
class Piece:
    """The common part of a tile and a block: the tile, the rank that has the block, the part of the array."""

    place: Axes
    rank: int
    box: Block


@dataclass(frozen=True)
class Deal:
    """What one rank does to bring blocks into tiles.

    Attributes:
        shared: the tiles it owns of which other ranks hold parts.
        whole: the tiles it owns that lie in its block.
        local: for each tile it owns its own part.
        received: parts of its tiles that others hold, in the order in which each of them sends.
        sent: parts of others' tiles that it holds; `rank` is the owner.
    """

    shared: tuple[Axes, ...]
    whole: tuple[Axes, ...]
    local: dict[Axes, Block]
    received: tuple[Piece, ...]
    sent: tuple[Piece, ...]

    @property
    def places(self) -> tuple[Axes, ...]:
        """All tiles it owns: the shared ones first."""
        return self.shared + self.whole


def deal(tiling: Tiling, decomposition: Decomposition, rank: int, staggered: Sequence[int] = ()) -> Deal:
    """What a rank sends, receives and keeps. The tiling's leading axes that the grid has not are not cut."""
    leading = len(tiling.shape) - len(decomposition.shape)
    if 0 in tiling.shape:
        return Deal((), (), {}, (), ())
    axes = [
        _Axis(decomposition.along(axis, axis in staggered), tiling.tile[leading + axis])
        for axis in range(len(decomposition.shape))
    ]
    own = decomposition.coordinates(rank)
    front, components = (0,) * leading, tuple(map(slice, (0,) * leading, tiling.shape[:leading]))
    shared: list[Axes] = []
    whole: list[Axes] = []
    local: dict[Axes, Block] = {}
    received: list[Piece] = []
    sent: list[Piece] = []
    for at in product(*(axis.tiles_of(block) for axis, block in zip(axes, own, strict=True))):
        place = front + at
        owner = tuple(axis.owner(tile) for axis, tile in zip(axes, at, strict=True))
        parts = {blocks: components + box for blocks, box in _parts(axes, at).items()}
        if owner != own:
            sent.append(Piece(place, _rank(decomposition, owner), parts[own]))
            continue
        local[place] = parts.pop(own)
        (shared if parts else whole).append(place)
        received += [Piece(place, _rank(decomposition, blocks), box) for blocks, box in parts.items()]
    return Deal(tuple(shared), tuple(whole), local, tuple(received), tuple(sent))


def _parts(axes: Sequence[_Axis], tile: Axes) -> dict[Axes, Block]:
    """What each block has of a tile, by the block's coordinates."""
    along = [
        [(block, axis.common(at, block)) for block in axis.blocks_of(at)] for axis, at in zip(axes, tile, strict=True)
    ]
    return {tuple(block for block, _ in parts): tuple(box for _, box in parts) for parts in product(*along)}


def _rank(decomposition: Decomposition, blocks: Axes) -> int:
    rank = decomposition.rank_at(blocks)
    assert rank is not None  # blocks of the layout
    return rank


@dataclass(frozen=True)
class _Axis:
    """One axis, cut into blocks and into tiles of a length."""

    blocks: tuple[slice, ...]
    tile: int

    def tiles_of(self, block: int) -> range:
        """The tiles that a block has points of; none where it is empty."""
        part = self.blocks[block]
        return range(part.start // self.tile, -(-part.stop // self.tile)) if part.stop > part.start else range(0)

    def blocks_of(self, tile: int) -> list[int]:
        return [block for block in range(len(self.blocks)) if tile in self.tiles_of(block)]

    def common(self, tile: int, block: int) -> slice:
        part = self.blocks[block]
        return slice(max(part.start, tile * self.tile), min(part.stop, (tile + 1) * self.tile))

    def owner(self, tile: int) -> int:
        """The block with the most points of the tile; the first of several."""
        return max(self.blocks_of(tile), key=lambda block: (self._points(tile, block), -block))

    def _points(self, tile: int, block: int) -> int:
        common = self.common(tile, block)
        return common.stop - common.start
