"""When things happen in a run: pure functions of step numbers, so that every rank decides the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hpcframe.errors import InputError
from hpcframe.simulation.schema import OutputSection, TimeSection

ROWS = 100  # of diagnostics.csv, unless [monitor] says otherwise
ROUNDING = 1e-9  # relative: an end time that is a whole number of steps but for rounding takes no step more

CHUNK_SECONDS = 0.1  # between two looks at signals: short enough for Ctrl-C, long enough to cost nothing
TOGETHER = 24  # steps: a multiple of most numbers of steps that stencils do in one pass over memory
LONGEST_CHUNK = 2.0  # s that a chunk may take so that it has as many


@dataclass(frozen=True)
class Steps:
    """The time steps of a run: how many, and how long each is (s)."""

    count: int
    dt: float


def choose_steps(section: TimeSection, stable_dt: float) -> Steps:
    """Time steps from [time] and the model's largest stable step (s).

    With an end time, the step is shortened so that the last one ends there.

    Raises:
        InputError: a dt longer than the stable one, or no dt where the model has no limit of its own.
    """
    if section.dt is not None:
        dt = section.dt
        if dt > stable_dt * (1 + ROUNDING):
            raise InputError(
                f"[time] dt: {dt:g} s is not stable, the limit on this grid is {stable_dt:g} s; "
                f"give a smaller dt, or cfl (a share of the limit) instead"
            )
    elif math.isfinite(stable_dt) and stable_dt > 0:
        dt = (section.cfl or 1.0) * stable_dt
    else:
        raise InputError(f"[time] cfl: the model's stable time step is {stable_dt:g} s here; give dt (s) instead")
    if section.steps is not None:
        return Steps(section.steps, dt)
    assert section.end_time is not None
    count = math.ceil(section.end_time / dt * (1 - ROUNDING))
    return Steps(count, section.end_time / count if count else dt)


def resume_steps(section: TimeSection, dt: float) -> Steps:
    """Time steps of a run that goes on in steps of dt (s), those of its checkpoint: [time] says how far."""
    if section.steps is not None:
        return Steps(section.steps, dt)
    assert section.end_time is not None
    return Steps(math.ceil(section.end_time / dt * (1 - ROUNDING)), dt)


def output_interval(section: OutputSection, steps: Steps) -> float:
    """Steps between outputs, not always a whole number; 0 where only the end is written."""
    if section.every_time:
        return max(1.0, section.every_time / steps.dt)
    return section.every_steps


def diagnostics_interval(every_steps: int, steps: Steps) -> int:
    """Steps between rows of diagnostics.csv."""
    return every_steps or max(1, math.ceil(steps.count / ROWS))


def is_due(step: int, interval: float, last: int) -> bool:
    """Whether something done every `interval` steps, and at the last, is done after this step.

    Where the interval is no whole number, it is done after the step nearest to each multiple.
    """
    return step == last or (interval > 0 and round(round(step / interval) * interval) == step)


def next_due(step: int, intervals: Iterable[float], last: int) -> int:
    """The first step after `step` at which something is due."""
    return min([last, *(_next_multiple(step, interval) for interval in intervals if interval > 0)])


def _next_multiple(step: int, interval: float) -> int:
    count = math.floor(step / interval)
    while round(count * interval) <= step:
        count += 1
    return round(count * interval)


def next_chunk(steps: int, seconds: float) -> int:
    """How many steps to do before the next look at signals, from what the last ones took. Not collective.

    A multiple of `TOGETHER`, unless those take too long.
    """
    seconds = max(seconds, 1e-6)
    wanted = min(max(1, round(steps * CHUNK_SECONDS / seconds)), max(TOGETHER, 10 * steps))
    if wanted >= TOGETHER:
        return wanted - wanted % TOGETHER
    return TOGETHER if TOGETHER * seconds / steps <= LONGEST_CHUNK else wanted
