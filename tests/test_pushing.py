"""What gets to S3, when and in which order, whatever fails on the way; and what is said of it."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import msgspec
import pytest
from s3 import BUCKET
from staged import URL, checkpoint, stage
from waiting import until

from hpcframe.aws import AwsError
from hpcframe.checkpoint.manifest import NAME
from hpcframe.staging import companion, local, state
from hpcframe.staging import uploader as uploading
from hpcframe.staging.holds import Holder, held
from hpcframe.staging.options import MIB, Options
from hpcframe.staging.pushing import Pusher
from hpcframe.staging.store import Store
from hpcframe.staging.upload import Traffic
from hpcframe.staging.uploader import Job, Uploader
from hpcframe.staging.url import Location

pytest_plugins = ["s3_fixtures"]

PART = 5 * MIB  # the smallest that S3 takes


def pusher(folder, token="", **options):
    """As an uploader has it, after it asked S3 what there is."""
    chosen = Options(URL, part_size=PART, streams=2, **options)
    made = Pusher(folder / "checkpoints", chosen, Store(Location.parse(URL), chosen), Traffic(2), token=token)
    made.begin()
    return made


def uploader(folder, token="together", **options):
    """One that pushes in this process."""
    return Uploader(Job(str(folder / "checkpoints"), Options(URL, part_size=PART, streams=2, **options), token))


def started(folder, token="together", **options):
    """One that pushes in a process of its own."""
    job = Job(str(folder / "checkpoints"), Options(URL, part_size=PART, streams=2, **options), token)
    process = subprocess.Popen([sys.executable, "-m", "hpcframe.staging.uploader"], stdin=subprocess.PIPE)
    process.stdin.write(msgspec.json.encode(job) + b"\n")
    process.stdin.flush()
    return process


def finish(one):
    """All that is left of a run; whether all is in S3."""
    one.finishing.set()
    return one.run()


@pytest.fixture
def hasty(monkeypatch):
    """Pauses after failures that a test can wait for."""
    monkeypatch.setattr(uploading, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(uploading, "LONGEST_PAUSE", 0.1)


def put(folder, name, content=b"numbers"):
    """A file of a run's output."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def damaged(folder, step):
    """A checkpoint that the disk has changed a bit of."""
    path = checkpoint(folder, step)
    with open(path / "state.h5", "r+b") as file:
        file.seek(6 * MIB)
        byte = file.read(1)
        file.seek(6 * MIB)
        file.write(bytes([byte[0] ^ 1]))
    return path


def names(tasks):
    return [task.name for task in tasks]


def complete(s3):
    """Steps of the checkpoints that S3 has."""
    return sorted(int(key.split("step-")[1][:7]) for key in s3.names() if key.endswith(NAME))


# -- what is there is not sent again ----------------------------------------------------------------------------


def test_files_that_are_complete_are_not_sent_again_while_the_manifest_fails(s3, large, tmp_path):
    checkpoint(tmp_path, 7)
    for attempt in range(3):
        one, before = pusher(tmp_path, push=("checkpoints",)), s3.proxy.sent
        with s3.failing("denied", method="PUT", path=NAME), pytest.raises(AwsError):
            one.push(one.pending(finishing=True)[0])
        assert (s3.proxy.sent > before) == (attempt == 0)
    assert finish(uploader(tmp_path)) and complete(s3) == [7]
    assert stage("verify", URL).returncode == 0


def test_output_that_is_there_is_not_sent_again_and_what_changed_is(s3, tmp_path):
    for name in ("a", "b"):
        put(tmp_path, f"output/{name}.h5", b"as it was")
    assert finish(uploader(tmp_path))
    (tmp_path / "staging" / "pushed.json").unlink()  # as on a new cluster, which pulled it
    put(tmp_path, "output/b.h5", b"as it is!")
    s3.proxy.requests.clear()
    assert stage("push", tmp_path, URL).returncode == 0
    assert s3.proxy.requests["put"] == 1
    assert s3.client.get_object(Bucket=BUCKET, Key="mine/output/b.h5")["Body"].read() == b"as it is!"


def test_what_s3_had_already_is_no_movement_so_the_end_of_a_run_gives_up(s3, large, hasty, tmp_path):
    checkpoint(tmp_path, 7)
    one = uploader(tmp_path, wait_seconds=1.0)
    with s3.failing("denied", method="POST", path="uploadId="):
        trying = threading.Thread(target=finish, args=(one,), daemon=True)
        trying.start()
        trying.join(30)
        assert not trying.is_alive() and not one.state.finished
    assert one.state.failures > 1 and "AccessDenied" in one.state.error


