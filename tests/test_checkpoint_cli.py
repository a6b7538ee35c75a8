"""`hpcframe checkpoint`: what is there, whether it is right, and what can go; on a machine without MPI."""

import json
import os
import pty
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import hpcframe as hf
from hpcframe.checkpoint.manifest import NAME
from hpcframe.checkpoint.verify import extents_of, read_manifest

HPCFRAME = str(Path(sysconfig.get_path("scripts"), "hpcframe"))
STEPS = (10, 20, 30, 40)

# Runs the command as the entry point does, and says on standard error what it loaded of what no login node has.
RUN_AND_TELL = """
import sys
from hpcframe.cli import main
try:
    main()
finally:
    print("loaded:", sorted({"mpi4py", "h5py", "matplotlib"} & set(sys.modules)), file=sys.stderr)
"""


def command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HPCFRAME, "checkpoint", *map(str, arguments)], capture_output=True, text=True, timeout=100, **options
    )


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 4]))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The folder of a run with checkpoints of two fields, one of them of several tiles."""
    run = tmp_path_factory.mktemp("original") / "run"
    grid = hf.Grid((900, 900), extent=(2.0, 2.0))
    u, flow = grid.field("u"), grid.field("flow", dtype=np.float32, components=(2,))
    checkpoints = hf.Checkpoints(run / "checkpoints", keep=len(STEPS))
    attributes = {"model": "heat", "dt": 0.125, "random": np.random.default_rng(1).bit_generator.state}
    for step in STEPS:
        u.fill(lambda x, y, step=step: np.sin(x + step) + y)
        checkpoints.save(step, u, flow, attributes=attributes, time=step * 0.125)
    return run


@pytest.fixture
def run(original, tmp_path):
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def folder(run):
    return run / "checkpoints"


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:07d}"


def damage(checkpoint: Path, tile: int = 1) -> str:
    """Flip a bit of a tile; what the tile is called."""
    manifest = read_manifest(checkpoint)
    what, extent = extents_of(manifest)[tile]
    flip(checkpoint / manifest.files[extent.file].name, extent.offset + extent.length // 2)
    return what


# -- ls ---------------------------------------------------------------------------------------------------------


def test_a_run_its_folder_of_checkpoints_and_one_of_them_can_be_named(run, folder):
    by_run, by_folder = command("ls", run), command("ls", folder)
    assert by_run.returncode == 0, by_run.stderr
    assert by_run.stdout == by_folder.stdout
    head, *rows = by_run.stdout.splitlines()
    assert head.split()[0] == "step"
    assert [row.split()[0] for row in rows] == ["40", "30", "20", "10"]
    assert [row.split()[1] for row in rows] == ["5", "3.75", "2.5", "1.25"]  # s
    assert all(row.split()[-3:] == ["1", "direct", "complete"] for row in rows)
    one = command("ls", step_folder(folder, 20)).stdout.splitlines()
    assert [line.split()[0] for line in one] == ["step", "20"]
    assert command("ls", ".", cwd=step_folder(folder, 20)).stdout.splitlines()[1:] == one[1:]


def test_what_is_no_checkpoint_any_more_or_not_yet_is_listed_with_the_reason(run, folder):
    (step_folder(folder, 40) / NAME).write_text('{"manifest": {"sch')
    (step_folder(folder, 30) / "state.h5").unlink()
    aside = step_folder(folder, 20).rename(folder / "step-0000020.bad")
    (aside / "REASON.txt").write_text("tile 1 of 'u' is not what was written\n")
    step_folder(folder, 10).rename(folder / ".step-0000010.abc.partial")
    (folder / "before-20260101-000000-abcd").mkdir()
    shutil.copytree(aside, folder / "before-20260101-000000-abcd/step-0000070")
    done = command("ls", run)
    assert done.returncode == 0, done.stderr
    _, first, second, third, fourth, fifth = done.stdout.splitlines()
    assert first.startswith("40 ") and f"bad: {NAME} is not whole" in first
    assert second.startswith("30 ") and second.endswith("bad: there is no file state.h5")
    assert third.startswith("20 ") and third.endswith("set aside: tile 1 of 'u' is not what was written")
    assert fourth.startswith("10 ") and "not complete" in fourth
    assert "earlier run" in fifth and "before-20260101-000000-abcd" in fifth


@pytest.mark.parametrize("what", ["ls", "show", "verify", ("prune", "--keep", "1")])
def test_a_folder_without_checkpoints_is_the_users_error(tmp_path, what):
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "nowhere", "no such folder"), (tmp_path / "file", "this is a file"),
                         (tmp_path, "holds no checkpoints")):  # fmt: skip
        done = command(*([what] if isinstance(what, str) else what), path)
        assert done.returncode == 2
        assert reason in done.stderr and "give the folder of a run" in done.stderr
        assert "Traceback" not in done.stderr


# -- show -------------------------------------------------------------------------------------------------------


def test_show_says_what_is_in_the_newest(run):
    text = command("show", run).stdout
    for expected in (
        "step-0000040", "t = 5 s", "by 1 rank(s) as 1 x 1, driver direct", "900 x 900 cells", "model = 'heat'",
        "dt = 0.125", "random.bit_generator = 'PCG64'", "u: float64 of shape [900, 900]", "tile(s)",
        "flow: float32 of shape [2, 900, 900]", "hpcframe ",
    ):  # fmt: skip
        assert expected in text, text


def test_show_gives_the_manifest_to_other_programs(folder):
    body = json.loads(command("show", "--json", step_folder(folder, 20)).stdout)
    assert (body["step"], body["time"]) == (20, 2.5)
    assert body == json.loads((step_folder(folder, 20) / NAME).read_text())["manifest"]


def test_show_of_a_broken_manifest_says_where_to_look(folder):
    (step_folder(folder, 40) / NAME).write_text("")
    done = command("show", folder)
    assert done.returncode == 1
    assert f"{NAME} is not whole" in done.stderr and "hpcframe checkpoint ls" in done.stderr


# -- verify -----------------------------------------------------------------------------------------------------


def test_what_is_right_verifies(run):
    done = command("verify", run)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == ["ok"] * 4
    assert done.stderr == ""


@pytest.mark.parametrize("threads", [1, 3])
def test_a_flipped_bit_is_found_and_named(folder, threads):
    what = damage(step_folder(folder, 30))
    done = command("verify", folder, "--threads", threads)
    assert done.returncode == 1
    right, wrong, *others = done.stdout.splitlines()
    assert wrong.startswith(f"{step_folder(folder, 30)}: bad: {what} in state.h5, bytes ")
    assert all(line.endswith(": ok") for line in (right, *others))
    assert command("verify", step_folder(folder, 40)).returncode == 0
    assert command("verify", step_folder(folder, 30)).returncode == 1


def test_all_damage_is_counted(folder):
    first, *_ = (damage(step_folder(folder, 40), tile) for tile in (0, 2, -1))
    done = command("verify", step_folder(folder, 40))
    assert f"bad: {first} in state.h5" in done.stdout and "(and 2 more)" in done.stdout


def test_data_in_several_files_is_read_from_all_of_them(tmp_path):
    u = hf.Grid((64, 900, 100)).field("u").fill(lambda x, y, z: x + y + z)
    checkpoint = step_folder(tmp_path, 1)
    hf.Checkpoints(tmp_path, files=3).save(1, u)
    assert command("verify", tmp_path).returncode == 0
    last = read_manifest(checkpoint).arrays[0].tiles[-1]
    name = read_manifest(checkpoint).files[last.file].name
    assert name != "state.h5"
    flip(checkpoint / name, last.offset)
    done = command("verify", tmp_path)
    assert done.returncode == 1 and f"in {name}, bytes {last.offset} to" in done.stdout


def corrupt_manifest(checkpoint: Path) -> str:
    text = (checkpoint / NAME).read_text()
    (checkpoint / NAME).write_text(text.replace('"step":40', '"step":41'))
    return "does not have the checksum"


def cut_data(checkpoint: Path) -> str:
    length = (checkpoint / "state.h5").stat().st_size
    os.truncate(checkpoint / "state.h5", length - 1)
    return f"has {length - 1} bytes, not {length}"


def lose_data(checkpoint: Path) -> str:
    (checkpoint / "state.h5").unlink()
    return "there is no file state.h5"


def lose_manifest(checkpoint: Path) -> str:
    (checkpoint / NAME).unlink()
    return f"there is no {NAME}"


def swap_data(checkpoint: Path) -> str:
    """The data of another checkpoint, whole in itself."""
    shutil.copy(checkpoint.with_name("step-0000010") / "state.h5", checkpoint / "state.h5")
    return "is not what was written"


@pytest.mark.parametrize("harm", [corrupt_manifest, cut_data, lose_data, lose_manifest, swap_data])
def test_other_damage_is_found_and_named(folder, harm):
    expected = harm(step_folder(folder, 40))
    done = command("verify", step_folder(folder, 40))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{step_folder(folder, 40)}: bad: ") and expected in done.stdout
    assert "Traceback" not in done.stderr


def test_a_copy_under_another_name_can_be_verified(folder, tmp_path):
    copy = Path(shutil.copytree(step_folder(folder, 10), tmp_path / "a copy"))
    assert command("verify", copy).stdout == f"{copy}: ok\n"
    damage(copy)
    assert command("verify", copy).returncode == 1


def test_verification_reports_on_a_terminal_too(folder):
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "300"}
    process = subprocess.Popen([HPCFRAME, "checkpoint", "verify", folder], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while some := os.read(ours, 4096):
            shown += some
    except OSError:  # how Linux says that the other side has been closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert shown.count(b": ok") == 4
    assert b"MB" in shown  # the bar


# -- prune ------------------------------------------------------------------------------------------------------


def left(folder: Path) -> list[int]:
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".removed")]
    return sorted(int(path.name[5:]) for path in folder.glob("step-*") if path.suffix != ".bad")


def test_the_latest_stay_and_what_went_is_named(run, folder):
    size = sum(file.stat().st_blocks * 512 for file in step_folder(folder, 10).iterdir())
    tried = command("prune", run, "--keep", 2, "--dry-run")
    assert (tried.returncode, left(folder)) == (0, list(STEPS))
    done = command("prune", run, "--keep", 2)
    assert done.returncode == 0, done.stderr
    assert left(folder) == [30, 40]
    assert f"removed {step_folder(folder, 10)}, {size / 1e6:.3g} MB" in done.stdout
    assert "removed 2 checkpoint(s)" in done.stdout
    assert tried.stdout.replace("would remove", "removed") == done.stdout
    assert command("verify", run).returncode == 0


def test_every_so_many_steps_and_pinned_ones_stay(folder):
    assert command("prune", folder, "--keep", 1, "--every", 20).returncode == 0
    assert left(folder) == [20, 40]
    assert command("prune", folder, "--keep", 1, "--pin", 20).returncode == 0
    assert left(folder) == [20, 40]


def test_the_newest_that_verifies_stays_whatever_is_newer(folder):
    for step in (40, 30):
        damage(step_folder(folder, step))
    done = command("prune", folder, "--keep", 1)
    assert done.returncode == 0, done.stderr
    assert 20 in left(folder) and 10 not in left(folder)
    assert command("verify", step_folder(folder, 20)).returncode == 0
    assert "tile 1 of 'u'" in done.stderr  # what is wrong with the newer ones


def test_nothing_goes_where_nothing_verifies(folder):
    for step in STEPS:
        damage(step_folder(folder, step))
    done = command("prune", folder, "--keep", 1)
    assert done.returncode == 1
    assert "none of the checkpoints" in done.stderr
    assert left(folder) == list(STEPS)


def test_one_checkpoint_is_not_pruned(folder):
    done = command("prune", step_folder(folder, 40), "--keep", 1)
    assert done.returncode == 2
    assert "one checkpoint" in done.stderr


def test_a_run_continues_from_what_is_left(folder):
    assert command("prune", folder, "--keep", 1).returncode == 0
    u = hf.Grid((900, 900), extent=(2.0, 2.0)).field("u")
    restored = hf.Checkpoints(folder).restore(u)
    assert restored is not None and restored.step == 40
    expected = hf.Grid((900, 900), extent=(2.0, 2.0)).field("v").fill(lambda x, y: np.sin(x + 40) + y)
    assert np.array_equal(u.interior, expected.interior)


# -- without MPI ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["ls", "show", "verify", "prune"])
def test_neither_mpi_nor_hdf5_is_loaded(folder, what):
    options = ["--keep", "1"] if what == "prune" else []
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_TELL, "checkpoint", what, *options, folder],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "loaded: []\n"
