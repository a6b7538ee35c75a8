"""hf.save and hf.load: one file that any tool reads, the same on any number of ranks, or an error on all of them."""

import io
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpi4py import MPI

from hpcframe import files
from hpcframe.checkpoint.hdf5 import load, save
from hpcframe.checkpoint.sparse import SparseFile
from hpcframe.errors import HpcframeError, InputError
from hpcframe.grid.cartesian import CartesianGrid

# shape, ranks an axis, options of the field
FIELDS = {
    "1-D": ((37,), (0,), {}),
    "2-D": ((13, 9), (0, 0), {"dtype": np.float32}),
    "2-D, the contiguous axis cut": ((13, 9), (1, 0), {}),
    "fewer planes than ranks": ((2, 40), (1, 0), {"dtype": np.int32}),
    "3-D": ((7, 9, 6), (0, 0, 0), {"halo": 0}),
    "vector": ((7, 9, 6), (0, 0, 0), {"components": (3,), "dtype": np.complex64}),
    "tensor": ((8, 9), (0, 0), {"components": (2, 3), "dtype": np.int64}),
    "staggered along the first axis": ((19, 8), (0, 0), {"staggered": (0,)}),
    "staggered along all axes": ((7, 9, 6), (0, 0, 0), {"staggered": (0, 1, 2), "dtype": complex, "halo": (1, 0, 1)}),
}


@pytest.fixture
def folder(comm, tmp_path):
    """One empty folder for all ranks."""
    return comm.bcast(tmp_path)


@pytest.fixture
def grid(comm):
    return CartesianGrid((12, 10), extent=(6.0, 10.0), origin=(1.0, -3.0), comm=comm)


def numbers(shape, dtype, seed=0) -> np.ndarray:
    """The same random array of any dtype on every rank."""
    bits = np.random.default_rng(seed).integers(-1000, 1000, (2, *shape))
    if np.dtype(dtype).kind == "c":
        return (bits[0] + 0.3j * bits[1]).astype(dtype)
    return (bits[0] + 0.3 * bits[1]).astype(dtype)


def filled(field, seed=0):
    """The field, holding `numbers`."""
    field.interior[...] = numbers(field.shape, field.dtype, seed)[(..., *field.block)]
    return field


def refuse(action, *arguments, error=HpcframeError, **options) -> str:
    """The message of the error that the action raises, on this rank as on every other."""
    with pytest.raises(error) as caught:
        action(*arguments, **options)
    return str(caught.value)


