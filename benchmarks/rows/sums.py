"""hpcframe's exact sum against a plain one of numba, which may add in any order. 256^3 float64 a rank."""

from __future__ import annotations

from functools import partial
from typing import Any

from measuring import Effort, race, ratio, spread, summary
from remote import Failed, Remote

from rows.row import Row

SIDE = 256
TIMES_IN_CACHE = 2_000_000
PLAIN_ERROR = 1e-9  # relative to the sum of numbers that mostly cancel


def exact_over_plain(effort: Effort, ranks: int) -> dict[str, Any]:
    """Ratio of the rates, all ranks at once."""
    with Remote("programs/sums.py", "--size", SIDE, ranks=ranks) as program:
        checked = program.ask("check")
        if not checked["exact"] or checked["plain_error"] > PLAIN_ERROR:
            raise Failed(f"sums are wrong: {checked}")
        repeats = max(1, round(effort.seconds / program.ask("exact", 1)["seconds"]))
        gigabytes = 8 * SIDE**3 * ranks * repeats / 1e9

        def rate(kind: str) -> float:
            return gigabytes / program.ask(kind, repeats)["seconds"]

        def cores() -> float:
            """What the cores compute at once over what one does: a host may let several share one of its own."""
            return (
                ranks
                * program.ask("alone", TIMES_IN_CACHE)["seconds"]
                / program.ask("together", TIMES_IN_CACHE)["seconds"]
            )

        contenders = {kind: partial(rate, kind) for kind in ("exact", "plain")}
        rates = race({**contenders, "cores": cores}, effort.rounds)
    return {
        "figure": ratio(rates["exact"], rates["plain"]),
        "arithmetic of all cores over one": spread(rates.pop("cores")),
        "GB/s": {kind: summary(rounds) for kind, rounds in rates.items()},
    }


ROWS = [
    Row("sum", "exact sum, 1 thread", "plain vectorised numba sum", 0.5, partial(exact_over_plain, ranks=1)),
    Row(
        "sum-cores",
        "exact sum, both cores at once",
        "plain vectorised numba sum",
        0.8,
        partial(exact_over_plain, ranks=2),
    ),
]
