"""How contenders are compared: in turn, round after round, by the ratio within each round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 7
    seconds: float = 1.0  # of work for a contender in a round, about


def race(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each contender measures in each round. They take turns, and every other round in the opposite order."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            measured[name].append(contenders[name]())
    return measured


def summary(rates: Sequence[float]) -> dict[str, Any]:
    """Best, median and all of some rates, for which more is better."""
    return {"best": max(rates), "median": statistics.median(rates), "rounds": list(rates)}


def spread(rounds: Sequence[float]) -> dict[str, Any]:
    """Median and range of what was found in each round."""
    return {"median": statistics.median(rounds), "least": min(rounds), "most": max(rounds), "rounds": list(rounds)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Round by round, so that what slows both down cancels."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])
