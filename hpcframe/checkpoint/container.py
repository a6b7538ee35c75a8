"""The HDF5 files of a checkpoint: global arrays in tiles whose places are known before anything is written.

One process lays the files out in memory. The places of the tiles depend on names, shapes and dtypes alone, so they
are found once; what changes from one checkpoint to the next is the step and the time among the attributes.
Where there are several files, each holds a run of planes of every array, and state.h5 shows them as one array each
(an HDF5 virtual dataset).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcframe.checkpoint.layout import ALIGNMENT, allocate, attach_coordinates, create_dataset, describe
from hpcframe.checkpoint.sparse import SparseFile
from hpcframe.checkpoint.tiles import Tiling, tile_shape
from hpcframe.grid.decomposition import Axes, cuts
from hpcframe.grid.field import Field
from hpcframe.lazy import h5py

ENTRANCE = "state.h5"  # the file to open
PAGE_ALIGNMENT = 4096  # bytes: tiles smaller than a stripe begin at a page


@dataclass(frozen=True)
class Places:
    """Where the tiles of an array are.

    Attributes:
        tiling: the array and its tiles.
        components: number of leading axes that are not the grid's.
        rows: which rows of tiles, along the first axis of the grid, each data file holds: where each file's begin, and
            the end.
        tile_bytes: length of a tile in the file.
        offsets: (tiles along each axis): bytes from the beginning of the file.
    """

    tiling: Tiling
    components: int
    rows: Axes
    tile_bytes: int
    offsets: npt.NDArray[np.int64]

    def file_of(self, place: Axes) -> int:
        """The data file that holds a tile."""
        return int(np.searchsorted(self.rows, place[self.components], side="right")) - 1


@dataclass(frozen=True)
class Layout:
    """All files of a checkpoint, without their content.

    Attributes:
        names: of the files: the data files, and then the entrance where it is not the only one.
        places: of the tiles of each array.
    """

    names: list[str]
    places: dict[str, Places]


def lay_out_tiles(
    arrays: Mapping[str, Field], step: int, time: float, files: int = 1
) -> tuple[Layout, list[SparseFile]]:
    """Lay out the files for these fields, by the names of their datasets. Not collective; for one rank.

    Args:
        time: s.
        files: data files; fewer where an array has fewer rows of tiles.
    """
    places = {name: _places(field, files) for name, field in arrays.items()}
    names = [ENTRANCE] if files == 1 else [f"state-{index}.h5" for index in range(files)]
    contents = [_data_file(arrays, places, index, files, step, time) for index in range(files)]
    if files > 1:
        contents.append(_entrance(arrays, places, names, step, time))
        names = [*names, ENTRANCE]
    return Layout(names, places), contents


def _places(field: Field, files: int) -> Places:
    components, itemsize = len(field.components), field.dtype.itemsize
    tiling = Tiling(field.shape, tile_shape(field.shape, components, itemsize))
    rows = cuts(tiling.counts[components], files)
    return Places(tiling, components, rows, math.prod(tiling.tile) * itemsize, np.zeros(tiling.counts, np.int64))


def _data_file(
    arrays: Mapping[str, Field], places: Mapping[str, Places], index: int, files: int, step: int, time: float
) -> SparseFile:
    """Lay out one data file; the places of its tiles become known."""
    memory = SparseFile()
    with _creating(memory, min(where.tile_bytes for where in places.values())) as file:
        _describe(file, arrays, step, time)
        for name, field in arrays.items():
            _add(file, name, field, places[name], index, whole=files == 1)
    return memory


def _format() -> str | tuple[str, str]:
    """Chunk indices that need no search are of HDF5 1.10; a file that asks for no more can be read by all since."""
    return "latest" if h5py.h5.get_libversion() < (1, 12, 0) else ("v110", "v110")


def _creating(memory: SparseFile, tile: int) -> h5py.File:
    """HDF5 aligns what is at least as large as the smallest tile."""
    interval = ALIGNMENT if tile >= ALIGNMENT else PAGE_ALIGNMENT
    return h5py.File(memory, "w", libver=_format(), alignment_threshold=max(tile, 1), alignment_interval=interval)


def _describe(file: h5py.File, arrays: Mapping[str, Field], step: int, time: float) -> None:
    describe(file, next(iter(arrays.values())).grid, time, {"step": step})


def _add(file: h5py.File, name: str, field: Field, places: Places, index: int, whole: bool) -> None:
    """Make the dataset of the rows of tiles in a data file, and note where they are."""
    tiling, axis = places.tiling, places.components
    first, last = places.rows[index : index + 2]
    if first == last:
        return
    shape = tiling.shape if whole else _part_shape(tiling, axis, first, last)
    dataset = allocate(file, name, field.dtype, shape, tiling.tile)
    if whole:
        attach_coordinates(file, dataset, field)
    for start, offset in _chunks(dataset):
        place = [at // tile for at, tile in zip(start, tiling.tile, strict=True)]
        place[axis] += first
        places.offsets[tuple(place)] = offset


def _chunks(dataset: h5py.Dataset) -> list[tuple[Axes, int]]:
    """Where each chunk begins, in the dataset and in the file."""
    found: list[tuple[Axes, int]] = []
    if hasattr(dataset.id, "chunk_iter"):
        dataset.id.chunk_iter(lambda chunk: found.append((chunk.chunk_offset, chunk.byte_offset)))
    else:  # of HDF5 before 1.12.3
        chunks = (dataset.id.get_chunk_info(index) for index in range(dataset.id.get_num_chunks()))
        found = [(chunk.chunk_offset, chunk.byte_offset) for chunk in chunks]
    return found


def _part_shape(tiling: Tiling, axis: int, first: int, last: int) -> Axes:
    """A data file's dataset holds whole tiles: its last planes may lie beyond the array."""
    return (*tiling.shape[:axis], (last - first) * tiling.tile[axis], *tiling.shape[axis + 1 :])


def _entrance(
    arrays: Mapping[str, Field], places: Mapping[str, Places], names: list[str], step: int, time: float
) -> SparseFile:
    """state.h5 where the data is in other files."""
    memory = SparseFile()
    with h5py.File(memory, "w", libver=_format()) as file:
        _describe(file, arrays, step, time)
        for name, field in arrays.items():
            properties = _virtual(name, places[name], names)
            attach_coordinates(file, create_dataset(file, name, field.dtype, field.shape, properties), field)
    return memory


def _virtual(name: str, places: Places, names: list[str]) -> Any:
    """The properties of a dataset whose planes are in the datasets of that name in several files."""
    tiling, axis = places.tiling, places.components
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.VIRTUAL)
    for file, first, last in zip(names, places.rows[:-1], places.rows[1:], strict=True):
        if first < last:
            begin, end = first * tiling.tile[axis], min(last * tiling.tile[axis], tiling.shape[axis])
            here = _planes(tiling.shape, axis, begin, end)
            there = _planes(_part_shape(tiling, axis, first, last), axis, 0, end - begin)
            properties.set_virtual(here, file.encode(), name.encode(), there)
    return properties


def _planes(shape: Axes, axis: int, begin: int, end: int) -> Any:
    """Some planes of an array, as HDF5 selects them."""
    space = h5py.h5s.create_simple(shape)
    start, count = [0] * len(shape), list(shape)
    start[axis], count[axis] = begin, end - begin
    space.select_hyperslab(tuple(start), tuple(count))
    return space
