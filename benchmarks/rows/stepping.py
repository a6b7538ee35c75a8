"""Contenders that step fields, each in a program of its own: checked against hpcframe, then timed in turn."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import Effort, race, ratio, summary
from remote import Failed, Remote, python_of

UNIT = 6  # steps come in multiples of it: whole turns of two and of three time levels
SEARCH = 25 * UNIT  # steps in which hpcframe tries all ways of doing several at once, and some more
ROUNDING = 1e-12  # what results may differ by, for values of about 1
NINE_DIGITS = 1e-8  # the same for Devito, which writes weights into its code with nine digits, such as -2.84722222


class Stepper:
    """A program that steps `points` points; `rate` measures it. It finds out what is fastest within `search` steps."""

    def __init__(self, remote: Remote, points: int, search: int = UNIT) -> None:
        self.remote = remote
        self._points = points
        self._search = search
        self._steps = UNIT

    def load(self, fields: npt.NDArray) -> None:
        """Set the initial fields."""
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "fields.npy", fields)
            self.remote.ask("load", Path(folder) / "fields.npy")

    def result(self, steps: int) -> npt.NDArray:
        """The newest fields after some steps."""
        with tempfile.TemporaryDirectory() as folder:
            self.remote.ask("run", steps)
            self.remote.ask("save", Path(folder) / "fields.npy")
            return np.load(Path(folder) / "fields.npy")

    def settle(self, seconds: float) -> None:
        """Find out how many steps take about so long, once all is compiled and tuned."""
        self.remote.ask("run", self._search)
        for enough in (0.1 * seconds, seconds):
            taken = self.remote.ask("run", self._steps)["seconds"]
            self._steps = UNIT * max(1, round(enough * self._steps / taken / UNIT))

    def rate(self) -> float:
        """GLUP/s: 10^9 point updates a second."""
        return self._points * self._steps / self.remote.ask("run", self._steps)["seconds"] / 1e9


def hpcframe(case: str, shape: Sequence[int], order: int, k: float, **where: Any) -> Stepper:
    options = (case, "--shape", *shape, "--order", order, "--k", k)
    return Stepper(Remote("programs/hpcframe_steps.py", *options, **where), math.prod(shape), search=SEARCH)


def devito(shape: Sequence[int], order: int, k: float, *options: str, ranks: int = 1, threads: int = 1) -> Stepper:
    """Devito with its own autotuning. Raises Absent."""
    settings = {"DEVITO_MPI": str(int(ranks > 1)), "DEVITO_LANGUAGE": "openmp" if threads > 1 else "C"}
    given = ("--shape", *shape, "--order", order, "--k", k, *options)
    where = {"python": python_of("Devito"), "ranks": ranks, "threads": threads, "settings": settings}
    return Stepper(Remote("devito_stencil.py", *given, **where), math.prod(shape))


def compare(
    ours: Stepper,
    theirs: Stepper,
    checked: npt.NDArray,
    timed: npt.NDArray,
    effort: Effort,
    tolerance: float = ROUNDING,
) -> dict[str, Any]:
    """Ratio of the rates. `checked` are the initial fields for the check of results, `timed` those for the timing."""
    difference = check(ours, theirs, checked, tolerance)
    for stepper in (ours, theirs):
        stepper.load(timed)
    rates = measure({"hpcframe": ours, "other": theirs}, effort)
    return {
        "figure": ratio(rates["hpcframe"], rates["other"]),
        "GLUP/s": {name: summary(rounds) for name, rounds in rates.items()},
        "largest_difference": difference,
        "other": theirs.remote.about,
    }


def measure(
    steppers: Mapping[str, Stepper], effort: Effort, others: Mapping[str, Callable[[], float]] | None = None
) -> dict[str, list[float]]:
    """GLUP/s of each stepper, and what others measure, in each round."""
    for stepper in steppers.values():
        stepper.settle(effort.seconds)
    return race({**{name: stepper.rate for name, stepper in steppers.items()}, **(others or {})}, effort.rounds)


def check(ours: Stepper, theirs: Stepper, start: npt.NDArray, tolerance: float) -> float:
    """Largest difference after a few steps. Raises Failed where it is above the tolerance."""
    results = []
    for stepper in (ours, theirs):
        stepper.load(start)
        results.append(stepper.result(UNIT))
    difference = float(np.abs(results[0] - results[1]).max())
    if not difference < tolerance:
        raise Failed(f"results differ by {difference:g} after {UNIT} steps: nothing is timed")
    return difference


def noise(shape: Sequence[int], seed: int = 1) -> npt.NDArray:
    """Numbers between 0 and 1."""
    return np.random.default_rng(seed).random(tuple(shape))


def away_from_walls(shape: Sequence[int], order: int) -> npt.NDArray:
    """Noise that does not get near a wall while results are checked: contenders differ in their walls."""
    margin = (UNIT + 1) * order // 2
    fields = np.zeros(tuple(shape))
    inner = (slice(margin, -margin),) * len(shape)
    fields[inner] = noise(fields[inner].shape)
    return fields
