"""hf.Checkpoints: what is restored is what was saved, bit for bit on any number of ranks, or all ranks raise."""

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from mpi4py import MPI

import hpcframe as hf
from hpcframe.checkpoint import tiles
from hpcframe.checkpoint.manifest import NAME, decode
from hpcframe.checkpoint.verify import extents_of, read_manifest, verify
from hpcframe.errors import HpcframeError, InputError, NoCheckpointError

PATIENCE = 60  # s: what takes longer hangs
SHAPE, BOX = (12, 10), {"extent": (6.0, 10.0), "origin": (1.0, -3.0), "periodic": (True, False)}
FIELDS = {  # options of the fields: each of another kind
    "u": {},
    "flux": {"dtype": np.float32, "components": (2,), "staggered": (0, 1)},
    "phase": {"dtype": np.int32, "halo": 0},
    "psi": {"dtype": complex, "staggered": (1,)},
}
WAYS = {
    "direct": {"driver": "direct"},
    "direct, 3 files": {"driver": "direct", "files": 3},
    "asynchronous": {"asynchronous": True},
    "asynchronous, 3 files": {"asynchronous": True, "files": 3},
    "mpio": {"driver": "mpio"},
    "mpio, collective": {"driver": "mpio", "collective": True},
    "mpio, 3 files": {"driver": "mpio", "files": 3},
}


def way(name: str):
    return pytest.param(WAYS[name], id=name)


every_way = pytest.mark.parametrize("options", [way(name) for name in WAYS])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So small that fields of a few hundred values have many, which do not end where blocks do."""
    monkeypatch.setattr(tiles, "TILE_BYTES", 200)


@pytest.fixture
def folder(comm, tmp_path):
    """One folder for all ranks, not made yet."""
    return comm.bcast(tmp_path) / "checkpoints"


def numbers(name: str, shape, dtype, step: int) -> np.ndarray:
    """A global array of any bits: not a number, negative zero and infinity among them."""
    random = np.random.default_rng([step, *name.encode()])
    if np.dtype(dtype).kind == "i":
        return random.integers(-(2**31), 2**31, shape, dtype)
    parts = random.normal(size=(2, *shape))
    parts[:, random.random(shape) < 0.1] = -0.0
    parts[0, random.random(shape) < 0.1] = np.nan
    parts[1, random.random(shape) < 0.1] = -np.inf
    whole = np.empty(shape, dtype)
    if whole.dtype.kind == "c":
        whole.real, whole.imag = parts
    else:
        whole[...] = parts[0]
    return whole


def a_grid(comm, **options) -> hf.Grid:
    return hf.Grid(SHAPE, comm=comm, **BOX | options)


def make_fields(grid, halo=None) -> dict[str, hf.Field]:
    more = {} if halo is None else {"halo": halo}
    return {name: grid.field(name, **options | more) for name, options in FIELDS.items()}


def part(field, step: int) -> np.ndarray:
    return numbers(field.name, field.shape, field.dtype, step)[(..., *field.block)]


def fill(fields: dict[str, hf.Field], step: int) -> dict[str, hf.Field]:
    for field in fields.values():
        field.interior[...] = part(field, step)
    return fields


def is_of(fields: dict[str, hf.Field], step: int) -> bool:
    """Whether all bits of this rank's blocks are those of a step."""
    return all(field.interior.tobytes() == part(field, step).tobytes() for field in fields.values())


def saved(comm, folder, steps=(10, 20), **options) -> hf.Checkpoints:
    """Checkpoints with `numbers`, each with its step among the attributes."""
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(step, fill(fields, step), attributes={"step": step}, time=step / 8)
    checkpoints.wait()
    comm.Barrier()
    return checkpoints


def restored(comm, folder, **options):
    """What a new run on these ranks continues from, and its fields."""
    fields = make_fields(a_grid(comm))
    return hf.Checkpoints(folder).restore(fields, **options), fields


def on_one(comm, action, *arguments) -> None:
    """Do something on rank 0 before all go on."""
    if comm.rank == 0:
        action(*arguments)
    comm.Barrier()


def agreed(comm, value):
    """A value that is the same on every rank."""
    everywhere = comm.allgather(value)
    assert all(other == value for other in everywhere), everywhere
    return value