# -- what failed is tried again, and what is on its way is brought there ----------------------------------------


def test_a_push_that_failed_is_tried_again_although_checkpoints_are_to_be_rare(s3, tmp_path):
    checkpoint(tmp_path, 7, size=16)
    one = pusher(tmp_path, every_seconds=3600.0)
    with s3.failing("denied", method="PUT"), pytest.raises(AwsError):
        one.push(one.pending(finishing=False)[0])
    (task,) = one.pending(finishing=False)
    one.push(task)
    checkpoint(tmp_path, 8, size=16)
    assert one.pending(finishing=False) == [] and one.deferred == ["step-0000008"]
    assert names(one.pending(finishing=True)) == ["step-0000008"] and one.deferred == []


@pytest.mark.parametrize("fails", ["partNumber=4", NAME])
def test_a_checkpoint_that_is_partly_there_comes_before_newer_ones(s3, large, tmp_path, fails):
    checkpoint(tmp_path, 7)
    one = pusher(tmp_path)
    with s3.failing("denied", method="PUT", path=fails), pytest.raises(AwsError):
        one.push(one.pending(finishing=False)[0])
    assert held(tmp_path) == {7}, "it must not go from the disk"
    checkpoint(tmp_path, 8)
    sent = s3.proxy.sent
    one.push(one.pending(finishing=False)[0])
    assert complete(s3) == [7] and s3.proxy.requests["abort"] == 0
    assert s3.proxy.sent - sent < 2 * PART, "what was sent is not sent again"
    assert held(tmp_path) == set()
    assert names(one.pending(finishing=False)) == ["step-0000008"]


def test_an_upload_of_a_checkpoint_that_is_gone_is_let_go_of(s3, large, tmp_path):
    path = checkpoint(tmp_path, 7)
    one = pusher(tmp_path)
    with s3.failing("denied", method="PUT", path="partNumber=4"), pytest.raises(AwsError):
        one.push(one.pending(finishing=False)[0])
    shutil.rmtree(path)
    checkpoint(tmp_path, 8)
    one.push(one.pending(finishing=False)[0])
    assert complete(s3) == [8] and s3.unfinished() == [] and held(tmp_path) == set()


def test_on_a_link_that_breaks_all_the_time_checkpoints_arrive_while_newer_ones_come(s3, large, hasty, tmp_path):
    checkpoint(tmp_path, 1)
    one = uploader(tmp_path)
    with s3.failing("denied", method="PUT", path="partNumber", fraction=0.8):
        pushing = threading.Thread(target=one.run, daemon=True)
        pushing.start()
        for step in (2, 3):
            failures = one.state.failures
            until(lambda before=failures: one.state.failures > before)
            checkpoint(tmp_path, step)
        until(lambda: complete(s3))
    one.finishing.set()
    pushing.join(60)
    assert one.state.finished and complete(s3) == [1, 3]
    assert s3.proxy.requests["abort"] == 1, "that of the probe"


def test_at_the_end_of_a_run_what_failed_is_tried_at_once(s3, monkeypatch, tmp_path):
    monkeypatch.setattr(uploading, "SHORTEST_PAUSE", 1000.0)
    monkeypatch.setattr(uploading, "LONGEST_PAUSE", 1000.0)
    checkpoint(tmp_path, 7, size=16)
    one = uploader(tmp_path, wait_seconds=0.0)
    pushing = threading.Thread(target=one.run, daemon=True)
    with s3.failing("denied"):
        pushing.start()
        until(lambda: one.state.failures)
    one.finishing.set()
    pushing.join(60)
    assert one.state.finished and complete(s3) == [7]


# -- what is damaged is not taken for pushed --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a bit", "shorter", "no file", "manifest", "no manifest"])
def test_a_run_whose_newest_checkpoint_is_damaged_does_not_end_as_if_all_were_there(s3, large, hasty, tmp_path, how):
    checkpoint(tmp_path, 7)
    bad = damaged(tmp_path, 8)
    if how == "shorter":
        os.truncate(bad / "state.h5", 6 * MIB)
    elif how == "no file":
        (bad / "state.h5").unlink()
    elif how == "manifest":
        (bad / NAME).write_bytes(b"{")
    elif how == "no manifest":
        (bad / NAME).unlink()
    one = uploader(tmp_path)
    assert not finish(one) and not one.state.finished
    assert "step-0000008" in one.state.error and complete(s3) == [7]
    assert s3.unfinished() == [] and held(tmp_path) == set()


