"""The driver `direct`: each rank writes whole tiles at their places, by plain calls of the operating system.

No two ranks write the same bytes, so nothing has to be agreed on while writing, and no parallel file library is
needed. A tile's checksum is that of the buffer in memory, taken before the buffer is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.checkpoint.container import Layout
from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.cutting import OwnTiles
from hpcframe.checkpoint.manifest import Extent
from hpcframe.files import close_all, explained, read_at, write_at
from hpcframe.grid.agreement import collectively
from hpcframe.grid.decomposition import Axes
from hpcframe.grid.field import Field

Checksums = dict[str, dict[Axes, int]]  # of the tiles that a rank wrote, by array and place


@dataclass
class TileFiles:
    """The files of a checkpoint that is being written, open where this rank has tiles.

    Attributes:
        progress: called for each tile.
        checksums: of what was written so far.
    """

    folder: Path
    layout: Layout
    progress: Callable[[], None]
    checksums: Checksums = field(default_factory=dict)
    _others: list[Extent] = field(default_factory=list)
    _open: dict[int, int] = field(default_factory=dict)
    _buffer: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))  # to read back

    def write(self, name: str, place: Axes, tile: npt.NDArray) -> None:
        """Write a tile. Raises OSError. Not collective."""
        places = self.layout.places[name]
        data = tile.reshape(-1).view(np.uint8).data
        self.checksums.setdefault(name, {})[place] = crc32c(data)
        write_at(self._descriptor(places.file_of(place)), data, int(places.offsets[place]))
        self.progress()

    def write_all(self, name: str, tiles: OwnTiles, which: Iterable[int]) -> None:
        """Write some of the tiles of an array. Raises OSError. Not collective."""
        for index in which:
            self.write(name, tiles.places[index], tiles[index])

    def adopt(self, checksums: Checksums) -> None:
        """Take over tiles that another driver wrote, for `sync` and `is_right`. Raises OSError. Not collective."""
        self.checksums = checksums
        for name, tiles in checksums.items():
            for place in tiles:
                self._descriptor(self.layout.places[name].file_of(place))

    def also(self, extents: list[Extent]) -> None:
        """Take over what is no tile, for `sync` and `is_right`. Raises OSError. Not collective."""
        self._others = extents
        for extent in extents:
            self._descriptor(extent.file)

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
            return all(map(self._is_right, self._extents()))
        except OSError:  # what cannot be read is not right
            return False

    def _extents(self) -> Iterator[Extent]:
        """All that was written."""
        for name, checksums in self.checksums.items():
            places = self.layout.places[name]
            for place, checksum in checksums.items():
                yield Extent(places.file_of(place), int(places.offsets[place]), places.tile_bytes, checksum)
        yield from self._others

    def _is_right(self, extent: Extent) -> bool:
        self.progress()
        if self._buffer.size < extent.length:
            self._buffer = np.empty(extent.length, np.uint8)
        found = self._buffer[: extent.length]
        return (
            read_at(self._descriptor(extent.file), found, extent.offset) == found.size
            and crc32c(found) == extent.checksum
        )

    def close(self) -> None:
        close_all(self._open)


def write_fields(files: TileFiles, arrays: Mapping[str, Field]) -> None:
    """Write all fields, one after another, by buffers of this rank's shared tiles and one more. Collective.

    Raises:
        HpcframeError: on every rank, where one could not write.
    """
    for name, values in arrays.items():
        comm = values.grid.comm
        with collectively(comm, f"making room for the tiles of '{name}'"):
            tiles = OwnTiles(values)
        requests = tiles.start(values)
        with collectively(comm, f"writing '{name}'"), explained(files.folder.parent):
            try:
                files.write_all(name, tiles, tiles.whole)
            finally:  # whatever fails here, others wait for the messages
                MPI.Request.Waitall(requests)
            files.write_all(name, tiles, tiles.shared)