def refused(action, *arguments, error=HpcframeError, **options) -> str:
    """The message of the error that the action raises on this rank, as on every other."""
    with pytest.raises(error) as caught:
        action(*arguments, **options)
    return str(caught.value)


def names_in(comm, folder) -> list[str]:
    """What is in a folder, but for the records in capitals."""
    return comm.bcast(sorted(path.name for path in folder.iterdir() if not path.name[0].isupper()))


@contextmanager
def no_file_larger(size, here):
    """Let the system refuse to write a file beyond this size on this rank, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if here:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- what is saved is restored ------------------------------------------------------------------------------------


@pytest.mark.mpi
@every_way
def test_every_bit_comes_back_into_a_grid_of_another_halo_and_layout(comm, folder, options):
    grid = a_grid(comm, ranks=(1, comm.size))
    checkpoints = hf.Checkpoints(folder, **options)
    random = np.random.default_rng(1)
    attributes = {"random": random.bit_generator.state, "name": "a", "weights": np.arange(3.0), "big": 2**100}
    checkpoints.save(7, fill(make_fields(grid), 7), attributes=attributes, time=0.1 + 0.2)
    checkpoints.wait()
    expected = random.normal(size=5)
    other = a_grid(comm, ranks=(comm.size, 1))
    fields = make_fields(other, halo=2)
    found = hf.Checkpoints(folder).restore(fields)
    assert is_of(fields, 7)
    assert (found.step, found.time, other.time) == (7, 0.1 + 0.2, 0.1 + 0.2)
    assert (found.attributes["name"], found.attributes["big"]) == ("a", 2**100)
    assert np.array_equal(found.attributes["weights"], np.arange(3.0))
    random = np.random.default_rng(2)
    random.bit_generator.state = found.attributes["random"]
    assert np.array_equal(random.normal(size=5), expected)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("shape", "periodic"), [((37,), False), ((5,), True), ((7, 9, 6), (True, False, True)), ((4, 1, 40), False)]
)
@pytest.mark.parametrize("options", [WAYS["direct"], WAYS["asynchronous, 3 files"]], ids=["direct", "asynchronous"])
def test_grids_of_one_and_three_axes(comm, folder, shape, periodic, options):
    grid = hf.Grid(shape, periodic=periodic, comm=comm)
    staggered = tuple(range(len(shape)))
    fields = {"a": grid.field("a", halo=0), "b": grid.field("b", components=(2, 2), staggered=staggered, halo=0)}
    checkpoints = hf.Checkpoints(folder, **options)
    checkpoints.save(1, fill(fields, 1))
    checkpoints.wait()
    fill(fields, 2)
    assert hf.Checkpoints(folder).restore(fields).step == 1
    assert is_of(fields, 1)


@pytest.mark.mpi
@every_way
def test_any_number_of_ranks_continues_what_another_saved(comm, folder, options):
    half = comm.Split(comm.rank % 2)
    saved(half, folder / str(comm.rank % 2), **options)
    comm.Barrier()
    for number in range(min(comm.size, 2)):
        found, fields = restored(comm, folder / str(number))
        assert (found.step, is_of(fields, 20)) == (20, True)
    for number in range(min(comm.size, 2)):
        found, fields = restored(MPI.COMM_SELF, folder / str(number), path=folder / str(number))
        assert (found.step, is_of(fields, 20)) == (20, True)


@pytest.mark.mpi
@every_way
def test_the_files_have_the_same_bytes_on_any_number_of_ranks(comm, folder, options):
    saved(comm, folder / "all", steps=[3], **options)
    saved(MPI.COMM_SELF, folder / f"only-{comm.rank}", steps=[3], driver="direct", files=options.get("files", 1))
    ours, alone = folder / "all/step-0000003", folder / f"only-{comm.rank}/step-0000003"
    files = sorted(path.name for path in ours.glob("*.h5"))
    assert len(files) == (4 if options.get("files") else 1)
    assert files == sorted(path.name for path in alone.glob("*.h5"))
    for name in files:
        assert (ours / name).read_bytes() == (alone / name).read_bytes(), name
        assert not any(tracks_times(ours / name)), "the bytes depend on the time"
    one, other = (decode((path / NAME).read_text()) for path in (ours, alone))
    assert (one.arrays, one.rest, one.files, one.attributes) == (
        other.arrays,
        other.rest,
        other.files,
        other.attributes,
    )


def tracks_times(path: Path) -> list[bool]:
    """For each dataset of a file whether it notes when it was made."""
    with h5py.File(path) as file:
        datasets = [item for item in file.values() if isinstance(item, h5py.Dataset)]
        return [dataset.id.get_create_plist().get_obj_track_times() for dataset in datasets]


@pytest.mark.mpi
@every_way
def test_all_of_a_checkpoint_verifies(comm, folder, options):
    saved(comm, folder, steps=[3], **options)
    manifest = verify(folder / "step-0000003")
    assert [(record.name, record.shape) for record in manifest.arrays] == [
        ("u", (12, 10)),
        ("flux", (2, 12, 11)),
        ("phase", (12, 10)),
        ("psi", (12, 11)),
    ]
    assert all(len(record.tiles) > 3 for record in manifest.arrays)


@pytest.mark.mpi
def test_only_some_fields_may_be_restored_and_a_mapping_names_them(comm, folder):
    grid = a_grid(comm)
    new, old = grid.fields("u", "u")
    new.fill(lambda x, y: x + y)
    old.fill(lambda x, y: x - y)
    hf.Checkpoints(folder).save(1, {"u": new, "u_old": old})
    (field,) = grid.fields("anything")
    hf.Checkpoints(folder).restore({"u_old": field})
    assert np.array_equal(field.interior, old.interior)


@pytest.mark.mpi
def test_a_halo_is_not_fresh_after_a_restore(comm, folder):
    grid = a_grid(comm)
    fields = fill(make_fields(grid), 1)
    hf.Checkpoints(folder).save(1, fields)
    del fields["phase"]  # it has no halo
    for field in fields.values():
        field.fill(0)
        field.exchange()
        assert field.fresh
    hf.Checkpoints(folder).restore(fields)
    assert not any(field.fresh for field in fields.values())


# -- other programs read it ---------------------------------------------------------------------------------------


@pytest.mark.mpi
@every_way
def test_plain_h5py_reads_the_global_arrays(comm, folder, options, monkeypatch):
    saved(comm, folder, steps=[5], **options)
    monkeypatch.chdir("/")  # wherever it is opened from
    with h5py.File(folder / "step-0000005/state.h5") as file:
        for name in FIELDS:
            whole = file[name][...]
            assert whole.tobytes() == numbers(name, whole.shape, whole.dtype, 5).tobytes()
        part = file["u"][3:9, 4:]
        assert part.tobytes() == numbers("u", SHAPE, float, 5)[3:9, 4:].tobytes()
        assert np.array_equal(file["x"], 1.25 + 0.5 * np.arange(12))
        assert np.array_equal(file["y_face"], -3.0 + np.arange(11))
        assert [scale[0].name for scale in file["flux"].dims] == ["/flux_component", "/x_face", "/y_face"]
        assert (file.attrs["step"], file.attrs["time"]) == (5, 5 / 8)


@pytest.mark.mpi
@every_way
def test_xarray_opens_it_with_coordinates(comm, folder, options):
    saved(comm, folder, steps=[5], **options)
    with xarray.open_dataset(folder / "step-0000005/state.h5", engine="h5netcdf") as data:
        assert data["u"].dims == ("x", "y")
        assert data["psi"].dims == ("x", "y_face")
        assert data["u"].values.tobytes() == numbers("u", SHAPE, float, 5).tobytes()
        expected = numbers("u", SHAPE, float, 5)[2, 7]
        assert np.array_equal(data["u"].sel(x=2.25, y=4.5), expected, equal_nan=True)


# -- what is damaged is never restored ----------------------------------------------------------------------------


def flip(path: Path, position: int) -> None:
    """Flip one bit."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 16]))


