"""How often to make a checkpoint, and what is learnt of interruptions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcframe.checkpoint.interval import expected_waste, mean_between, optimal_interval

HOUR = 3600.0
MEANS, SHARES = st.floats(60, 1e7), st.floats(1e-6, 1.99)


def test_half_a_minute_every_six_hours():
    """Young: sqrt(2 * 30 s * 6 h) = 1138 s, and 5.3 % are lost."""
    interval = optimal_interval(30, 6 * HOUR)
    assert interval == pytest.approx(1138.4 - 30 + 10.0, abs=0.5)
    assert expected_waste(interval, 30, 6 * HOUR) == pytest.approx(0.052, abs=0.001)


@given(MEANS, SHARES)
def test_no_interval_wastes_noticeably_less(mean, share):
    """A search finds none that loses 0.1 % of the time less; up to Daly's limit, where little is done, 2 %."""
    cost = share * mean
    best = expected_waste(optimal_interval(cost, mean), cost, mean)
    others = min(expected_waste(t, cost, mean) for t in np.geomspace(1e-3, 3, 800) * mean)
    assert best <= others + (0.001 if share < 0.5 else 0.02)


def test_where_a_checkpoint_takes_longer_than_most_runs_last():
    """Daly's limit: the formula and the constant meet within an eighth."""
    mean = 100.0
    assert optimal_interval(2 * mean, mean) == optimal_interval(50 * mean, mean) == mean
    assert optimal_interval(1.9999 * mean, mean) == pytest.approx(mean, rel=0.125)


def test_what_costs_nothing_is_done_all_the_time():
    assert optimal_interval(0.0, HOUR) == 0.0
    assert expected_waste(0.0, 0.0, HOUR) == 0.0


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(1e-3, 1e9))
def test_waste_is_a_share(interval, cost, mean):
    assert -1e-9 <= expected_waste(interval, cost, mean) <= 1


def test_waste_is_what_a_simulated_run_loses():
    """Many runs with interruptions at random: work is lost back to the last checkpoint."""
    interval, cost, mean = 40.0, 5.0, 100.0
    draws = np.random.default_rng(1).exponential(mean, 40_000)
    kept = np.floor(draws / (interval + cost)).sum() * interval
    assert expected_waste(interval, cost, mean) == pytest.approx(1 - kept / draws.sum(), abs=0.005)


def test_an_interval_with_no_chance_to_end_loses_everything():
    assert expected_waste(1e6, 1.0, 1.0) == 1.0
    assert expected_waste(0.0, 1.0, 1.0) == 1.0


def test_a_day_is_assumed_until_more_is_known():
    assert mean_between(0, 0) == 24 * HOUR
    assert mean_between(0, 1) == 12 * HOUR
    assert mean_between(100 * 24 * HOUR, 0) == 101 * 24 * HOUR
    assert mean_between(1000 * HOUR, 500) == pytest.approx(2 * HOUR, rel=0.03)


@given(st.floats(0, 1e9), st.integers(0, 1000), st.integers(0, 1000))
def test_an_interruption_that_was_noticed_in_time_costs_nothing(seconds, interruptions, noticed):
    """M / (1 - p), where the interruption of the prior was not noticed."""
    noticed = min(noticed, interruptions)
    share = noticed / (1 + interruptions)
    assert math.isclose(
        mean_between(seconds, interruptions, noticed), mean_between(seconds, interruptions) / (1 - share)
    )
