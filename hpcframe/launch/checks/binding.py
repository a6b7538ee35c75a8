"""Binding: a rank whose threads wander between NUMA nodes reads its fields from afar."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from hpcframe.launch.checks.finding import Finding

FOLDER = "sys/devices/system/node"
BY_HAND = f"srun --cpu-bind=cores,verbose grep Cpus_allowed_list /proc/self/status; grep . /{FOLDER}/node*/cpulist"
IN_A_STEP = "see it in a step: srun -n 1 --cpu-bind=cores python -m hpcframe.launch.checks 'NUMA binding'"


def binding(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Finding:
    """Of this process, if it is a task of a Slurm step. Not collective. `root` is the folder that holds /sys."""
    if "SLURM_STEP_ID" not in environment:
        return Finding("SKIP", "not in a task that srun started", IN_A_STEP)
    nodes = numa_nodes(root)
    if not nodes or not hasattr(os, "sched_getaffinity"):
        return Finding("SKIP", f"unknown here: there is no /{FOLDER}")
    return judge(os.sched_getaffinity(0), nodes, int(environment.get("SLURM_CPUS_PER_TASK", "1")))


def judge(allowed: set[int], nodes: dict[int, set[int]], threads: int) -> Finding:
    """Whether a rank stays on as few NUMA nodes as its threads need. Not collective.

    Args:
        allowed: hardware threads that it may use.
        nodes: those of each NUMA node.
        threads: how many it needs.
    """
    used = [node for node, own in nodes.items() if own & allowed]
    found = f"hardware threads {ranges(allowed)}, of {len(used)} of {len(nodes)} NUMA node(s)"
    needed = -(-threads // max(len(own) for own in nodes.values()))
    if len(used) <= max(1, needed):
        return Finding("PASS", found)
    return Finding("PASS", found, f"bind it to its own cores: srun --cpu-bind=cores --cpus-per-task={threads}")


def numa_nodes(root: Path = Path("/")) -> dict[int, set[int]]:
    """The hardware threads of each NUMA node; of a node of memory alone, none. Not collective."""
    lists = sorted((root / FOLDER).glob("node[0-9]*/cpulist"))
    return {int(file.parent.name.removeprefix("node")): numbers(file.read_text(encoding="ascii")) for file in lists}


def numbers(text: str) -> set[int]:
    """
    >>> sorted(numbers("0-2,8"))
    [0, 1, 2, 8]
    """
    spans = re.findall(r"(\d+)(?:-(\d+))?", text)
    return {number for first, last in spans for number in range(int(first), int(last or first) + 1)}


def ranges(members: set[int]) -> str:
    """
    >>> ranges({0, 1, 2, 8})
    '0-2,8'
    """
    firsts = [number for number in sorted(members) if number - 1 not in members]
    lasts = [number for number in sorted(members) if number + 1 not in members]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True))