def flip_in_tile(checkpoint: Path, name: str, which: int) -> None:
    manifest = decode((checkpoint / NAME).read_text())
    extent = next(record for record in manifest.arrays if record.name == name).tiles[which]
    flip(checkpoint / manifest.files[extent.file].name, extent.offset + extent.length // 3)


def data_file(checkpoint: Path) -> Path:
    return sorted(checkpoint.glob("*.h5"))[0]


def truncate(checkpoint: Path) -> None:
    os.truncate(data_file(checkpoint), data_file(checkpoint).stat().st_size - 1)


def swap_tiles(checkpoint: Path) -> None:
    """Two tiles of the same length in each other's place: each has a right checksum, for another place."""
    first, second = decode((checkpoint / NAME).read_text()).arrays[0].tiles[:2]
    with open(data_file(checkpoint), "r+b") as file:
        tile = []
        for extent in (first, second):
            file.seek(extent.offset)
            tile.append(file.read(extent.length))
        for extent, content in zip((second, first), tile, strict=True):
            file.seek(extent.offset)
            file.write(content)


DAMAGE = {
    "a bit of the first tile": (lambda path: flip_in_tile(path, "u", 0), "tile 0 of 'u'"),
    "a bit of the last tile": (lambda path: flip_in_tile(path, "psi", -1), "of 'psi'"),
    "two tiles exchanged": (swap_tiles, "of 'u'"),
    "a file is missing": (lambda path: data_file(path).unlink(), "there is no file"),
    "a file is shorter": (truncate, "bytes, not"),
    "the manifest is missing": (lambda path: (path / NAME).unlink(), NAME),
    "a bit of the manifest": (lambda path: flip(path / NAME, 300), NAME),
    "the manifest breaks off": (lambda path: os.truncate(path / NAME, 1000), NAME),
    "the manifest is a folder": (lambda path: [(path / NAME).unlink(), (path / NAME).mkdir()], NAME),
    "the manifest is of another step": (
        lambda path: shutil.copy(path.parent / "step-0000010" / NAME, path / NAME),
        "is that of step 10",
    ),
    "it is the copy of another": (
        lambda path: [shutil.rmtree(path), shutil.copytree(path.parent / "step-0000010", path)],
        "is that of step 10",
    ),
    "all is gone": (lambda path: [file.unlink() for file in path.iterdir()], NAME),
}


@pytest.mark.mpi
@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("files", [1, 3], ids=["1 file", "3 files"])
def test_a_damaged_one_is_set_aside_and_the_older_taken(comm, folder, damage, reason, files):
    saved(comm, folder, files=files)
    on_one(comm, damage, folder / "step-0000020")
    found, fields = restored(comm, folder)
    assert (found.step, found.time, found.attributes) == (10, 10 / 8, {"step": 10})
    assert is_of(fields, 10)
    assert len(agreed(comm, found.refused)) == 1
    assert found.refused[0].startswith("step-0000020: ")
    assert reason in found.refused[0]
    assert reason in (folder / "step-0000020.bad/REASON.txt").read_text()
    assert names_in(comm, folder) == ["step-0000010", "step-0000020.bad"]


@pytest.mark.mpi
@pytest.mark.parametrize("files", [1, 3], ids=["1 file", "3 files"])
def test_damage_in_any_tile_is_noticed_on_all_ranks(comm, folder, files):
    saved(comm, folder, steps=[10], files=files)
    checkpoint = folder / "step-0000010"
    manifest = read_manifest(checkpoint)
    count = len([what for what, _ in extents_of(manifest) if "tile" in what])
    assert count > 20
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder)
    for number, (what, extent) in enumerate(extents_of(manifest)[:count]):
        file = checkpoint / manifest.files[extent.file].name
        position = extent.offset + number % extent.length
        on_one(comm, flip, file, position)
        message = refused(checkpoints.restore, fields, path=checkpoint, error=NoCheckpointError)
        assert what in agreed(comm, message)
        comm.Barrier()
        on_one(comm, flip, file, position)
    assert checkpoints.restore(fields, path=checkpoint).step == 10
    assert is_of(fields, 10)


