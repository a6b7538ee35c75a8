"""The driver `mpio`: ranks write whole tiles into one file through parallel h5py, which writes by MPI-IO.

It needs an h5py that is built with the HDF5 of the MPI in use: `scripts/install-parallel-h5py`. Writing independently
is as fast as plain writes and reports its errors. Writing collectively gains nothing where each tile has one owner, and
on a full disk Open MPI (OMPIO, the component vulcan: 4.1.4, 5.0.11) drops the error on all ranks, or raises on some and
leaves the others waiting. So the space is reserved before, and the tiles are read back after a collective write.

Opening is collective in either way: where one rank alone cannot open the file (too many open files, say), OMPIO leaves
the others waiting, and only a watchdog ends them. Each rank opens the file plainly before, which finds most of it.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5fd, h5p, h5s
from mpi4py import MPI

from hpcframe.checkpoint.tiles import TiledArray, Tiling
from hpcframe.files import BYTES_A_CALL, write_at
from hpcframe.grid.agreement import collectively
from hpcframe.grid.decomposition import Axes


def missing() -> str:
    """Why this h5py cannot write one file from many ranks, and the remedy; "" where it can. Not collective."""
    if h5py.get_config().mpi:
        return ""
    return f"h5py {h5py.__version__} is built without MPI: run scripts/install-parallel-h5py"


def write(
    comm: MPI.Intracomm, path: Path, arrays: Sequence[TiledArray], hints: Mapping[str, str], collective: bool
) -> dict[str, str]:
    """Write tiles into a file that is laid out, and bring them to the disk. Collective.

    Every rank gives the same arrays in the same order, and of each the tiles that it owns, which may be none. The file
    has a dataset of each array's name, whose chunks are the tiles and are allocated. What of a tile lies beyond the
    edge of its dataset is not written.

    Args:
        hints: for MPI-IO, such as striping_factor; the same on all ranks.
        collective: whether MPI-IO may move data between ranks, which then write in rounds, one tile of each rank.
            Otherwise each rank writes its tiles alone. Prefer that: an error of the disk in a collective write, other
            than no space, quota or permission, may leave ranks waiting in MPI-IO.

    Returns:
        The hints that the MPI library did not take, with the values that it uses instead ("" where it uses none).
        Open MPI 4.1 says that it took any hint; 5.0 names those that it knows.

    Raises:
        OSError: this rank could not write, or what it wrote collectively is not in the file.
        RemoteError: the same on another rank.
    """
    with collectively(comm, f"opening {path}"):
        descriptor = os.open(path, os.O_RDWR)
    try:
        ignored = _ignored_hints(comm, path, hints) if hints else {}
        with collectively(comm, f"writing {path}"):
            with _opened(comm, path, hints) as file:
                tiles = _write_tiles(comm, file, arrays, collective, descriptor)
            os.fsync(descriptor)
        if collective:
            with collectively(comm, f"reading {path} back"):
                _read_back(path, tiles, descriptor)
        return ignored
    finally:
        os.close(descriptor)


def _ignored_hints(comm: MPI.Intracomm, path: Path, hints: Mapping[str, str]) -> dict[str, str]:
    """The hints that a file opened with them does not have. Collective. Raises OSError."""
    with collectively(comm, f"opening {path} by MPI-IO"):
        info = MPI.Info.Create(dict(hints))
        try:
            file = MPI.File.Open(comm, path, MPI.MODE_RDWR, info)
        except MPI.Exception as error:
            raise OSError(errno.EIO, f"{error}", str(path)) from error
        finally:
            info.Free()
        taken = file.Get_info()
        used = dict(taken.items())
        taken.Free()
        file.Close()
    return {hint: used.get(hint, "") for hint, value in hints.items() if used.get(hint) != value}


@dataclass(frozen=True)
class _Part:
    """What one call writes: of a tile, the box of this shape that begins at `origin` in it."""

    index: int  # of the tile, among those of this rank
    itemsize: int
    corner: Axes  # of the tile in the dataset
    origin: Axes
    shape: Axes


def _parts(array: TiledArray) -> Iterator[_Part]:
    """The tiles without what lies beyond the edge, cut where one call would write too much."""
    tiling = Tiling(array.shape, array.tile)
    for index, place in enumerate(array.places):
        box = tiling.box(place)
        corner, shape = tuple(part.start for part in box), tuple(part.stop - part.start for part in box)
        yield from _cut(_Part(index, array.dtype.itemsize, corner, (0,) * len(shape), shape))


def _cut(part: _Part) -> Iterator[_Part]:
    length = max(part.shape)
    if math.prod(part.shape) * part.itemsize <= BYTES_A_CALL or length == 1:
        yield part
        return
    axis = next(axis for axis, points in enumerate(part.shape) if points > 1)
    half = part.shape[axis] // 2
    for begin, end in ((0, half), (half, part.shape[axis])):
        origin, shape = list(part.origin), list(part.shape)
        origin[axis] += begin
        shape[axis] = end - begin
        yield from _cut(replace(part, origin=tuple(origin), shape=tuple(shape)))


@contextmanager
def _opened(comm: MPI.Intracomm, path: Path, hints: Mapping[str, str]) -> Iterator[h5py.File]:
    """The file, open on all ranks; where the block raises on some, all must leave it. Collective. Raises OSError."""
    info = MPI.Info.Create(dict(hints))
    try:
        with h5py.File(path, "r+", driver="mpio", comm=comm, info=info, locking=False) as file:
            yield file
    except RuntimeError as error:  # HDF5's, of closing
        raise OSError(errno.EIO, f"{error}", str(path)) from error
    finally:
        info.Free()


Placed = list[tuple[TiledArray, int, int]]  # arrays, numbers of tiles, and where these are in the file (bytes)


def _write_tiles(
    comm: MPI.Intracomm, file: h5py.File, arrays: Sequence[TiledArray], collective: bool, descriptor: int
) -> Placed:
    """Write all tiles, and tell where they are. Collective.

    What MPI-IO did not write is written by plain calls, which tell why if they cannot: HDF5 tells no error number.
    Raises OSError, when all ranks are through.
    """
    with collectively(comm, "the layout"), _understood():
        placed = [found for array in arrays for found in _places(file[array.name].id, array)]
        if collective:
            _reserve(placed, descriptor)
    failed = False
    for array in arrays:
        failed = _write_array(comm, file[array.name].id, array, collective, failed)
    if failed:
        _write_plainly(placed, descriptor)
    return placed


@contextmanager
def _understood() -> Iterator[None]:
    """HDF5 has no one error for a file whose own bytes are wrong. Raises OSError."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise OSError(errno.EIO, f"HDF5 does not find the arrays that were laid out: {error}") from error


