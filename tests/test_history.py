"""What a run remembers of its former incarnations."""

import pytest

from hpcframe.checkpoint.history import NAME, History
from hpcframe.checkpoint.interval import PRIOR_SECONDS
from hpcframe.errors import HpcframeError

HOUR = 3600.0


def test_a_history_grows_over_incarnations(tmp_path):
    first = History.read(tmp_path)
    first.write(tmp_path, HOUR)
    first.write(tmp_path, 2 * HOUR)  # of this incarnation in all, not more
    second = History.read(tmp_path)
    second.begin(0)
    second.write(tmp_path, 5 * HOUR)
    assert History.read(tmp_path) == History(7 * HOUR, interruptions=1)
    assert History.read(tmp_path).mean_between(HOUR) == (24 + 7 + 1) * HOUR / 2
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_steps_done_again_and_waiting_are_wasted(tmp_path):
    first = History(waited=20.0, reached=170, pace=2.0, commits=[(10**9, 3.0)])
    first.write(tmp_path, 400.0)
    second = History.read(tmp_path)
    second.begin(150)
    assert second.redone == (170 - 150) * 2.0
    assert second.waste(600.0) == (20.0 + 40.0) / 1000.0
    assert second.commits == [(10**9, 3.0)]


def test_a_start_after_the_end_is_after_no_interruption(tmp_path):
    History(reached=200, pace=1.0, finished=True).write(tmp_path)
    again = History.read(tmp_path)
    again.begin(150)
    assert (again.interruptions, again.redone, again.finished) == (0, 0.0, False)


def test_without_a_file_nothing_is_known_and_nothing_is_said(tmp_path):
    assert History.read(tmp_path / "nowhere") == History()
    assert History().mean_between(0.0) == PRIOR_SECONDS


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"seconds": NaN}',
        b'{"seconds": -1.0}',
        b'{"seconds": 1.0, "interruptions": -2}',
        b'{"seconds": "long"}',
    ],
)
def test_a_broken_file_is_told_and_begun_anew(tmp_path, text):
    (tmp_path / NAME).write_bytes(text)
    history = History.read(tmp_path)
    assert str(tmp_path / NAME) in history.notice
    assert history.mean_between(0.0) == PRIOR_SECONDS
    history.write(tmp_path, HOUR)
    assert History.read(tmp_path) == History(HOUR)


def test_a_history_that_cannot_be_kept_is_an_error(tmp_path):
    with pytest.raises(HpcframeError, match=NAME):
        History().write(tmp_path / "nowhere", 1.0)