@pytest.mark.mpi
def test_after_a_damaged_one_its_step_can_be_saved_again(comm, folder):
    saved(comm, folder)
    on_one(comm, flip_in_tile, folder / "step-0000020", "u", 3)
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder)
    checkpoints.restore(fields)
    checkpoints.save(20, fill(fields, 21))
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 21)) == (20, True)
    assert names_in(comm, folder) == ["step-0000010", "step-0000020", "step-0000020.bad"]


@pytest.mark.mpi
def test_where_none_can_be_used_every_start_says_so_on_all_ranks(comm, folder):
    saved(comm, folder)
    on_one(comm, flip_in_tile, folder / "step-0000020", "u", 1)
    on_one(comm, truncate, folder / "step-0000010")
    for _ in range(2):
        message = agreed(comm, refused(restored, comm, folder, error=NoCheckpointError))
        assert "step-0000020: tile 1 of 'u'" in message
        assert "step-0000010: " in message
        comm.Barrier()
    assert names_in(comm, folder) == ["step-0000010", "step-0000020"]


@pytest.mark.mpi
def test_where_there_is_none_the_fields_stay(comm, folder):
    grid = a_grid(comm)
    fields = fill(make_fields(grid), 4)
    grid.time = 3.5
    assert hf.Checkpoints(folder).restore(fields) is None
    assert is_of(fields, 4)
    assert grid.time == 3.5


