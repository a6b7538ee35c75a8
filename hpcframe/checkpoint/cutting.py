"""The tiles of a rank, cut out of its block one at a time, so that writing needs no second copy of the fields.

Where the program goes on while tiles are written, the block is copied first, as it lies in memory: that is as fast as
memory allows, and the tiles are cut out of the copy behind the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.checkpoint.redistribution import exchange_of
from hpcframe.grid.decomposition import Axes
from hpcframe.grid.field import Field

WIDE = 1.25  # a block within its padding of more than this times its own bytes is copied without


class OwnTiles(Sequence[npt.NDArray]):
    """Buffers for the tiles of one field that this rank owns; a sequence of tiles in the order of `places`.

    Each tile is cut into the same buffer, where it stays until the next.

    Attributes:
        places: of the tiles: those first of which other ranks hold parts.
    """

    def __init__(self, field: Field, copied: bool = False) -> None:
        """Not collective. Raises MemoryError.

        Args:
            copied: keep a copy of the block, so that the field may change after `start`.
        """
        self._exchange = exchange_of(field)
        self.places: tuple[Axes, ...] = self._exchange.deal.places
        self._shared = np.empty((len(self._exchange.deal.shared), *self._exchange.tiling.tile), field.dtype)
        self._tile = np.empty(self._exchange.tiling.tile, field.dtype)  # in the cache from copy to checksum to write
        self._copy = np.empty_like(_source(field)) if copied else None
        self._block: npt.NDArray = field.local_interior

    @property
    def whole(self) -> range:
        """The tiles that lie in this rank's block: they need no message."""
        return range(len(self._exchange.deal.shared), len(self))

    @property
    def shared(self) -> range:
        """The tiles of which other ranks hold parts: to be cut when the messages are through."""
        return range(len(self._exchange.deal.shared))

    @property
    def tile(self) -> Axes:
        """Shape of a tile."""
        return self._exchange.tiling.tile

    def fits(self, field: Field) -> bool:
        """Whether the buffers are right for a field."""
        return exchange_of(field) is self._exchange

    def start(self, field: Field) -> list[MPI.Request]:
        """Copy the block, where it is to be copied, and begin to send and receive. Collective."""
        requests = self._exchange.start_collecting(field, self._shared)
        self._block = field.local_interior
        if self._copy is not None:
            source = _source(field)
            np.copyto(self._copy, source)
            inside: tuple[Any, ...] = (..., *field.local.interior())
            self._block = self._copy[inside] if source is field.padded else self._copy
        return requests

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        """Tile number `index`. Not collective."""
        if index >= len(self):
            raise IndexError(index)
        tile = self._shared[index] if index < len(self._shared) else self._tile
        self._exchange.to_tile(self._block, self.places[index], tile)
        return tile


def _source(field: Field) -> npt.NDArray:
    """What of a block is copied: all of its memory, in one piece, unless that is much more."""
    inside = field.local_interior
    return field.padded if field.padded.nbytes <= WIDE * inside.nbytes else inside


def bytes_of_copy(field: Field) -> int:
    """Memory (bytes) of `OwnTiles` with a copy. Not collective."""
    exchange = exchange_of(field)
    tiles = len(exchange.deal.shared) + 1
    return _source(field).nbytes + tiles * int(np.prod(exchange.tiling.tile, dtype=int)) * field.dtype.itemsize
