"""Runs with [staging]: what they leave in S3 is enough to go on from, and S3 never costs them anything."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from s3 import BUCKET
from staged import HPCFRAME, PATIENCE, URL, run, stage
from waiting import until

from hpcframe.checkpoint.manifest import NAME
from hpcframe.simulation.configuration import load

pytest_plugins = ["s3_fixtures"]

SIMULATION = f"""
[simulation]
model = "heat"
directory = "out"
[grid]
shape = [40, 36, 20]
[time]
steps = 60
[checkpoint]
every_steps = 20
[output]
every_steps = 30
picture = false
[staging]
url = "{URL}"
wait_seconds = 20
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sim.toml").write_text(SIMULATION)
    return tmp_path


def results(folder):
    """All that a run computed: its fields at the end, its diagnostics, its norms."""
    with h5py.File(folder / "out/output/step-0000060.h5") as file:
        fields = {name: file[name][...].tobytes() for name in ("u",)}
    summary = json.loads((folder / "out/summary.json").read_text())
    return fields, (folder / "out/diagnostics.csv").read_text(), summary["final"]


def test_a_run_leaves_all_in_s3_and_says_so(s3, folder):
    done = run(folder, ranks=2)
    assert done.returncode == 0, done.stderr
    assert f"in S3    {URL}" in done.stdout
    names = s3.names()
    assert len([name for name in names if name.endswith(NAME)]) >= 1
    assert {"mine/output/step-0000060.h5", "mine/summary.json", "mine/diagnostics.csv"} <= set(names)
    body = s3.client.get_object(Bucket=BUCKET, Key="mine/summary.json")["Body"].read()
    assert body == (folder / "out/summary.json").read_bytes()
    assert json.loads(body)["staging"]["url"] == URL
    assert s3.unfinished() == []
    assert stage("verify", URL).returncode == 0
    assert stage("wait", folder / "out").stdout.startswith("all is in S3")


@pytest.mark.parametrize("how", ["auto", "url"])
def test_a_new_cluster_goes_on_from_s3_to_the_same_bits(s3, folder, how):
    assert (
        run(
            folder, "--set", "time.steps=60", "--set", "simulation.directory=whole", "--set", f"staging.url={URL}/w"
        ).returncode
        == 0
    )
    shutil.move(folder / "whole", folder / "expected")
    interrupted = run(folder, "--set", "time.steps=40", ranks=2)
    assert interrupted.returncode == 0, interrupted.stderr
    shutil.rmtree(folder / "out")
    again = run(folder, *([] if how == "auto" else ["--restart", URL]), ranks=3)
    assert again.returncode == 0, again.stderr
    assert "continues from the checkpoint of step 40" in again.stdout
    assert f"pulled step-0000040 from {URL}" in again.stderr
    (folder / "reference").mkdir()
    shutil.move(folder / "expected", folder / "reference" / "out")
    ours, theirs = results(folder), results(folder / "reference")
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    assert how == "url" or ours[1] == theirs[1], "the diagnostics go on"
    if how == "auto":
        series = (folder / "out/output/series.xdmf").read_text()
        assert all(f"step-{step:07d}.h5" in series for step in (0, 30, 60))


def test_a_restart_that_fails_on_the_way_is_whole_the_next_time(s3, folder):
    """Once a checkpoint is there S3 is asked no more, so what goes with it has to be there before."""
    assert run(folder, "--set", "time.steps=40").returncode == 0
    kept = (folder / "out/diagnostics.csv").read_bytes()
    shutil.rmtree(folder / "out")
    with s3.failing("denied", method="GET", path="output/step-0000030"):
        refused = run(folder)
    assert refused.returncode != 0 and "AccessDenied" in refused.stderr
    again = run(folder)
    assert again.returncode == 0, again.stderr
    assert "continues from the checkpoint of step 40" in again.stdout
    assert (folder / "out/diagnostics.csv").read_bytes().startswith(kept)
    assert all((folder / f"out/output/step-{step:07d}.h5").exists() for step in (0, 30, 60))