@pytest.mark.mpi
def test_the_third_start_without_a_new_checkpoint_takes_the_older_and_the_fourth_is_refused(comm, folder):
    saved(comm, folder)
    assert [restored(comm, folder)[0].step for _ in range(3)] == [20, 20, 10]
    assert "3 restarts" in refused(restored, comm, folder, error=NoCheckpointError)


@pytest.mark.mpi
def test_a_new_checkpoint_ends_the_count_of_starts(comm, folder):
    saved(comm, folder)
    for step in range(21, 26):
        fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder)
        assert checkpoints.restore(fields).step == step - 1
        checkpoints.save(step, fields)


@pytest.mark.mpi
def test_one_that_is_named_is_read_and_left_as_it_is(comm, folder):
    saved(comm, folder)
    on_one(comm, flip_in_tile, folder / "step-0000020", "u", 1)
    before = names_in(comm, folder)
    for _ in range(4):  # nor are starts counted
        found, fields = restored(comm, folder.parent / "mine", path=folder)
        assert (found.step, is_of(fields, 10)) == (10, True)
        refused(restored, comm, folder.parent / "mine", path=folder / "step-0000020", error=NoCheckpointError)
        found, _ = restored(comm, folder.parent / "mine", path=folder / "step-0000010")
        assert found.path == folder / "step-0000010"
    assert names_in(comm, folder) == before
    message = refused(restored, comm, folder, path=folder.parent / "nowhere", error=InputError)
    assert "nowhere is no checkpoint" in message


# -- errors are raised on all ranks, and former checkpoints stay --------------------------------------------------


@pytest.mark.mpi
@every_way
@pytest.mark.parametrize("where", [0, -1], ids=["first rank", "last rank"])
def test_what_one_rank_cannot_write_all_ranks_learn(comm, folder, options, where):
    checkpoints = saved(comm, folder, **options)
    fields = fill(make_fields(a_grid(comm)), 30)
    checkpoints = hf.Checkpoints(folder, **options)
    checkpoints.restore(fields)
    fill(fields, 30)
    with no_file_larger(1000, here=comm.rank == where % comm.size):
        message = refused(lambda: [checkpoints.save(30, fields), checkpoints.wait()])
    assert "File too large" in message
    comm.Barrier()
    assert names_in(comm, folder) == ["step-0000010", "step-0000020"]
    assert checkpoints.saved is None
    checkpoints.save(30, fields)
    checkpoints.wait()
    assert checkpoints.saved == 30
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 30)) == (30, True)


@pytest.mark.mpi
def test_the_next_save_tells_that_the_one_behind_the_program_failed(comm, folder):
    fields = fill(make_fields(a_grid(comm)), 1)
    checkpoints = hf.Checkpoints(folder, asynchronous=True)
    with no_file_larger(1000, here=comm.rank == comm.size - 1):
        checkpoints.save(1, fields)
        message = refused(checkpoints.save, 2, fields)
    assert "File too large" in message
    checkpoints.save(3, fields)
    checkpoints.wait()
    comm.Barrier()
    assert names_in(comm, folder) == ["step-0000003"]