def _write_array(
    comm: MPI.Intracomm, dataset: h5py.h5d.DatasetID, array: TiledArray, collective: bool, failed: bool
) -> bool:
    """Write the tiles of one array; whether any write of this rank failed. Collective writes go on then, with
    nothing."""
    transfer = h5p.create(h5p.DATASET_XFER)
    transfer.set_dxpl_mpio(h5fd.MPIO_COLLECTIVE if collective else h5fd.MPIO_INDEPENDENT)
    parts: list[_Part | None] = list(_parts(array))
    if collective:
        parts += [None] * (comm.allreduce(len(parts), MPI.MAX) - len(parts))
    for part in parts:
        try:
            if collective or not failed:
                _write_part(dataset, array, None if failed else part, transfer)
        except (OSError, RuntimeError):  # why is found by plain writes, later
            failed = True
    return failed


def _write_part(dataset: h5py.h5d.DatasetID, array: TiledArray, part: _Part | None, transfer: h5p.PropDXID) -> None:
    memory, there = h5s.create_simple(array.tile), dataset.get_space()
    if part is None:
        memory.select_none()
        there.select_none()
        dataset.write(memory, there, np.empty(array.tile, array.dtype), dxpl=transfer)
        return
    memory.select_hyperslab(part.origin, part.shape)
    there.select_hyperslab(tuple(np.add(part.corner, part.origin).tolist()), part.shape)
    dataset.write(memory, there, array.data[part.index], dxpl=transfer)


def _places(dataset: h5py.h5d.DatasetID, array: TiledArray) -> Placed:
    """Where this rank's tiles are in the file. Not collective. Raises OSError if a chunk is not a tile."""
    found: Placed = []
    size = math.prod(array.tile) * array.dtype.itemsize
    for index, place in enumerate(array.places):
        chunk = dataset.get_chunk_info_by_coord(tuple(np.multiply(place, array.tile).tolist()))
        if chunk.byte_offset is None or chunk.size != size:
            raise OSError(errno.EIO, "its chunks are not allocated, or are not the tiles", array.name)
        found.append((array, index, chunk.byte_offset))
    return found


def _bytes(array: TiledArray, index: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array.data[index]).reshape(-1).view(np.uint8)


def _reserve(tiles: Placed, descriptor: int) -> None:
    """Have the system refuse now what it would refuse later. Not collective. Raises OSError."""
    for array, index, offset in tiles:
        data = _bytes(array, index)
        os.posix_fallocate(descriptor, offset, data.size)
        write_at(descriptor, data[-1:].data, offset + data.size - 1)  # a limit or a lost permission shows


def _write_plainly(tiles: Placed, descriptor: int) -> None:
    """Not collective. Raises OSError."""
    for array, index, offset in tiles:
        write_at(descriptor, _bytes(array, index).data, offset)


def _read_back(path: Path, tiles: Placed, descriptor: int) -> None:
    """Compare tiles with the file, opened anew: another rank may have written them. What is not there is written by
    plain calls. Not collective. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        for array, index, offset in tiles:
            data = _bytes(array, index)
            found = np.empty(data.size, np.uint8)
            file.seek(offset)
            if _read_into(file, found) != data.size or not np.array_equal(found, data):
                _write_plainly(tiles, descriptor)
                os.fsync(descriptor)
                return


def _read_into(file: FileIO, found: npt.NDArray[np.uint8]) -> int:
    count = 0
    while more := file.readinto(found[count:].data):
        count += more
    return count
