"""A loop of restarts that makes no headway ends, and says what to do."""

import errno
import json
import os
from pathlib import Path

import pytest

from hpcframe.checkpoint.attempts import NAME, choose, clear, record
from hpcframe.errors import NoCheckpointError


def begin(folder, candidates):
    """What a restart does."""
    step = choose(folder, candidates)
    record(folder, candidates, step)
    return step


def test_the_newest_twice_then_the_one_before_then_no_more(tmp_path):
    assert [begin(tmp_path, [300, 200, 100]) for _ in range(3)] == [300, 300, 200]
    with pytest.raises(NoCheckpointError) as refused:
        begin(tmp_path, [300, 200, 100])
    message = str(refused.value)
    assert "from step 300, 300, 200," in message
    assert f"--restart {tmp_path / 'step-0000300'}" in message
    assert "--restart none" in message


def test_the_refusal_stands(tmp_path):
    for _ in range(3):
        begin(tmp_path, [300, 200])
    for _ in range(2):
        with pytest.raises(NoCheckpointError):
            begin(tmp_path, [300, 200])


def test_a_single_checkpoint_is_tried_three_times(tmp_path):
    assert [begin(tmp_path, [300]) for _ in range(3)] == [300, 300, 300]
    with pytest.raises(NoCheckpointError):
        begin(tmp_path, [300])


def test_a_new_checkpoint_starts_the_count_anew(tmp_path):
    for _ in range(3):
        begin(tmp_path, [300, 200])
    clear(tmp_path)
    assert [begin(tmp_path, [400, 300, 200]) for _ in range(3)] == [400, 400, 300]


@pytest.mark.parametrize("present", [[400, 300, 200], [250, 200]])
def test_a_new_checkpoint_counts_although_the_run_was_killed_before_it_could_say_so(tmp_path, present):
    for _ in range(3):
        begin(tmp_path, [300, 200])
    assert begin(tmp_path, present) == present[0]


def test_a_checkpoint_that_was_set_aside_is_no_progress(tmp_path):
    for _ in range(2):
        begin(tmp_path, [300, 200, 100])
    assert begin(tmp_path, [200, 100]) == 100
    with pytest.raises(NoCheckpointError):
        begin(tmp_path, [200, 100])


def test_clearing_what_is_not_there_is_no_error(tmp_path):
    clear(tmp_path)
    assert begin(tmp_path, [1]) == 1


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]", b'{"tried": 7}', b'{"tried": [true], "present": []}'])
def test_a_broken_marker_counts_as_one_attempt(tmp_path, text):
    (tmp_path / NAME).write_bytes(text)
    assert [begin(tmp_path, [300, 200]) for _ in range(2)] == [300, 200]
    with pytest.raises(NoCheckpointError):
        begin(tmp_path, [300, 200])


def test_the_attempt_is_on_the_disk_before_anything_is_loaded(tmp_path, monkeypatch):
    """The name that is synced last is the folder's, after the marker has its own."""
    synced: list[Path] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    begin(tmp_path, [300])
    assert [path.parent if path.suffix else path for path in synced] == [tmp_path, tmp_path]
    assert synced[-1] == tmp_path
    assert json.loads((tmp_path / NAME).read_text())["tried"] == [300]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_an_attempt_that_cannot_be_recorded_is_not_made(tmp_path, monkeypatch):
    """A disk that fails leaves the former marker and nothing else."""
    begin(tmp_path, [300])
    former = (tmp_path / NAME).read_text()

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        begin(tmp_path, [300])
    assert (tmp_path / NAME).read_text() == former
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
