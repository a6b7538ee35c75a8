"""The driver `direct`: each rank writes whole tiles at their places, by plain calls of the operating system.

No two ranks write the same bytes, so nothing has to be agreed on while writing, and no parallel file library is
needed. A tile's checksum is that of the buffer in memory, taken before the buffer is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.checkpoint.container import Layout, Places
from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.redistribution import exchange_of
from hpcframe.files import close_all, explained, read_at, write_at
from hpcframe.grid.decomposition import Axes
from hpcframe.grid.field import Field

Checksums = dict[str, dict[Axes, int]]  # of the tiles that a rank wrote, by array and place


@dataclass
class TileFiles:
    """The files of a checkpoint that is being written, open where this rank has tiles.

    Attributes:
        checksums: of what was written so far.
    """

    folder: Path
    layout: Layout
    checksums: Checksums = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)

    def write(self, name: str, place: Axes, tile: npt.NDArray) -> None:
        """Write a tile. Raises OSError. Not collective."""
        places = self.layout.places[name]
        data = tile.reshape(-1).view(np.uint8).data
        self.checksums.setdefault(name, {})[place] = crc32c(data)
        write_at(self._descriptor(places.file_of(place)), data, int(places.offsets[place]))

    def adopt(self, checksums: Checksums) -> None:
        """Take over tiles that another driver wrote, for `sync` and `is_right`. Raises OSError. Not collective."""
        self.checksums = checksums
        for name, tiles in checksums.items():
            for place in tiles:
                self._descriptor(self.layout.places[name].file_of(place))

    def _descriptor(self, index: int) -> int:
        if index not in self._open:
            self._open[index] = os.open(self.folder / self.layout.names[index], os.O_RDWR)
        return self._open[index]

    def sync(self) -> None:
        """Bring everything to the disk. Raises OSError. Not collective."""
        for descriptor in self._open.values():
            os.fsync(descriptor)

    def is_right(self) -> bool:
        """Whether what was written reads back: from the disk, where the system lets go of its copy. Not collective."""
        try:
            for descriptor in self._open.values():
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return all(
                self._is_right(self.layout.places[name], place, checksum)
                for name, checksums in self.checksums.items()
                for place, checksum in checksums.items()
            )
        except OSError:  # what cannot be read is not right
            return False

    def _is_right(self, places: Places, place: Axes, checksum: int) -> bool:
        file = self._descriptor(places.file_of(place))
        tile = np.empty(places.tile_bytes, np.uint8)
        return read_at(file, tile, int(places.offsets[place])) == tile.size and crc32c(tile) == checksum

    def close(self) -> None:
        close_all(self._open)


def write_fields(files: TileFiles, arrays: Mapping[str, Field]) -> None:
    """Write all fields, one after another, by buffers of this rank's shared tiles and one more. Collective.

    Every rank gets through, whatever fails on it.

    Raises:
        HpcframeError: this rank could not write.
    """
    error: Exception | None = None
    for name, values in arrays.items():
        exchange = exchange_of(values)
        shared = np.empty((len(exchange.deal.shared), *exchange.tiling.tile), values.dtype)
        requests = exchange.start_collecting(values, shared)
        try:
            if error is None:
                _write_whole(files, name, values)
        except Exception as caught:  # kept until the messages that others wait for are through
            error = caught
        MPI.Request.Waitall(requests)
        try:
            if error is None:
                _write_shared(files, name, values, shared)
        except Exception as caught:  # as above
            error = caught
    if error:
        with explained(files.folder.parent):
            raise error


def _write_whole(files: TileFiles, name: str, values: Field) -> None:
    exchange = exchange_of(values)
    tile = np.empty(exchange.tiling.tile, values.dtype)  # stays in the cache from copy to checksum to write
    for place in exchange.deal.whole:
        exchange.to_tile(values, place, tile)
        files.write(name, place, tile)


def _write_shared(files: TileFiles, name: str, values: Field, shared: npt.NDArray) -> None:
    exchange = exchange_of(values)
    for place, tile in zip(exchange.deal.shared, shared, strict=True):
        exchange.to_tile(values, place, tile)
        files.write(name, place, tile)
