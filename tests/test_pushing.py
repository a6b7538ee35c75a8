"""What gets to S3, when and in which order, whatever fails on the way; and what is said of it."""

import threading

import pytest
from s3 import BUCKET
from staged import URL, checkpoint, stage

from hpcframe.aws import AwsError
from hpcframe.checkpoint.manifest import NAME
from hpcframe.staging import uploader as uploading
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


def uploader(folder, **options):
    """One that pushes in this process."""
    return Uploader(Job(str(folder / "checkpoints"), Options(URL, part_size=PART, streams=2, **options), "together"))


def finish(one):
    """All that is left of a run; whether all is in S3."""
    one.finishing.set()
    return one.run()


@pytest.fixture
def hasty(monkeypatch):
    """Pauses after failures that a test can wait for."""
    monkeypatch.setattr(uploading, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(uploading, "LONGEST_PAUSE", 0.1)


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
        (tmp_path / "output").mkdir(exist_ok=True)
        (tmp_path / "output" / f"{name}.h5").write_bytes(b"as it was")
    assert finish(uploader(tmp_path))
    (tmp_path / "staging" / "pushed.json").unlink()  # as on a new cluster, which pulled it
    (tmp_path / "output" / "b.h5").write_bytes(b"as it is!")
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