def test_where_nothing_on_the_disk_verifies_s3_does(s3, folder):
    assert run(folder, "--set", "time.steps=40").returncode == 0
    for path in (folder / "out/checkpoints").glob("step-*/state.h5"):
        path.write_bytes(b"not what it was")
    again = run(folder, "--restart", "auto")
    assert again.returncode == 0, again.stderr
    assert "continues from the checkpoint of step 40" in again.stdout
    alone = run(folder, "--set", f"staging.url=s3://{BUCKET}/empty", "--set", "time.steps=60")
    assert alone.returncode == 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_restarts_in_vain_are_not_gone_on_with_from_s3(s3, folder, ranks):
    assert run(folder, "--set", "time.steps=40").returncode == 0
    checkpoints = folder / "out/checkpoints"
    present = sorted((int(path.name[5:]) for path in checkpoints.glob("step-???????")), reverse=True)
    (checkpoints / "ATTEMPTS.json").write_text(json.dumps({"tried": [40, 40, 20], "present": present}))
    before = {path: path.stat().st_mtime_ns for path in checkpoints.glob("step-*/*")}
    refused = run(folder, ranks=ranks)
    assert refused.returncode == 3 and "3 restarts, from step 40, 40, 20," in refused.stderr
    assert "pulled" not in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in checkpoints.glob("step-*/*")} == before


@pytest.mark.parametrize(
    ("action", "method", "says"),
    [
        ("no bucket", ".*", "aws s3 mb"),
        ("denied", ".*", "docs/staging.md"),
        ("denied", "PUT|POST", "docs/staging.md"),
        ("expired", ".*", "expired"),
    ],
)
def test_what_s3_refuses_ends_a_run_before_it_begins(s3, folder, action, method, says):
    with s3.failing(action, method=method):
        refused = run(folder, ranks=2)
    assert refused.returncode == 2, refused.stderr
    assert says in refused.stderr and "Traceback" not in refused.stderr
    assert not (folder / "out/diagnostics.csv").exists()


def test_a_dead_s3_costs_no_step_and_no_checkpoint(s3, folder):
    with s3.unreachable():
        unknown = run(folder, "--set", "staging.wait_seconds=1", ranks=2)
        assert unknown.returncode == 1 and "begin anew by --restart none" in unknown.stderr
        assert "Traceback" not in unknown.stderr
        done = run(folder, "--set", "staging.wait_seconds=1", "--restart", "none", ranks=2)
    assert done.returncode == 1, done.stderr
    assert "not all is in S3" in done.stdout and "hpcframe stage push" in done.stdout
    assert json.loads((folder / "out/summary.json").read_text())["status"] == "done"
    assert (folder / "out/checkpoints/step-0000060" / NAME).exists()
    pushed = stage("push", folder / "out")
    assert pushed.returncode == 0 and "pushed step-0000060" in pushed.stdout


