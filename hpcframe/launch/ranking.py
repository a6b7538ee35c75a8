"""What a simulation takes on instance types, and what it costs. Pure.

A step moves its fields through memory, and halos over the network, at the same time: the slower of the two decides.
That is the roofline of a stencil whose arithmetic is faster than its memory (Williams, Waterman and Patterson, CACM 52,
2009). Neither has what several steps at once in cache gain, nor what starting, writing and waiting lose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hpcframe.errors import InputError
from hpcframe.launch.catalogue import InstanceType
from hpcframe.launch.estimate import least_seconds

USABLE = 0.9  # of the memory of a node; the rest is the system's, the page cache's and MPI's
NETWORK = 0.8  # of what the cards have: what large messages get


@dataclass(frozen=True)
class Work:
    """What a simulation asks of machines.

    Attributes:
        memory: bytes of all fields.
        moved: bytes through memory a step.
        sent: bytes that a node sends a step, where so many share the grid; raises InputError where they cannot.
        steps: None: not known, so there is no time of a whole run.
    """

    memory: int
    moved: int
    sent: Callable[[int], float]
    steps: int | None


@dataclass(frozen=True)
class Prediction:
    """A simulation on nodes of a type.

    Attributes:
        step: s.
        limited: by "memory" or "network".
        seconds, dollars: of all steps; None where something is not known.
        where: the region of the price.
    """

    kind: InstanceType
    nodes: int
    ranks: int
    step: float
    limited: str
    seconds: float | None
    dollars: float | None
    where: str


def predict(
    work: Work, kind: InstanceType, region: str, nodes: int | None = None, ranks: int | None = None
) -> Prediction:
    """What so many nodes do.

    Args:
        nodes: None: as few as hold the fields and have a core for each rank.
        ranks: in all; None: a rank a core.

    Raises:
        InputError: the memory of the type is not known, or too small, or the grid cannot be shared among so many.
    """
    if kind.memory is None:
        raise InputError(f"{kind.name}: the speed of its memory is not known")
    usable = USABLE * kind.gib * 2**30
    fewest = max(1, math.ceil(work.memory / usable), math.ceil((ranks or 1) / kind.cores))
    count = nodes or fewest
    if count * usable < work.memory:
        raise InputError(f"{kind.name}: {fewest} nodes at least hold the fields")
    if ranks and ranks > count * kind.cores:
        raise InputError(f"{kind.name}: {count} node(s) have {count * kind.cores} cores, for {ranks} ranks")
    through_memory = least_seconds(1, work.moved, kind.memory.triad, count)
    over_network = work.sent(count) / (NETWORK * kind.gbps * 1e9 / 8) if count > 1 else 0.0
    step = max(through_memory, over_network)
    seconds = step * work.steps if work.steps else None
    price = kind.price_in(region)
    return Prediction(
        kind, count, ranks or count * kind.cores, step, "memory" if step == through_memory else "network", seconds,
        seconds / 3600 * count * price[0] if seconds is not None and price else None, price[1] if price else "",
    )  # fmt: skip


def rank(
    work: Work, kinds: Iterable[InstanceType], region: str, nodes: int | None = None, ranks: int | None = None,
    by: str = "cost",
) -> tuple[list[Prediction], list[str]]:  # fmt: skip
    """Predictions, the best first, and why some types have none.

    Args:
        by: "cost" or "time".
    """
    found, left = [], []
    for kind in kinds:
        try:
            found.append(predict(work, kind, region, nodes, ranks))
        except InputError as error:
            left.append(str(error))
    return sorted(found, key=lambda one: _order(one, by)), left


def _order(one: Prediction, by: str) -> tuple[float, float]:
    price = one.kind.price_in(one.where)
    dollars = one.step * one.nodes * price[0] if price else math.inf  # of a step: the order is that of all steps
    return (dollars, one.step) if by == "cost" else (one.step, dollars)
