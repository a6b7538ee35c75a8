"""The driver `mpio`: ranks write whole tiles by MPI-IO to where HDF5 has laid them out in a file.

That is what a parallel HDF5 does with chunks that are allocated and not filtered, without what it adds: when it closes
a file it writes the file's own bytes on one rank, and an error there leaves the others waiting (HDF5 1.10.8). Nothing
has to be built for it: any HDF5, any MPI that has MPI-IO.

Writing independently is as fast as plain writes, and its errors show: Open MPI 4.1.4 raises none, but says how much it
wrote. Writing collectively gains nothing where each tile has one owner, and on a full disk Open MPI (OMPIO, the
component vulcan: 4.1.4, 5.0.11) drops the error on all ranks, or raises on some and leaves the others waiting. So the
space is reserved before, and the tiles are read back after a collective write.

To write independently each rank opens the file for itself: where one alone cannot (too many open files, say), it says
so. Where ranks open it together, for collective writes, OMPIO leaves the others waiting, and only a watchdog ends them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.files import BYTES_A_CALL, read_at, write_at
from hpcframe.grid.agreement import collectively

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PlacedTiles:
    """Tiles of one array that this rank owns.

    Attributes:
        offsets: where each of them begins in the file (bytes).
        tiles: the values; one may stand where the one before stood.
    """

    offsets: Sequence[int]
    tiles: Sequence[npt.NDArray]

    def __iter__(self) -> Iterator[tuple[int, Bytes]]:
        """Each tile's place and bytes."""
        for offset, tile in zip(self.offsets, self.tiles, strict=True):
            yield offset, np.ascontiguousarray(tile).reshape(-1).view(np.uint8)

    def in_calls(self) -> Iterator[tuple[int, Bytes]]:
        """The same, cut where one call would write too much."""
        for offset, data in self:
            for begin in range(0, data.size, BYTES_A_CALL):
                yield offset + begin, data[begin : begin + BYTES_A_CALL]

    @property
    def calls(self) -> int:
        """How many those are: the tiles of an array have one size."""
        return len(self.tiles) * -(-self.tiles[0].nbytes // BYTES_A_CALL) if len(self.tiles) else 0


def write(
    comm: MPI.Intracomm, path: Path, arrays: Sequence[PlacedTiles], hints: Mapping[str, str], collective: bool
) -> dict[str, str]:
    """Write tiles into a file that is laid out, and bring them to the disk. Collective.

    Every rank gives as many arrays, and of each the tiles that it owns, which may be none.

    Args:
        hints: for MPI-IO, such as striping_factor; the same on all ranks.
        collective: whether MPI-IO may move data between ranks, which then write in rounds, one tile of each rank.
            Otherwise each rank writes its tiles alone. Prefer that: an error of the disk on one rank in a collective
            open or write, other than no space, quota or permission in a write, may leave ranks waiting in MPI-IO.

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
        with collectively(comm, f"writing {path}"):
            with _opened(comm if collective else MPI.COMM_SELF, path, hints) as file:
                ignored = _ignored(file, hints)
                _write_arrays(comm, file, arrays, collective, descriptor)
            os.fsync(descriptor)
        if collective:
            with collectively(comm, f"reading {path} back"):
                _read_back(arrays, descriptor)
        return ignored
    finally:
        os.close(descriptor)


@contextmanager
def _opened(comm: MPI.Intracomm, path: Path, hints: Mapping[str, str]) -> Iterator[MPI.File]:
    """The file, open on all ranks of `comm`, which all leave whatever the block raises. Collective over `comm`.

    Raises OSError."""
    info = MPI.Info.Create(dict(hints))
    try:
        file = MPI.File.Open(comm, path, MPI.MODE_RDWR, info)
    except MPI.Exception as error:
        raise OSError(errno.EIO, f"MPI-IO cannot open it: {error}", str(path)) from error
    finally:
        info.Free()
    try:
        yield file
    finally:
        file.Close()


def _ignored(file: MPI.File, hints: Mapping[str, str]) -> dict[str, str]:
    """The hints that an open file does not have. Not collective."""
    taken = file.Get_info()
    used = dict(taken.items())
    taken.Free()
    return {hint: used.get(hint, "") for hint, value in hints.items() if used.get(hint) != value}


def _write_arrays(
    comm: MPI.Intracomm, file: MPI.File, arrays: Sequence[PlacedTiles], collective: bool, descriptor: int
) -> None:
    """Write all tiles. Collective where it is asked for.

    What MPI-IO did not write is written by plain calls, which say why if they cannot: MPI-IO knows few errors. Raises
    OSError, when all ranks are through.
    """
    if collective:
        with collectively(comm, "reserving space"):
            _reserve(arrays, descriptor)
    failed = False
    for array in arrays:
        write_array = _write_together if collective else _write_alone
        failed = write_array(comm, file, array, failed)
    if failed:
        _write_plainly(arrays, descriptor)


def _write_alone(_: MPI.Intracomm, file: MPI.File, array: PlacedTiles, failed: bool) -> bool:
    """Whether any write of this rank failed. Not collective."""
    status = MPI.Status()
    try:
        for offset, data in () if failed else array.in_calls():
            file.Write_at(offset, data, status)
            failed |= status.Get_count(MPI.BYTE) != data.size  # all that Open MPI 4.1 says of an error
    except MPI.Exception:  # why is found by plain writes, later
        return True
    return failed


def _write_together(comm: MPI.Intracomm, file: MPI.File, array: PlacedTiles, failed: bool) -> bool:
    """The same, in as many calls on all ranks; a rank that failed goes on with nothing. Collective."""
    nothing, calls = np.empty(0, np.uint8), array.in_calls()
    for _ in range(comm.allreduce(array.calls, MPI.MAX)):
        offset, data = next(calls, (0, nothing))
        try:
            file.Write_at_all(offset, nothing if failed else data)
        except MPI.Exception:
            failed = True
    return failed


def _reserve(arrays: Sequence[PlacedTiles], descriptor: int) -> None:
    """Have the system refuse now what it would refuse later. Not collective. Raises OSError."""
    for array in arrays:
        for offset, data in array:
            os.posix_fallocate(descriptor, offset, data.size)
            write_at(descriptor, data[-1:].data, offset + data.size - 1)  # a limit or a lost permission shows


def _write_plainly(arrays: Sequence[PlacedTiles], descriptor: int) -> None:
    """Not collective. Raises OSError."""
    for array in arrays:
        for offset, data in array:
            write_at(descriptor, data.data, offset)


def _read_back(arrays: Sequence[PlacedTiles], descriptor: int) -> None:
    """Compare tiles with the file: another rank may have written them. What is not there is written by plain calls. Not
    collective. Raises OSError."""
    for array in arrays:
        for offset, data in array:
            found = np.empty(data.size, np.uint8)
            if read_at(descriptor, found, offset) != data.size or not np.array_equal(found, data):
                _write_plainly(arrays, descriptor)
                os.fsync(descriptor)
                return