@pytest.mark.mpi
@pytest.mark.parametrize("options", [WAYS["direct"], WAYS["asynchronous"]], ids=["direct", "asynchronous"])
def test_a_file_in_place_of_the_folder_is_refused_by_all(comm, folder, options):
    on_one(comm, folder.write_text, "mine")
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder, **options)
    for action in (lambda: checkpoints.save(1, fields), lambda: checkpoints.restore(fields)):
        message = refused(action, error=InputError)
        assert str(folder) in message
    assert folder.read_text() == "mine"


@pytest.mark.mpi
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused_by_all(comm, folder):
    saved(comm, folder)
    on_one(comm, folder.chmod, 0o555)
    message = refused(hf.Checkpoints(folder).save, 30, make_fields(a_grid(comm)), error=InputError)
    assert str(folder) in message
    comm.Barrier()
    on_one(comm, folder.chmod, 0o755)
    assert restored(comm, folder)[0].step == 20


@pytest.mark.mpi
@pytest.mark.parametrize("options", [WAYS["direct"], WAYS["asynchronous"]], ids=["direct", "asynchronous"])
def test_who_takes_the_folder_over_ends_the_saving_of_the_former(comm, folder, options):
    fields = fill(make_fields(a_grid(comm)), 10)
    former, later = hf.Checkpoints(folder, **options), hf.Checkpoints(folder, **options)
    former.save(10, fields)
    former.wait()
    assert later.restore(fields).step == 10
    message = refused(lambda: [former.save(20, fill(fields, 20)), former.wait()])
    assert "has taken" in message
    comm.Barrier()
    assert names_in(comm, folder) == ["step-0000010"]
    later.save(15, fill(fields, 15))
    later.wait()
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 15)) == (15, True)


# -- which are there ----------------------------------------------------------------------------------------------


@pytest.mark.mpi
@every_way
def test_the_latest_the_multiples_and_the_pinned_are_kept(comm, folder, options):
    saved(comm, folder, range(10, 90, 10), keep=2, keep_every=30, pinned=(20,), **options)
    kept = [f"step-00000{step}" for step in (20, 30, 60, 70, 80)]
    assert names_in(comm, folder) == kept


@pytest.mark.mpi
@every_way
def test_of_two_of_one_step_the_later_counts(comm, folder, options):
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder, **options)
    for content in (1, 2, 3):
        checkpoints.save(7, fill(fields, content))
    checkpoints.wait()
    comm.Barrier()
    assert names_in(comm, folder) == ["step-0000007"]
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 3)) == (7, True)


@pytest.mark.mpi
def test_what_lies_beyond_the_step_that_a_run_goes_on_from_is_not_taken_again(comm, folder):
    checkpoints = saved(comm, folder, steps=(10, 20, 30))
    fields = make_fields(a_grid(comm))
    checkpoints = hf.Checkpoints(folder)
    checkpoints.restore(fields, path=folder / "step-0000010")
    checkpoints.save(15, fill(fields, 15))
    assert names_in(comm, folder) == ["step-0000010", "step-0000015", "step-0000020.bad", "step-0000030.bad"]
    checkpoints.save(25, fill(fields, 25))
    checkpoints.restore(fields, path=folder / "step-0000010")  # once more, in the same program
    checkpoints.save(16, fill(fields, 16))
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 16)) == (16, True)


@pytest.mark.mpi
def test_a_run_that_continues_from_none_moves_the_former_ones_away(comm, folder):
    saved(comm, folder)
    checkpoints, fields = hf.Checkpoints(folder), fill(make_fields(a_grid(comm)), 5)
    checkpoints.save(5, fields)
    before, newest = names_in(comm, folder)
    assert (before.startswith("before-"), newest) == (True, "step-0000005")
    assert names_in(comm, folder / before) == ["step-0000010", "step-0000020"]
    if comm.rank == 0:
        assert any(before in notice for notice in checkpoints.notices)
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 5)) == (5, True)
    found, fields = restored(comm, folder, path=folder / before)
    assert (found.step, is_of(fields, 20)) == (20, True)


