"""From the blocks of ranks to tiles and back: only tiles that straddle ranks are sent, as pieces that MPI packs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt
from mpi4py import MPI
from mpi4py.util.dtlib import from_numpy_dtype

from hpcframe.checkpoint.tiles import Deal, Tiling, deal, tile_shape
from hpcframe.grid.decomposition import Axes, Block
from hpcframe.grid.field import Field

Message = tuple[int, MPI.Datatype]  # the other rank, and where the piece lies


class TileExchange:
    """Moves the pieces of one kind of field; made once and used for all fields of that kind.

    Attributes:
        tiling: how such a field is cut; the same on any number of ranks.
        deal: this rank's part.
    """

    current, under_way = True, False

    def __init__(self, field: Field, tile: Axes) -> None:
        """Not collective."""
        self.tiling = Tiling(field.shape, tile)
        self.deal: Deal = deal(self.tiling, field.grid.decomposition, field.grid.rank, field.staggered)
        self._shift = tuple(-part.start for part in field.block)
        self._in_storage = tuple(width - part.start for width, part in zip(field.halo, field.block, strict=True))
        self._blocks = [
            (piece.rank, _piece(field, field.padded.shape, self._moved(piece.box, self._in_storage)))
            for piece in self.deal.sent
        ]
        shape = (len(self.deal.shared), *self.tiling.tile)
        index = {place: k for k, place in enumerate(self.deal.shared)}
        self._tiles = [
            (piece.rank, _piece(field, shape, (slice(k, k + 1), *self.in_tile(piece.place, piece.box))))
            for piece in self.deal.received
            for k in [index[piece.place]]
        ]

    def in_tile(self, place: Axes, box: Block) -> Block:
        """A part of the array as a part of a tile."""
        starts = [at * tile for at, tile in zip(place, self.tiling.tile, strict=True)]
        return tuple(slice(part.start - start, part.stop - start) for part, start in zip(box, starts, strict=True))

    def _moved(self, box: Block, shift: Axes) -> Block:
        leading = len(box) - len(shift)
        moved = (slice(part.start + by, part.stop + by) for part, by in zip(box[leading:], shift, strict=True))
        return (*box[:leading], *moved)

    def start_collecting(self, field: Field, shared: npt.NDArray) -> list[MPI.Request]:
        """Begin to bring others' pieces into the shared tiles: (number of them, *tile). Collective."""
        comm = field.grid.comm
        receives = [comm.Irecv([shared, 1, kind], rank) for rank, kind in self._tiles]
        return receives + [comm.Isend([field.padded, 1, kind], rank) for rank, kind in self._blocks]

    def start_spreading(self, field: Field, shared: npt.NDArray) -> list[MPI.Request]:
        """Begin to bring the shared tiles' pieces into the blocks of others. Collective."""
        comm = field.grid.comm
        receives = [comm.Irecv([field.padded, 1, kind], rank) for rank, kind in self._blocks]
        return receives + [comm.Isend([shared, 1, kind], rank) for rank, kind in self._tiles]

    def to_tile(self, block: npt.NDArray, place: Axes, tile: npt.NDArray) -> None:
        """Copy this rank's own part of the field, its interior, into a tile of its, which becomes zero beyond the
        array. Not collective."""
        if self.tiling.is_clipped(place):
            self._clear_edges(place, tile)
        box = self.deal.local[place]
        tile[self.in_tile(place, box)] = block[self._moved(box, self._shift)]

    def from_tile(self, field: Field, place: Axes, tile: npt.NDArray) -> None:
        """Copy this rank's own part out of a tile of its. Not collective."""
        box = self.deal.local[place]
        field.local_interior[self._moved(box, self._shift)] = tile[self.in_tile(place, box)]

    def _clear_edges(self, place: Axes, tile: npt.NDArray) -> None:
        for axis, part in enumerate(self.in_tile(place, self.tiling.box(place))):
            tile[(slice(None),) * axis + (slice(part.stop, None),)] = 0

    def free(self) -> None:
        for _, kind in self._blocks + self._tiles:
            kind.Free()
        self._blocks, self._tiles = [], []


def exchange_of(field: Field, tile: Axes | None = None) -> TileExchange:
    """The exchange for a field, kept with its grid. Logically collective.

    Args:
        tile: the shape of tiles; that of `tile_shape` if not given.
    """
    tile = tile or tile_shape(field.shape, len(field.components), field.dtype.itemsize)
    key = ("tiles", field.components, field.staggered, field.halo, field.dtype.str, tile)
    return field.grid.planned(key, lambda: TileExchange(field, tile))


def _piece(field: Field, shape: Sequence[int], box: Block) -> MPI.Datatype:
    sizes, starts = [part.stop - part.start for part in box], [part.start for part in box]
    return from_numpy_dtype(field.dtype).Create_subarray(list(shape), sizes, starts).Commit()
