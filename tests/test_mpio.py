"""The driver mpio: tiles of all ranks in one file by MPI-IO, or an error on all of them."""

import errno
import resource
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from hpcframe.checkpoint import mpio
from hpcframe.checkpoint.mpio import PlacedTiles
from hpcframe.checkpoint.tiles import Tiling
from hpcframe.errors import RemoteError

# shape, tile, dtype
ARRAYS = {
    "temperature": ((10, 7, 9), (4, 3, 5), float),  # tiles reach beyond every edge
    "velocity": ((3, 8, 12), (3, 4, 6), np.float32),
    "psi": ((9,), (2,), complex),
    "mask": ((5, 6), (5, 6), np.int8),  # one tile: all ranks but one have none
}

LAID_OUT = 3000  # bytes: beyond that there are tiles only

both = pytest.mark.parametrize("collective", [True, False], ids=["collective", "independent"])


@pytest.fixture
def path(comm, tmp_path):
    """A file for all ranks that is laid out by one, and holds no tile yet."""
    path = comm.bcast(tmp_path) / "state.h5"
    if comm.rank == 0:
        with h5py.File(path, "w", libver="latest") as file:
            for name, (shape, tile, dtype) in ARRAYS.items():
                lay_out(file, name, shape, tile, dtype)
    comm.barrier()
    return path


def lay_out(file, name, shape, tile, dtype):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(tile)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), kind, space, creation)


def numbers(name) -> np.ndarray:
    """The global array."""
    shape, _, dtype = ARRAYS[name]
    return (np.arange(1, 1 + np.prod(shape)) * 1.5).reshape(shape).astype(dtype)


def tiles_of(comm, path, name) -> PlacedTiles:
    """This rank's tiles: the last rank has most of them, the others one each while there are any."""
    shape, tile, dtype = ARRAYS[name]
    tiling = Tiling(shape, tile)
    places = tiling.places()[:-1][comm.rank : comm.rank + 1]
    if comm.rank == comm.size - 1:
        places = tiling.places()[comm.rank :] or tiling.places()[-1:]
    data = np.zeros((len(places), *tile), dtype)
    for place, values in zip(places, data, strict=True):
        part = numbers(name)[tiling.box(place)]
        values[tuple(map(slice, part.shape))] = part
    with h5py.File(path, "r", locking=False) as file:
        chunks = [file[name].id.get_chunk_info_by_coord(tuple(np.multiply(place, tile).tolist())) for place in places]
    return PlacedTiles([chunk.byte_offset for chunk in chunks], list(data))


def write(comm, path, collective, hints=None, names=ARRAYS):
    arrays = [tiles_of(comm, path, name) for name in names] if path.exists() else []
    return mpio.write(comm, path, arrays, hints or {}, collective)


@contextmanager
def no_file_larger(size):
    """Let the system refuse to write a file beyond this size, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_tile_that_mpi_lost_without_an_error_is_written_again(tmp_path):
    tile = numbers("temperature")
    path = tmp_path / "state.h5"
    path.write_bytes(bytes(100) + tile.tobytes()[:-1])
    with open(path, "r+b") as file:
        mpio._read_back([PlacedTiles([100], [tile])], file.fileno())
    assert path.read_bytes() == bytes(100) + tile.tobytes()


@pytest.mark.mpi
@both
def test_plain_h5py_reads_what_all_ranks_wrote(comm, path, collective):
    assert write(comm, path, collective) == {}
    with h5py.File(path) as file:
        for name in ARRAYS:
            np.testing.assert_array_equal(file[name][...], numbers(name))


@pytest.mark.mpi
@both
def test_a_tile_that_is_too_much_for_one_call_is_written_in_several(comm, path, collective, monkeypatch):
    monkeypatch.setattr(mpio, "BYTES_A_CALL", 48)
    write(comm, path, collective)
    with h5py.File(path) as file:
        for name in ARRAYS:
            np.testing.assert_array_equal(file[name][...], numbers(name))


@pytest.mark.mpi
def test_hints_that_the_library_takes_are_not_reported(comm, path):
    assert write(comm, path, False, {"cb_nodes": "1"}) == {}


@pytest.mark.mpi
def test_a_write_that_the_system_refuses_on_one_rank_is_an_error_on_all(comm, path):
    last = comm.rank == comm.size - 1
    with no_file_larger(LAID_OUT if last else resource.RLIM_INFINITY), pytest.raises((OSError, RemoteError)) as caught:
        write(comm, path, collective=False)
    assert getattr(caught.value, "errno", None) == (errno.EFBIG if last else None)
    write(comm, path, collective=False)  # nothing is left of it that hinders the next


@pytest.mark.mpi
def test_a_collective_write_that_the_system_refuses_is_an_error_on_all_even_where_mpi_is_silent(comm, path):
    with no_file_larger(LAID_OUT), pytest.raises((OSError, RemoteError), match="large"):
        write(comm, path, collective=True)
    write(comm, path, collective=True)


@pytest.mark.mpi
def test_a_file_that_is_not_there_is_an_error_on_all(comm, path):
    with pytest.raises((FileNotFoundError, RemoteError)):
        write(comm, path.with_name("nothing.h5"), False)