@pytest.mark.mpi
def test_what_an_interrupted_run_left_is_put_in_order(comm, folder):
    def leave():
        (folder / ".step-0000030.0a1b.partial").mkdir()
        (folder / ".step-0000030.0a1b.partial/state.h5").write_bytes(b"half")
        (folder / "step-0000010").rename(folder / ".step-0000010.0a1b.removed")
        (folder / "step-0000020").rename(folder / ".step-0000020.0a1b.replaced")

    saved(comm, folder)
    on_one(comm, leave)
    found, fields = restored(comm, folder)
    assert (found.step, is_of(fields, 20)) == (20, True)
    assert names_in(comm, folder) == ["step-0000020"]


# -- behind the program -------------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_what_changes_after_save_does_not_change_the_checkpoint(comm, folder):
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder, asynchronous=True)
    attributes = {"list": [0], "array": np.zeros(3)}
    for step in (1, 2, 3, 4):
        attributes["list"][0] = attributes["array"][:] = step
        checkpoints.save(step, fill(fields, step), attributes=attributes)
        fill(fields, 99)
        attributes["list"][0] = attributes["array"][:] = 99
    checkpoints.wait()
    assert checkpoints.saved == 4
    for step in (2, 3, 4):
        found, fields = restored(comm, folder, path=folder / f"step-{step:07d}")
        assert is_of(fields, step)
        assert found.attributes["list"] == [step]
        assert np.array_equal(found.attributes["array"], [step] * 3)


@pytest.mark.mpi
def test_restore_waits_for_what_is_being_written(comm, folder):
    fields, checkpoints = make_fields(a_grid(comm)), hf.Checkpoints(folder, asynchronous=True)
    checkpoints.save(1, fill(fields, 1))
    fill(fields, 2)
    assert checkpoints.restore(fields).step == 1
    assert is_of(fields, 1)


PROGRAM = """
import sys
import numpy as np
import hpcframe as hf
grid = hf.Grid((700, 900))
u = grid.field("u").fill(lambda x, y: np.sin(40 * x) * y)
checkpoints = hf.Checkpoints(sys.argv[1], asynchronous=True)
if len(sys.argv) > 2:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
checkpoints.save(12, u, attributes={"a": 1})
"""


def run_program(folder: Path, ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--", sys.executable, "program.py"]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_program_that_ends_after_save_still_completes_it(tmp_path, ranks, comm):
    job = run_program(tmp_path, ranks, "checkpoints")
    assert (job.returncode, job.stderr) == (0, "")
    u = hf.Grid((700, 900), comm=comm).field("u")
    assert hf.Checkpoints(tmp_path / "checkpoints").restore(u).step == 12
    x, y = u.coordinates()
    assert np.array_equal(u.interior, np.sin(40 * x) * y)


def test_a_program_that_ends_while_its_checkpoint_fails_says_so(tmp_path):
    job = run_program(tmp_path, 1, "checkpoints", "full")
    assert "step 12 was not completed" in job.stderr
    assert "File too large" in job.stderr
    assert [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith("step")] == []


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_a_frozen_field_is_saved_but_not_restored(comm, folder):
    velocity = a_grid(comm).field("velocity").fill(2.0).freeze()
    checkpoints = hf.Checkpoints(folder)
    checkpoints.save(1, velocity)
    assert "'velocity' is frozen" in refused(checkpoints.restore, velocity, error=InputError)
    other = a_grid(comm).field("velocity")
    hf.Checkpoints(folder).restore(other)
    assert np.all(other.interior == 2.0)


OTHERS = {
    "another name": (lambda comm: a_grid(comm).field("fluxx"), "holds no field 'fluxx'; did you mean 'flux'?"),
    "another dtype": (lambda comm: a_grid(comm).field("u", dtype=np.float32), "the field here is float32"),
    "another shape": (lambda comm: hf.Grid((12, 11), comm=comm).field("u"), "of shape [12, 11]"),
    "more components": (lambda comm: a_grid(comm).field("u", components=3), "of shape [3, 12, 10]"),
    "staggered": (lambda comm: a_grid(comm).field("u", staggered=0), "staggered"),
    "another box": (lambda comm: a_grid(comm, extent=(6.0, 11.0)).field("u"), "grid's spacing is"),
    "another place": (lambda comm: a_grid(comm, origin=(0.0, 0.0)).field("u"), "grid's origin is"),
    "other walls": (lambda comm: a_grid(comm, periodic=False).field("u"), "grid's periodic is"),
}


@pytest.mark.mpi
@pytest.mark.parametrize(("make", "message"), OTHERS.values(), ids=OTHERS)
def test_fields_that_the_checkpoint_does_not_hold_are_refused(comm, folder, make, message):
    saved(comm, folder)
    assert message in refused(hf.Checkpoints(folder).restore, make(comm), error=InputError)
    comm.Barrier()
    assert names_in(comm, folder) == ["step-0000010", "step-0000020"]
    assert restored(comm, folder)[0].step == 20


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["", ".", "x", "y_face", "a/b", "a\0b"])
def test_names_that_no_dataset_can_have_are_refused(comm, folder, name):
    u = a_grid(comm).field("u")
    message = refused(hf.Checkpoints(folder).save, 1, {name: u}, error=InputError)
    assert f"cannot be named '{name}'" in message
    assert not folder.exists()


