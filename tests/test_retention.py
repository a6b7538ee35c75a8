"""Which checkpoints go: whatever is asked, one that is known to be good stays."""

from hypothesis import given
from hypothesis import strategies as st

from hpcframe.checkpoint.retention import to_remove

STEPS = st.sets(st.integers(0, 60), max_size=12)
SOME = st.sets(st.integers(0, 60), max_size=8)
REQUESTS = st.tuples(st.permutations(range(12)), STEPS, st.integers(1, 6), st.integers(0, 9), SOME, STEPS)


def plan(request) -> tuple[list[int], set[int], int, int, set[int], set[int]]:
    """What goes, and the request."""
    order, steps, keep, every, pinned, verified = request
    listed = sorted(steps)
    shuffled = [listed[index] for index in order if index < len(listed)]
    return to_remove(shuffled, keep, every, pinned, verified), steps, keep, every, pinned, verified


@given(REQUESTS)
def test_only_what_is_there_goes_once_and_the_oldest_first(request_):
    going, steps, *_ = plan(request_)
    assert set(going) <= steps
    assert going == sorted(set(going))


@given(REQUESTS)
def test_what_was_asked_for_stays(request_):
    going, steps, keep, every, pinned, _ = plan(request_)
    assert not set(going) & set(sorted(steps)[-keep:])
    assert not set(going) & pinned
    assert not every or all(step % every for step in going)


@given(REQUESTS)
def test_the_newest_that_is_verified_stays_and_all_that_are_newer(request_):
    going, steps, _, _, _, verified = plan(request_)
    known = steps & verified
    assert not known or all(step < max(known) for step in going)


@given(REQUESTS)
def test_nothing_goes_before_a_newer_one_is_verified(request_):
    going, steps, _, _, _, verified = plan(request_)
    assert all(any(newer > step for newer in steps & verified) for step in going)


@given(REQUESTS)
def test_what_nobody_needs_goes(request_):
    going, steps, keep, every, pinned, verified = plan(request_)
    newest = max(steps & verified, default=-1)
    needed = {*sorted(steps)[-keep:], *pinned, *(step for step in steps if every and step % every == 0)}
    assert set(going) == {step for step in steps - needed if step < newest}


@given(REQUESTS)
def test_asking_twice_removes_no_more(request_):
    going, steps, *rest = plan(request_)
    assert to_remove(sorted(steps - set(going)), *rest) == []


def test_examples():
    steps = [500, 400, 300, 200, 100, 0]
    assert to_remove(steps, 2, 0, (), {500}) == [0, 100, 200, 300]
    assert to_remove(steps, 2, 200, {100}, {500}) == [300]
    assert to_remove(steps, 1, 0, (), {300}) == [0, 100, 200]  # 400 and 500 may be bad
    assert to_remove(steps, 1, 0, (), {7}) == []  # of another folder, or set aside
    assert to_remove([], 1, 0, (), ()) == []
