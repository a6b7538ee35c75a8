"""What a second rank gives, and what hpcframe adds to the messages of a step."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from measuring import Effort, race, ratio, spread, summary
from remote import Remote

from rows.row import Row
from rows.stepping import Stepper, hpcframe, measure, noise

SIDE = 128


def weak_scaling(effort: Effort) -> dict[str, Any]:
    """Rate on 2 ranks over 1, divided by what the memory gives 2 processes over 1: the 7-point Laplacian."""
    with ExitStack() as stack:
        steppers: dict[str, Stepper] = {}
        triads = {}
        for ranks in (1, 2):
            shape = (SIDE * ranks, SIDE, SIDE)
            steppers[f"{ranks} ranks"] = stepper = hpcframe("star", shape, 2, 0.1, ranks=ranks)
            stack.enter_context(stepper.remote)
            stepper.load(noise(shape))
            memory = stack.enter_context(Remote("programs/memory_bandwidth.py", ranks=ranks))
            triads[f"triad, {ranks} ranks"] = partial(bandwidth, memory)
        found = measure(steppers, effort, triads)
    one, two, memory_one, memory_two = found.values()
    ours, theirs = ratio(two, one), ratio(memory_two, memory_one)
    return {
        "figure": ratio(ours["rounds"], theirs["rounds"]),
        "hpcframe": ours,
        "triad": theirs,
        "rates": {name: summary(rounds) for name, rounds in found.items()},
    }


def bandwidth(memory: Remote) -> float:
    return memory.ask("run", 10)["GB/s"]


def framework_cost(effort: Effort) -> dict[str, Any]:
    """Microseconds of a step beyond a bare exchange of the same messages."""
    with Remote("programs/step_cost.py", "--size", 16, ranks=2) as program:
        for _ in range(2):
            each = program.ask("steps", 100)["seconds"] / 100
        count = max(100, round(effort.seconds / each))

        def microseconds(kind: str) -> float:
            return program.ask(kind, count)["seconds"] / count * 1e6

        found = race({kind: partial(microseconds, kind) for kind in ("steps", "messages")}, effort.rounds)
    beyond = [step - message for step, message in zip(found["steps"], found["messages"], strict=True)]
    return {"figure": spread(beyond), "microseconds": {kind: spread(rounds) for kind, rounds in found.items()}}


ROWS = [
    Row("weak-scaling", "weak scaling 1 to 2 ranks, 128^3 each", "STREAM, 2 processes over 1", 0.95, weak_scaling),
    Row(
        "step-cost",
        "framework cost of a step, 16^3 a rank, 2 ranks",
        "its messages by mpi4py alone",
        15.0,
        framework_cost,
        at_most=True,
        unit="us more",
    ),
]