@pytest.mark.mpi
def test_calls_that_cannot_be_are_refused_before_anything_is_written(comm, folder):
    grid, other = a_grid(comm), hf.Grid((8, 8), comm=comm)
    u, again, elsewhere = grid.field("u"), grid.field("u"), other.field("w")
    checkpoints = hf.Checkpoints(folder)
    calls = {
        "give the fields": (1,),
        "two fields are named 'u'": (1, u, again),
        "another grid": (1, u, elsewhere),
        "not a ndarray": (1, np.zeros(3)),
        "at least 0": (-1, u),
        "whole number": (1.5, u),
        "step True": (True, u),
    }
    for message, arguments in calls.items():
        assert message in refused(checkpoints.save, *arguments, error=InputError)
    assert "attribute 'a'" in refused(checkpoints.save, 1, u, attributes={"a": object()}, error=InputError)
    assert "number of seconds" in refused(checkpoints.save, 1, u, time="now", error=InputError)
    checkpoints.save(1, u)
    assert "another grid" in refused(checkpoints.save, 2, elsewhere, error=InputError)
    assert names_in(comm, folder) == ["step-0000001"]


@pytest.mark.mpi
def test_attributes_that_one_rank_alone_cannot_keep_are_refused_on_all(comm, folder):
    attributes = {"a": object()} if comm.rank == comm.size - 1 else {}
    u = a_grid(comm).field("u")
    assert "attribute 'a'" in refused(hf.Checkpoints(folder).save, 1, u, attributes=attributes, error=InputError)


@pytest.mark.mpi
def test_numpys_numbers_are_numbers(comm, folder):
    grid = a_grid(comm)
    grid.time = np.float32(0.5)
    fields = fill(make_fields(grid), 3)
    hf.Checkpoints(folder).save(np.int64(3), fields)
    found, _ = restored(comm, folder)
    assert (found.step, found.time) == (3, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kep": 3}, "did you mean 'keep'?"),
        ({"keep": 0}, "keep"),
        ({"files": 0}, "files"),
        ({"files": True}, "files"),
        ({"keep_every": -1}, "keep_every"),
        ({"pinned": 5}, "pinned"),
        ({"driver": "mpi"}, "driver"),
        ({"asynchronous": "no"}, "asynchronous"),
        ({"driver": "mpio", "asynchronous": True}, "choose 'direct'"),
    ],
)
def test_options_that_cannot_be_are_refused_when_they_are_given(tmp_path, options, message):
    assert message in refused(hf.Checkpoints, tmp_path, **options, error=InputError)


# -- an importer's own communicator -------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("options", [WAYS["direct"], WAYS["asynchronous"]], ids=["direct", "asynchronous"])
def test_parts_of_the_ranks_keep_their_own_checkpoints_at_their_own_pace(comm, folder, options):
    half = comm.Split(comm.rank % 2, key=-comm.rank)  # in reverse order
    own, fields = folder / str(comm.rank % 2), make_fields(a_grid(half))
    checkpoints = hf.Checkpoints(own, **options)
    steps = range(1, 3 + 2 * (comm.rank % 2))
    for step in steps:
        checkpoints.save(step, fill(fields, step + comm.rank % 2))
    checkpoints.wait()
    fill(fields, 99)
    assert checkpoints.restore(fields).step == steps[-1]
    assert is_of(fields, steps[-1] + comm.rank % 2)
