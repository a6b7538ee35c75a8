"""How long a run takes at least. Pure."""

from __future__ import annotations

from hpcframe.launch import durations
from hpcframe.launch.partitions import NodeType


def least_seconds(steps: int, bytes_a_step: int, triad: float, nodes: int) -> float:
    """s that steps take where the memory does nothing but what it must.

    Args:
        bytes_a_step: that a step must move, on all nodes together.
        triad: GB/s of a node.
    """
    return steps * bytes_a_step / (triad * 1e9 * nodes)


def time_in_words(steps: int | None, bytes_a_step: int, kind: NodeType, nodes: int, limit: int | None) -> str:
    """The line on time of `hpcframe submit`.

    Args:
        steps: None where they are found at the start of a run.
        limit: of the job (s); None: none.
    """
    allowed = f"; {durations.in_words(limit)} allowed" if limit else "; no limit"
    memory = kind.known_memory
    if steps is None or memory is None:
        why = "the number of steps is found at the start" if memory else "the memory of these nodes is not known"
        return f"not known: {why}; summary.json of a first, short run tells its speed{allowed}"
    least = least_seconds(steps, bytes_a_step, memory.triad, nodes)
    bound = "at least" if memory.is_measured else "about"
    text = (
        f"{bound} {durations.in_words(least)}: {steps} steps at {nodes} x {memory.triad:g} GB/s, the memory of "
        f"{kind.instance}; start, halos, output and checkpoints come on top{allowed}"
    )
    return text + (": it will not end in one job" if limit and least > limit else "")