def started(folder, *more):
    return subprocess.Popen(
        [HPCFRAME, "run", "sim.toml", *more], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def is_running(process):
    """A process whose parent is dead may wait for ever to be taken note of."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def uploader_of(folder):
    said = folder / "out/staging/uploader-0.json"
    until(lambda: said.exists() and json.loads(said.read_text())["ready"])
    return json.loads(said.read_text())["process"]


def test_an_uploader_that_is_killed_starts_again(s3, folder, monkeypatch):
    going = started(
        folder, "--set", "time.steps=100000000", "--set", "checkpoint.every_steps=2000", "--set", "output.every_steps=0"
    )
    first = uploader_of(folder)
    until(lambda: any(name.endswith(NAME) for name in s3.names()))
    time.sleep(10)  # it is not started again at once, lest one that cannot work uses a core
    os.kill(first, signal.SIGKILL)
    until(lambda: json.loads((folder / "out/staging/uploader-0.json").read_text())["process"] != first)
    before = set(s3.names())
    until(lambda: set(s3.names()) - before)
    going.send_signal(signal.SIGTERM)
    error = going.communicate(timeout=PATIENCE)[1]
    assert going.returncode == 75, error
    assert "starts again" in error


def test_a_run_that_is_killed_still_reaches_s3(s3, folder):
    going = started(folder, "--set", "time.steps=100000000", "--set", "checkpoint.every_steps=2000")
    process = uploader_of(folder)
    until(lambda: list((folder / "out/checkpoints").glob("step-*")))
    going.kill()
    going.wait()
    until(lambda: not is_running(process))
    newest = max((folder / "out/checkpoints").glob("step-???????")).name
    assert any(newest in name and name.endswith(NAME) for name in s3.names())
    assert list((folder / "out/staging/holds").iterdir()) == []


def test_a_checkpoint_on_its_way_stays_on_the_disk(s3, folder):
    with s3.failing("delay", method="PUT", path="checkpoints", seconds=3.0):
        going = started(
            folder, "--set", "time.steps=100000000", "--set", "checkpoint.every_steps=500", "--set", "checkpoint.keep=1"
        )
        uploader_of(folder)
        holds = folder / "out/staging/holds"
        until(lambda: list(holds.iterdir()))
        (held,) = (path.name for path in holds.iterdir())
        until(lambda: len(list((folder / "out/checkpoints").glob("step-???????"))) == 2)
        assert (folder / f"out/checkpoints/step-{int(held):07d}").exists()
        going.send_signal(signal.SIGTERM)
        going.communicate(timeout=PATIENCE)
    assert going.returncode == 75


# -- initial values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["h5", "npy", "npz"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_initial_values_come_from_s3_in_parts(s3, folder, suffix, ranks):
    values = np.random.default_rng(1).random((40, 36, 20))
    local = folder / f"start.{suffix}"
    if suffix == "h5":
        with h5py.File(local, "w") as file:
            file["u"] = values
    else:
        np.save(local, values) if suffix == "npy" else np.savez(local, u=values)
    s3.client.upload_file(str(local), BUCKET, f"data/start.{suffix}")
    common = ["--set", "time.steps=1", "--set", "checkpoint.every_steps=0", "--set", "output.every_steps=0"]
    ends = []
    for number, place in enumerate((f"s3://{BUCKET}/data/start.{suffix}", str(local))):
        options = [*common, "--set", f"simulation.directory=out{number}", "--set", f"staging.url={URL}/{number}"]
        done = run(folder, *options, "--set", f'initial.u={{file="{place}"}}', ranks=ranks)
        assert done.returncode == 0, done.stderr
        with h5py.File(folder / f"out{number}/output/step-0000001.h5") as file:
            ends.append(file["u"][...])
    assert np.array_equal(*ends)


def test_an_array_that_is_not_in_s3_is_named(s3, folder):
    refused = run(folder, "--set", f'initial.u={{file="s3://{BUCKET}/none.npy"}}')
    assert refused.returncode == 2 and "no such object" in refused.stderr


# -- the section ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('url = "mybucket"', "expected s3://bucket/prefix"),
        ('url = "s3://bucket/x"\naws_secret_access_key = "abc"', "no credentials are taken from this file"),
        ('url = "s3://bucket/x"\naccess_key = "abc"', "no credentials are taken from this file"),
        ('url = "s3://bucket/x"\nkepp = 3', "did you mean 'keep'"),
        ('url = "s3://bucket/x"\npart_size = 1000', "5242880"),
        ('url = "s3://bucket/x"\nstorage_class = "DEEP_ARCHIVE"', "GLACIER_IR"),
        ('url = "s3://bucket/x"\npush = []', "at least one of"),
        ("keep = 3", "missing"),
    ],
)
def test_a_section_that_cannot_be_is_refused(tmp_path, line, says):
    (tmp_path / "sim.toml").write_text(f'[simulation]\nmodel = "heat"\n[staging]\n{line}\n')
    with pytest.raises(ValueError, match=says) as refused:
        load(tmp_path / "sim.toml")
    assert "abc" not in str(refused.value)


# -- where a run's own URL leads --------------------------------------------------------------------------------


def test_a_run_whose_prefix_has_a_folder_checkpoints_goes_on_from_s3(s3, folder):
    own = ["--set", f"staging.url=s3://{BUCKET}/checkpoints/hillslope"]
    assert run(folder, *own, "--set", "time.steps=40").returncode == 0
    shutil.rmtree(folder / "out")
    again = run(folder, *own)
    assert again.returncode == 0, again.stderr
    assert "continues from the checkpoint of step 40" in again.stdout


def outputs_in_s3(s3):
    found = s3.client.list_objects_v2(Bucket=BUCKET, Prefix="mine/output/")["Contents"]
    return {each["Key"].rpartition("/")[2]: each["LastModified"] for each in found if each["Key"].endswith(".h5")}


@pytest.mark.parametrize("archived", [False, True])
def test_a_run_that_goes_on_from_s3_pushes_no_output_again_and_waits_for_no_archive(s3, folder, archived):
    assert run(folder, "--set", "time.steps=40").returncode == 0
    shutil.rmtree(folder / "out")
    first = "step-0000000.h5"
    if archived:
        s3.client.put_object(Bucket=BUCKET, Key=f"mine/output/{first}", Body=b"x", StorageClass="DEEP_ARCHIVE")
    before = outputs_in_s3(s3)
    again = run(folder, ranks=2)
    assert again.returncode == 0, again.stderr
    assert "continues from the checkpoint of step 40" in again.stdout
    assert (folder / "out/output" / first).exists() != archived
    assert ("1 file(s) of the output in s3://science/mine are archived" in again.stderr) == archived
    after = outputs_in_s3(s3)
    assert set(after) - set(before) == {"step-0000060.h5"}
    assert {name: after[name] for name in before} == before
