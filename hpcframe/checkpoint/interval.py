"""How often to make a checkpoint, from what one costs and how often runs are interrupted.

J. W. Young, Communications of the ACM 17 (1974), 530-531; J. T. Daly, Future Generation Computer Systems 22 (2006),
303-312.
"""

from __future__ import annotations

import math

PRIOR_SECONDS = 24 * 3600.0  # before anything is known: one interruption a day


def optimal_interval(cost: float, mean: float) -> float:
    """Seconds from the end of a checkpoint to the beginning of the next that waste least. Not collective.

    Young's sqrt(2 C M) with Daly's terms of higher order (equation 37): for C < 2 M

        sqrt(2 C M) (1 + sqrt(C / 2 M) / 3 + (C / 2 M) / 9) - C

    and M beyond that, where the series does not hold and hardly any step is ever done.

    Args:
        cost: C, seconds that the run waits for a checkpoint.
        mean: M, seconds between interruptions; more than 0.
    """
    if cost >= 2 * mean:
        return mean
    share = math.sqrt(cost / (2 * mean))
    return math.sqrt(2 * cost * mean) * (1 + share / 3 + share * share / 9) - cost


def expected_waste(interval: float, cost: float, mean: float) -> float:
    """The share of time, 0 to 1, that is lost to checkpoints and to steps that are done again. Not collective.

    1 - T / (M (exp((T + C) / M) - 1)), from Daly's complete model (equation 20) without the time that a restart takes.
    Close to the optimum of small C / M this is sqrt(2 C / M).

    Args:
        interval: T, seconds from the end of a checkpoint to the beginning of the next.
        cost: C, seconds that the run waits for a checkpoint.
        mean: M, seconds between interruptions that come at random (a Poisson process); more than 0.
    """
    if interval <= 0:
        return 1.0 if cost > 0 else 0.0
    try:
        return 1 - interval / (mean * math.expm1((interval + cost) / mean))
    except OverflowError:  # some 700 interruptions in each interval
        return 1.0


def mean_between(seconds: float, interruptions: int, noticed: int = 0, prior: float = PRIOR_SECONDS) -> float:
    """Seconds between interruptions that cost steps, learnt from what was met. Not collective.

    The rate has a gamma distribution that begins with one interruption in `prior` seconds. An interruption before
    which a checkpoint was made costs no step: with a share p of such ones the mean is M / (1 - p), which is to leave
    them out. The interruption of the prior stays.

    Args:
        seconds: that was run in all.
        interruptions: in this time.
        noticed: how many of these made a checkpoint before they ended the run.
        prior: s.
    """
    return (prior + seconds) / (1 + max(0, interruptions - noticed))