def test_a_newer_checkpoint_makes_good_for_a_damaged_one(s3, large, hasty, tmp_path):
    damaged(tmp_path, 8)
    one = uploader(tmp_path)
    pushing = threading.Thread(target=one.run, daemon=True)
    pushing.start()
    until(lambda: one.state.left)
    shutil.copytree(checkpoint(tmp_path / "other", 9), tmp_path / "checkpoints" / "step-0000009")
    one.finishing.set()
    pushing.join(60)
    assert one.state.finished and one.state.left == [] and complete(s3) == [9]


def test_the_command_pushes_what_is_good_and_says_what_is_not(s3, large, tmp_path):
    checkpoint(tmp_path, 7)
    damaged(tmp_path, 8)
    put(tmp_path, "output/step-0000005.h5")
    pushed = stage("push", tmp_path, URL)
    assert pushed.returncode == 1 and "is not what was written" in pushed.stderr
    assert "pushed step-0000007" in pushed.stdout and "mine/output/step-0000005.h5" in s3.names()
    assert held(tmp_path) == set()


def test_output_that_s3_says_is_another_is_not_sent_for_ever(s3, hasty, monkeypatch, tmp_path):
    other = {"x-amz-checksum-crc32c": "AAAAAA==", "x-amz-checksum-type": "FULL_OBJECT"}
    put(tmp_path, "output/a.h5", bytes(range(256)) * (PART // 128))
    put(tmp_path, "output/b.h5")
    with monkeypatch.context() as server:
        server.setattr(s3.proxy.rules, "told", lambda *_: other)
        one = uploader(tmp_path)
        assert not finish(one)
    assert "output/a.h5" in one.state.error and s3.proxy.requests["begin"] == 2, "that, and the probe"
    assert "mine/output/b.h5" in s3.names(), "it keeps nothing else up"


# -- checkpoints and output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("finishing", [False, True])
def test_a_checkpoint_is_complete_only_once_the_output_before_it_is_there(s3, tmp_path, finishing):
    checkpoint(tmp_path, 1000, size=16)
    for step in (900, 1000, 1100):
        put(tmp_path, f"output/step-{step:07d}.h5")
    put(tmp_path, "diagnostics.csv")
    one = pusher(tmp_path)
    (task,) = [task for task in one.pending(finishing) if task.step is not None]
    with s3.failing("denied", method="PUT", path="output/step-0001000"), pytest.raises(AwsError):
        one.push(task)
    assert complete(s3) == []
    one.push(task)
    assert complete(s3) == [1000]
    output = [name for name in s3.names() if "checkpoints/" not in name]
    assert output == ["mine/diagnostics.csv", "mine/output/step-0000900.h5", "mine/output/step-0001000.h5"]


def test_where_only_checkpoints_are_pushed_output_is_not(s3, tmp_path):
    checkpoint(tmp_path, 1000, size=16)
    put(tmp_path, "output/step-0000900.h5")
    assert finish(uploader(tmp_path, push=("checkpoints",)))
    assert complete(s3) == [1000] and not any("output" in name for name in s3.names())


def test_a_stream_of_checkpoints_and_one_of_output_do_not_starve_each_other(s3, tmp_path):
    one, pushed = pusher(tmp_path, keep=0), []
    for step in range(1, 9):
        checkpoint(tmp_path, step, size=16)
        put(tmp_path, f"output/other-{step}.h5")
        put(tmp_path, "output/series.xdmf", str(step).encode())
        task = one.pending(finishing=False)[0]
        one.push(task)
        pushed.append(task.name)
    assert pushed[1] == "output/series.xdmf"
    assert [name.startswith("step-") for name in pushed] == [True, False] * 4


def test_output_that_cannot_be_read_costs_no_checkpoint_and_nothing_else(s3, hasty, tmp_path):
    checkpoint(tmp_path, 1000, size=16)
    (tmp_path / "output" / "step-0000100.h5").mkdir(parents=True)  # reading it fails, whoever tries
    put(tmp_path, "output/step-0000200.h5")
    one = uploader(tmp_path, wait_seconds=1.0)
    assert not finish(one)
    assert "step-0000100.h5" in one.state.error
    assert complete(s3) == [1000] and "mine/output/step-0000200.h5" in s3.names()


# -- who holds a checkpoint -------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["together", "the next start"])
def test_the_hold_of_an_uploader_that_was_killed_goes(s3, large, tmp_path, token):
    path = checkpoint(tmp_path, 7)
    with s3.failing("delay", method="PUT", seconds=3.0):
        killed = started(tmp_path)
        until(lambda: held(tmp_path) == {7})
        killed.kill()
        killed.wait()
    assert held(tmp_path) == {7}
    shutil.rmtree(path)
    checkpoint(tmp_path, 8, size=16)
    next_one = started(tmp_path, token)
    until(lambda: complete(s3) == [8])
    until(lambda: held(tmp_path) == set())
    next_one.stdin.close()
    assert next_one.wait(60) == 0


@pytest.mark.parametrize(("token", "stays"), [("this start", set()), ("", {7})])
def test_what_another_machine_holds_goes_when_the_run_starts_again(s3, tmp_path, token, stays):
    put(tmp_path, "staging/holds/7", msgspec.json.encode(Holder("an earlier start", "elsewhere", 1, "1")))
    one = pusher(tmp_path, token)  # without a token it is a command, and the run may go on
    assert held(tmp_path) == stays
    one.release()


def test_what_a_killed_uploader_held_stays_on_the_disk_until_the_next_one_has_pushed_it(s3, large, tmp_path):
    checkpoint(tmp_path, 7)
    with s3.failing("delay", method="PUT", path="partNumber", seconds=1.0):
        killed = started(tmp_path)
        until(lambda: s3.proxy.requests["part"] > 1)
        killed.kill()
        killed.wait()
    checkpoint(tmp_path, 8)
    one = pusher(tmp_path, "together")
    assert held(tmp_path) == {7}
    assert names(one.pending(finishing=False)) == ["step-0000007"]
    one.release()
    assert held(tmp_path) == set()


def test_the_hold_of_one_that_lives_stays(s3, large, tmp_path):
    checkpoint(tmp_path, 7)
    with s3.failing("delay", method="PUT", seconds=3.0):
        living = started(tmp_path)
        until(lambda: held(tmp_path) == {7})
        checkpoint(tmp_path / "other", 8, size=16)
        other = pusher(tmp_path, "another start", push=("output",))
        assert held(tmp_path) == {7}
        other.release()
        assert held(tmp_path) == {7}
    living.send_signal(signal.SIGTERM)
    assert living.wait(60) == 1
    assert held(tmp_path) == set(), "one that is stopped lets go"


# -- waiting ----------------------------------------------------------------------------------------------------


@pytest.fixture
def uploading_beside(tmp_path):
    """Starts an uploader of the test's folder, in a process of its own that ends with the test."""
    processes = []

    def start(**options):
        processes.append(started(tmp_path, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_who_waits_is_not_told_that_all_is_there_while_something_is_put_off(s3, tmp_path, uploading_beside):
    checkpoint(tmp_path, 7, size=16)
    put(tmp_path, "diagnostics.csv", b"a\n")
    uploading_beside(every_seconds=3600.0)
    assert stage("wait", tmp_path).returncode == 0
    checkpoint(tmp_path, 8, size=16)
    put(tmp_path, "diagnostics.csv", b"a\nb\n")
    waited = stage("wait", tmp_path, "--seconds=2")
    assert waited.returncode == 1 and complete(s3) == [7]
    assert "step-0000008, diagnostics.csv is not in" in waited.stderr
    said = state.read(tmp_path)
    assert said.looked > (tmp_path / "diagnostics.csv").stat().st_mtime
    assert said.pending == [] and said.deferred == ["step-0000008", "diagnostics.csv"]


def test_who_waits_is_told_once_all_is_there(s3, large, tmp_path, uploading_beside):
    checkpoint(tmp_path, 7)
    with s3.failing("delay", method="PUT", seconds=0.5):
        uploading_beside()
        until(lambda: state.read(tmp_path))
        waited = stage("wait", tmp_path)
        assert waited.returncode == 0 and complete(s3) == [7]
    assert "step-0000007" in waited.stdout and "all is in S3" in waited.stdout


def test_what_changes_all_the_time_is_waited_for_once(s3, monkeypatch, tmp_path):
    monkeypatch.setattr(local, "NOW_AND_THEN", 0.5)
    put(tmp_path, "diagnostics.csv")
    one, over = uploader(tmp_path), threading.Event()

    def run():
        row = 0
        while not over.wait(0.01):
            row += 1
            put(tmp_path, "diagnostics.csv", b"row" * row)

    threads = [threading.Thread(target=run, daemon=True), threading.Thread(target=one.run, daemon=True)]
    for thread in threads:
        thread.start()
    until(lambda: one.state.files > 1)
    state.write(tmp_path, one.state)
    assert stage("wait", tmp_path, "--seconds=20").returncode == 0
    over.set()
    one.finishing.set()
    threads[1].join(60)


def test_that_an_earlier_run_had_pushed_all_says_nothing_of_this_one(s3, tmp_path, uploading_beside):
    checkpoint(tmp_path, 7, size=16)
    process = uploading_beside()
    process.stdin.close()
    assert process.wait(60) == 0
    assert stage("wait", tmp_path).returncode == 0
    checkpoint(tmp_path, 8, size=16)
    waited = stage("wait", tmp_path)
    assert waited.returncode == 1 and "step-0000008 is not in" in waited.stderr
    assert "nobody pushes it any more" in waited.stderr
    assert stage("push", tmp_path, URL).returncode == 0
    assert stage("wait", tmp_path).returncode == 0, "whoever pushed it"


def test_who_waits_for_what_is_damaged_is_told(s3, large, tmp_path, uploading_beside):
    damaged(tmp_path, 8)
    uploading_beside()
    until(lambda: state.read(tmp_path))
    waited = stage("wait", tmp_path)
    assert waited.returncode == 1 and "is not what was written" in waited.stderr


# -- permissions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", ""), ("HEAD", ""), ("POST", "uploads"), ("GET", "uploadId"), ("DELETE", "uploadId"), ("POST", "delete"),
    ],
)  # fmt: skip
def test_a_permission_that_is_missing_is_found_before_there_is_anything_to_push(s3, hasty, tmp_path, method, path):
    one = uploader(tmp_path, wait_seconds=0.0)
    with s3.failing("denied", method=method, path=path):
        assert not finish(one)
    assert one.state.refused and not one.state.ready and "docs/staging.md" in one.state.error


def test_who_deletes_nothing_need_not_be_allowed_to(s3, tmp_path):
    checkpoint(tmp_path, 7, size=16)
    with s3.failing("denied", method="POST", path="delete"):
        assert finish(uploader(tmp_path, keep=0)) and finish(uploader(tmp_path, keep=0))
    assert complete(s3) == [7] and s3.unfinished() == []
    assert finish(uploader(tmp_path))
    assert not any("probe" in name for name in s3.names())


def test_the_probe_is_stored_as_everything_else_is(s3, tmp_path):
    with s3.failing("denied", method="POST", path="delete"):
        how = {"storage_class": "STANDARD_IA", "tags": {"Project": "a b"}, "kms_key": "mine"}
        assert finish(uploader(tmp_path, keep=0, **how))
    where = {"Bucket": BUCKET, "Key": "mine/checkpoints/probe"}
    found = s3.client.head_object(**where)
    assert found["StorageClass"] == "STANDARD_IA" and found["SSEKMSKeyId"].endswith("mine")
    assert s3.client.get_object_tagging(**where)["TagSet"] == [{"Key": "Project", "Value": "a b"}]


# -- the run that looks after it --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["no process", "no log", "it ends at once"])
def test_an_uploader_that_cannot_be_started_again_does_not_end_the_run(s3, monkeypatch, tmp_path, what):
    monkeypatch.setattr(companion, "START_AGAIN_AFTER", 0.01)
    (tmp_path / "checkpoints").mkdir()
    staging = companion.Staging(tmp_path / "checkpoints", URL)
    first = staging.state().process
    log = tmp_path / "staging" / "uploader-0.log"
    with monkeypatch.context() as short:
        if what == "no process":
            short.setattr(sys, "executable", str(tmp_path / "gone"))
        elif what == "it ends at once":
            short.setattr(sys, "executable", "/bin/true")
        else:
            log.unlink()
            log.mkdir()
        os.kill(first, signal.SIGKILL)
        until(lambda: staging.look() or len(staging.notices) > 1)
    assert "cannot be started" in staging.notices[0] or what == "it ends at once"
    if what == "no log":
        log.rmdir()
    until(lambda: staging.look() or (staging.state() and staging.state().process != first))
    assert staging.finish(60) == ""
