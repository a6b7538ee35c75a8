"""Whether there is time for a checkpoint before the job ends."""

import math

from hypothesis import given
from hypothesis import strategies as st

from hpcframe.checkpoint.deadline import REMEMBERED, Rates, fits

SIZES, SECONDS = st.integers(1, 10**15), st.floats(1e-3, 1e5)
MEASURED = st.lists(st.tuples(SIZES, SECONDS), min_size=1, max_size=REMEMBERED)


def rates(*measured: tuple[int, float]) -> Rates:
    made = Rates()
    for size, seconds in measured:
        made.add(size, seconds)
    return made


def test_as_long_as_nothing_is_known_a_checkpoint_is_tried():
    assert Rates().predict(10**9) is None
    assert fits(None, 1.0)


def test_what_tells_no_rate_is_not_remembered():
    assert rates((0, 3.0), (10**9, 0.0)).predict(10**9) is None


def test_the_slowest_of_the_latest_counts():
    assert rates((10**9, 2.0), (10**9, 8.0), (10**9, 3.0)).predict(10**9) == 8.0
    assert rates((10**9, 2.0), (10**9, 8.0), (10**9, 3.0)).predict(4 * 10**9) == 32.0


def test_a_rate_of_long_ago_is_forgotten():
    assert rates((10**9, 80.0), *[(10**9, 2.0)] * REMEMBERED).predict(10**9) == 2.0


def test_a_small_one_is_not_promised_to_be_fast():
    assert rates((10**9, 5.0)).predict(1000) == 5.0


@given(MEASURED, SIZES, SIZES)
def test_more_bytes_never_take_less_and_no_measurement_is_undercut(measured, size, more):
    predicted = rates(*measured).predict(size)
    assert predicted is not None
    assert predicted <= rates(*measured).predict(size + more)
    assert all(seconds <= predicted for known, seconds in measured if known <= size)


def test_it_fits_with_room_to_spare():
    assert fits(10.0, 15.0)
    assert not fits(10.0, 14.9)
    assert not fits(10.0, -1.0)
    assert fits(1e9, math.inf)