@contextmanager
def no_file_larger(size):
    """Let the system refuse to write a file beyond this size, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize(("shape", "ranks", "options"), FIELDS.values(), ids=FIELDS)
def test_a_dataset_is_the_global_array(comm, folder, shape, ranks, options):
    grid = CartesianGrid(shape, ranks=ranks, comm=comm)
    u = filled(grid.field("u", **options))
    save(folder / "state.h5", u)
    with h5py.File(folder / "state.h5") as file:
        whole = file["u"][...]
    assert whole.dtype == u.dtype
    assert np.array_equal(whole, numbers(u.shape, u.dtype))


@pytest.mark.mpi
def test_the_file_has_the_same_bytes_on_any_number_of_ranks(comm, folder):
    for ranks, owner in ((comm, "all"), (MPI.COMM_SELF, comm.rank)):
        grid = CartesianGrid((9, 8, 5), comm=ranks)
        u, v = filled(grid.field("u"), 1), filled(grid.field("v", components=(3,), staggered=(1,)), 2)
        save(folder / f"{owner}.h5", u, v, attributes={"case": "a"}, time=0.5)
    assert (folder / f"{comm.rank}.h5").read_bytes() == (folder / "all.h5").read_bytes()


@pytest.mark.mpi
def test_a_dataset_larger_than_a_stripe_and_than_a_call_may_write(comm, folder, monkeypatch):
    monkeypatch.setattr(files, "BYTES_A_CALL", 100_000)
    grid = CartesianGrid((300, 1000), comm=comm)
    u, v = filled(grid.field("u"), 1), filled(grid.field("v"), 2)
    save(folder / "state.h5", u, v)
    with h5py.File(folder / "state.h5") as file:
        assert np.array_equal(file["u"], numbers(u.shape, float, 1))
        assert np.array_equal(file["v"], numbers(v.shape, float, 2))
        assert file["u"].id.get_offset() % 2**20 == 0


@pytest.mark.mpi
def test_coordinates_and_attributes_say_where_and_when(folder, grid):
    u, faces = filled(grid.field("u")), filled(grid.field("flux", components=(2,), staggered=(0,), halo=0))
    grid.time = 0.75
    save(folder / "state.h5", u, faces, attributes={"case": "a", "diffusivity": 0.1, "count": 3})
    with h5py.File(folder / "state.h5") as file:
        assert np.array_equal(file["x"], 1.25 + 0.5 * np.arange(12))
        assert np.array_equal(file["x_face"], 1.0 + 0.5 * np.arange(13))
        assert np.array_equal(file["y"], -2.5 + np.arange(10))
        assert {name: file[name].attrs["units"] for name in ("x", "x_face", "y")} == dict.fromkeys(
            ("x", "x_face", "y"), "m"
        )
        assert [dimension[0].name for dimension in file["u"].dims] == ["/x", "/y"]
        assert [dimension[0].name for dimension in file["flux"].dims] == ["/flux_component", "/x_face", "/y"]
        assert file.attrs["time"] == 0.75
        assert (*file.attrs["origin"], *file.attrs["spacing"]) == (1.0, -3.0, 0.5, 1.0)
        assert (file.attrs["case"], file.attrs["diffusivity"], file.attrs["count"]) == ("a", 0.1, 3)


@pytest.mark.mpi
def test_a_reader_of_the_old_file_is_not_disturbed(comm, folder, grid):
    path = folder / "state.h5"
    save(path, filled(grid.field("u"), 1))
    with h5py.File(path) as old:
        comm.Barrier()
        save(path, filled(grid.field("u"), 2))
        assert np.array_equal(old["u"], numbers((12, 10), float, 1))
    with h5py.File(path) as new:
        assert np.array_equal(new["u"], numbers((12, 10), float, 2))
    assert os.listdir(folder) == ["state.h5"]


@pytest.mark.mpi
def test_others_may_read_what_the_umask_lets_them(comm, folder, grid):
    before = os.umask(0o027)
    try:
        save(folder / "state.h5", filled(grid.field("u")))
    finally:
        os.umask(before)
    assert (folder / "state.h5").stat().st_mode & 0o777 == 0o640


# -- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize(("shape", "ranks", "options"), FIELDS.values(), ids=FIELDS)
def test_loading_gives_back_every_value(comm, folder, shape, ranks, options):
    grid = CartesianGrid(shape, ranks=ranks, comm=comm)
    u = filled(grid.field("u", **options))
    save(folder / "state.h5", u)
    copy = grid.field("u", **options)
    load(folder / "state.h5", copy)
    assert np.array_equal(copy.interior, u.interior)


@pytest.mark.mpi
def test_any_number_of_ranks_reads_what_another_wrote(comm, folder):
    half = comm.Split(comm.rank % 2)
    grid = CartesianGrid((11, 7), comm=half)
    save(folder / f"{comm.rank % 2}.h5", filled(grid.field("u"), comm.rank % 2))
    comm.Barrier()
    for ranks in (comm, half, MPI.COMM_SELF):
        for number in range(min(comm.size, 2)):
            u = CartesianGrid((11, 7), comm=ranks).field("u")
            load(folder / f"{number}.h5", u)
            assert np.array_equal(u.interior, numbers((11, 7), float, number)[u.block])
    half.Free()


@pytest.mark.mpi
def test_loading_converts_within_a_kind_and_returns_the_attributes(comm, folder, grid):
    path = folder / "of another program.h5"
    whole = numbers((12, 10), float)
    if comm.rank == 0:
        with h5py.File(path, "w") as file:
            file["u"] = whole
            file["count"] = whole.astype(">i4")
            file.attrs["time"] = 2.5
    comm.Barrier()
    single, real = grid.field("u", dtype=np.float32), grid.field("count")
    assert load(path, single, real)["time"] == 2.5
    assert np.array_equal(single.interior, whole.astype(np.float32)[grid.block])
    assert np.array_equal(real.interior, whole.astype(int)[grid.block])


@pytest.mark.mpi
def test_loading_makes_the_halo_stale(folder, grid):
    u = filled(grid.field("u"))
    save(folder / "state.h5", u)
    u.exchange()
    assert u.fresh
    load(folder / "state.h5", u)
    assert not u.fresh


# -- errors, on every rank ----------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("victim", ["first", "last"])
@pytest.mark.parametrize("size", [0, 4096, 200_000])
def test_a_rank_that_cannot_write_stops_all_and_the_old_file_stays(comm, folder, victim, size):
    grid = CartesianGrid((300, 100), comm=comm)
    save(folder / "state.h5", filled(grid.field("u"), 1))
    u = filled(grid.field("u"), 2)
    fails = comm.rank == (0 if victim == "first" else comm.size - 1)
    with no_file_larger(size if fails else resource.RLIM_INFINITY):
        message = refuse(save, folder / "state.h5", u)
    assert "File too large" in message and "ulimit -f" in message and str(folder / "state.h5") in message
    assert fails or f"rank {0 if victim == 'first' else comm.size - 1} failed" in message
    comm.Barrier()
    assert os.listdir(folder) == ["state.h5"]
    with h5py.File(folder / "state.h5") as file:
        assert np.array_equal(file["u"], numbers((300, 100), float, 1))
    comm.Barrier()
    save(folder / "state.h5", u)
    with h5py.File(folder / "state.h5") as file:
        assert np.array_equal(file["u"], numbers((300, 100), float, 2))


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/state.h5", "there is no folder"),
        ("file/state.h5", "there is no folder"),
        ("", "is a folder"),
        ("x" * 300 + ".h5", "shorter name"),
    ],
)
def test_a_path_that_cannot_be_is_refused(comm, folder, grid, name, message):
    if comm.rank == 0:
        (folder / "file").touch()
    assert message in refuse(save, folder / name, grid.field("u"), error=InputError)
    assert os.listdir(folder) == ["file"]


@pytest.mark.mpi
def test_fields_that_cannot_share_a_file_are_refused(comm, folder, grid):
    u, path = grid.field("u"), folder / "state.h5"
    other = CartesianGrid((12, 10), comm=comm).field("v")
    vector, its_axis = grid.field("v", components=(2,)), grid.field("v_component")
    assert "another grid" in refuse(save, path, u, other, error=InputError)
    assert "two fields are named 'u'" in refuse(save, path, u, grid.field("u"), error=InputError)
    assert "give the fields" in refuse(save, path, error=InputError)
    assert "give the fields" in refuse(save, path, "u", error=InputError)
    assert "'v_component'" in refuse(save, path, vector, its_axis, error=InputError)
    for name in ("x", "y_face", "a/b", ".", "", "null\0"):
        assert "cannot be named" in refuse(save, path, grid.field(name), error=InputError)
    assert os.listdir(folder) == []


@pytest.mark.mpi
def test_ranks_that_do_not_save_the_same_are_refused(comm, folder, grid):
    u, v = grid.field("u"), grid.field("v")
    if comm.size > 1:
        assert "same fields on every rank" in refuse(
            save, folder / "state.h5", v if comm.rank == 1 else u, error=InputError
        )
    save(folder / "state.h5", u)  # no message of the refused one is in the way
    assert os.listdir(folder) == ["state.h5"]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"time": 1.0}, "choose another name"),
        ({"case": {}}, "a number, a text"),
        ({"case": None}, "a number, a text"),
        ({"table": np.zeros(10_000)}, "up to 64 KB"),
        ({"": 1}, "no attribute name"),
    ],
)
def test_attributes_that_cannot_be_are_refused(folder, grid, attributes, message):
    text = refuse(save, folder / "state.h5", grid.field("u"), attributes=attributes, error=InputError)
    assert message in text and next(iter(attributes)) in text
    assert os.listdir(folder) == []


@pytest.mark.mpi
def test_what_does_not_fit_is_not_loaded(comm, folder, grid):
    path = folder / "state.h5"
    save(path, filled(grid.field("temperature"), 1), filled(grid.field("phase", dtype=complex)))
    cases = [
        (grid.field("temprature"), "did you mean 'temperature'"),
        (grid.field("temperature", staggered=(1,)), "of shape (12, 10), but the field is float64 of shape (12, 11)"),
        (grid.field("temperature", dtype=np.int64), "is float64 of shape (12, 10), but the field is int64"),
        (grid.field("phase"), "is complex128 of shape (12, 10), but the field is float64"),
        (grid.field("temperature").freeze(), "is frozen"),
    ]
    first = filled(grid.field("temperature"), 2)
    for field, message in cases:
        assert message in refuse(load, path, first, field, error=InputError)
    assert np.array_equal(first.interior, numbers((12, 10), float, 2)[grid.block])


@pytest.mark.mpi
def test_a_file_that_is_missing_or_broken_on_one_rank_is_refused_on_all(comm, folder, grid):
    u = filled(grid.field("u"))
    save(folder / "state.h5", u)
    whole = (folder / "state.h5").read_bytes()
    mine = folder / f"{comm.rank}.h5"
    last = comm.rank == comm.size - 1
    mine.write_bytes(whole)
    load(mine, u)
    for content in (whole[: len(whole) // 2], b"text", b""):
        mine.write_bytes(content if last else whole)
        assert "not a whole HDF5 file" in refuse(load, mine, u, error=InputError)
    if last:
        mine.unlink()
    assert "there is no file" in refuse(load, mine, u, error=InputError)


# -- the layout in memory -----------------------------------------------------------------------------------------

positions = st.integers(0, 20_000)
actions = st.one_of(
    st.tuples(st.just("write"), positions, st.binary(min_size=1, max_size=9000)),
    st.tuples(st.just("read"), positions, st.integers(0, 9000)),
)


@given(st.lists(actions, max_size=12), positions)
def test_a_sparse_file_is_a_file(tmp_path_factory, steps, size):
    sparse, plain = SparseFile(), io.BytesIO()
    for action, position, argument in steps:
        assert sparse.seek(position) == plain.seek(position)
        assert getattr(sparse, action)(argument) == getattr(plain, action)(argument)
        assert sparse.tell() == plain.tell()
    assert sparse.seek(0, os.SEEK_END) == plain.seek(0, os.SEEK_END)
    sparse.truncate(size)
    path = Path(tmp_path_factory.mktemp("sparse"), "file")
    sparse.copy_to(path)
    assert path.read_bytes() == plain.getvalue()[:size].ljust(size, b"\0")
