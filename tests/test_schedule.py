"""When things happen in a run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcframe.errors import InputError
from hpcframe.simulation.schedule import (
    TOGETHER,
    Steps,
    choose_steps,
    is_due,
    next_chunk,
    next_due,
    output_interval,
)
from hpcframe.simulation.schema import OutputSection, TimeSection


def test_steps_and_cfl_give_a_share_of_the_stable_step():
    assert choose_steps(TimeSection(steps=7, cfl=0.5), 2.0) == Steps(7, 1.0)


def test_an_end_time_is_met_exactly_by_a_shorter_step():
    steps = choose_steps(TimeSection(end_time=10.0, cfl=1.0), 3.0)
    assert steps.count == 4
    assert steps.dt == 2.5


def test_an_end_time_of_whole_steps_takes_no_step_more_for_rounding():
    assert choose_steps(TimeSection(end_time=0.3, dt=0.1), 1.0).count == 3


def test_a_step_beyond_the_stable_limit_is_refused_with_the_limit():
    with pytest.raises(InputError, match=r"the limit on this grid is 0\.25 s"):
        choose_steps(TimeSection(dt=0.5), 0.25)


def test_a_model_without_a_limit_needs_a_dt():
    with pytest.raises(InputError, match="give dt"):
        choose_steps(TimeSection(steps=1), math.inf)
    assert choose_steps(TimeSection(steps=1, dt=0.5), math.inf) == Steps(1, 0.5)


@given(st.integers(1, 300), st.one_of(st.integers(1, 40), st.floats(1.0, 40.0)))
def test_walking_from_one_due_step_to_the_next_misses_none(last, interval):
    walked, step = [], 0
    while step < last:
        step = next_due(step, (interval,), last)
        walked.append(step)
    assert walked == [step for step in range(1, last + 1) if is_due(step, interval, last)]


def test_outputs_by_time_do_not_drift():
    steps = Steps(1000, 0.0531)
    interval = output_interval(OutputSection(every_time=5.0), steps)
    due = [step for step in range(1, steps.count) if is_due(step, interval, steps.count)]
    assert all(abs(step * steps.dt - 5.0 * (n + 1)) <= steps.dt / 2 for n, step in enumerate(due))


def test_without_an_interval_only_the_end_is_due():
    assert [step for step in range(6) if is_due(step, 0, 5)] == [5]


@given(st.integers(1, 10**5), st.floats(1e-7, 1e4))
def test_signals_are_looked_at_often_and_steps_are_done_together(steps, seconds):
    chunk = next_chunk(steps, seconds)
    assert chunk >= 1
    assert chunk == 1 or chunk * seconds / steps <= 2.0001 or chunk <= TOGETHER
    assert chunk % TOGETHER == 0 or TOGETHER * seconds / steps > 2.0
