"""Steps of v = u + k * laplacian(u): against Devito, against memory, and in cache. float64."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from measuring import Effort, ratio, summary
from remote import Absent, Remote

from rows.row import Row
from rows.stepping import NINE_DIGITS, Stepper, away_from_walls, compare, devito, hpcframe, measure, noise

ORDERS = {7: 2, 13: 4, 25: 8}  # by points of the star
K = 0.1  # stable for all three
SIDE = 256
USED = 1.3  # cores that a process keeps busy at least, if it computes on two


def against_devito(effort: Effort, points: int, ranks: int = 1, threads: int = 1) -> dict[str, Any]:
    """256^3 points a rank, both on as many ranks and threads."""
    shape, order = (SIDE * ranks, SIDE, SIDE), ORDERS[points]
    with ExitStack() as stack:
        ours = hpcframe("star", shape, order, K, ranks=ranks, threads=threads)
        stack.enter_context(ours.remote)
        if threads > 1:
            require_threads(ours)
        theirs = devito(shape, order, K, ranks=ranks, threads=threads)
        stack.enter_context(theirs.remote)
        return compare(ours, theirs, away_from_walls(shape, order), noise(shape), effort, NINE_DIGITS)


def require_threads(stepper: Stepper) -> None:
    """Raises Absent where hpcframe leaves the second core alone."""
    stepper.settle(0.5)
    if stepper.remote.ask("run", 60)["cores"] < USED:
        raise Absent("not available: hpcframe computes on one thread a rank")


def against_memory(effort: Effort) -> dict[str, Any]:
    """Many steps against one sweep a step at the triad's bandwidth: 24 bytes a point."""
    shape = (SIDE,) * 3
    with Remote("programs/memory_bandwidth.py") as memory, hpcframe("star", shape, 2, K).remote as remote:
        stepper = Stepper(remote, SIDE**3)
        stepper.load(noise(shape))
        found = measure({"hpcframe": stepper}, effort, {"triad": lambda: memory.ask("run", 10)["GB/s"]})
    bound = [bandwidth / 24 for bandwidth in found["triad"]]
    return {
        "figure": ratio(found["hpcframe"], bound),
        "GLUP/s": {"hpcframe": summary(found["hpcframe"])},
        "triad_GB/s": summary(found["triad"]),
    }


def in_cache(effort: Effort) -> dict[str, Any]:
    """The rate of a small cube over that of a large one."""
    with ExitStack() as stack:
        steppers = {}
        for side in (64, SIDE):
            steppers[f"{side}^3"] = stepper = hpcframe("star", (side,) * 3, 2, K)
            stack.enter_context(stepper.remote)
            stepper.load(noise((side,) * 3))
        rates = measure(steppers, effort)
    small, large = rates.values()
    return {"figure": ratio(small, large), "GLUP/s": {name: summary(rounds) for name, rounds in rates.items()}}


def devito_rows(suffix: str, where: str, goals: tuple[float, ...], **how: int) -> list[Row]:
    return [
        Row(
            f"star{points}{suffix}",
            f"{points}-point Laplacian, {where}",
            f"Devito, autotuned, {where}",
            goal,
            partial(against_devito, points=points, **how),
        )
        for points, goal in zip(ORDERS, goals, strict=True)
    ]


ROWS = [
    *devito_rows("", "1 thread", (2.5, 2.0, 1.5)),
    *devito_rows("-threads", "2 threads", (2.0, 1.6, 1.3), threads=2),
    *devito_rows("-ranks", "2 ranks", (2.0, 1.6, 1.3), ranks=2),
    Row("one-sweep", "7-point Laplacian, many steps", "STREAM triad / 24 bytes", 1.8, against_memory),
    Row("in-cache", "7-point Laplacian, 64^3", "the same, 256^3", 1.0, in_cache),
]
