"""What there is to compute on: nodes, cores, hardware threads, memory."""

from __future__ import annotations

import os
from pathlib import Path

from hpcframe.launch import local
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.units import count, gigabytes


def node() -> Finding:
    """Not collective."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = local.cores()
    found = [_nodes(), count(cores, "core") + _not_all(threads)]
    found += [f"{threads} hardware threads"] if threads > cores else []
    found += [f"{gigabytes(memory)} of memory"] if (memory := _memory()) else []
    shared = limit("cpu.max")
    if shared is not None and shared < cores:
        return Finding(
            "PASS", ", ".join(found), f"only the time of {shared:.3g} cores may be used: start no more ranks"
        )
    return Finding("PASS", ", ".join(found), "start one rank a core, not one a thread" if threads > cores else "")


def _nodes() -> str:
    if "SLURM_JOB_NUM_NODES" not in os.environ:
        return "1 node"
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return f"a Slurm job of {count(tasks, 'rank')} on {count(int(os.environ['SLURM_JOB_NUM_NODES']), 'node')}, here"


def _not_all(threads: int) -> str:
    """Slurm and containers give a process a part of the machine."""
    everything = os.cpu_count() or threads
    return f" ({threads} of {everything} hardware threads may be used)" if threads < everything else ""


def _memory() -> float | None:
    """Bytes: those of the machine, or fewer where this process may not use them all."""
    information = Path("/proc/meminfo")
    if not information.exists():
        return None
    total = next(line.split()[1] for line in information.read_text().splitlines() if line.startswith("MemTotal:"))
    return min(1024 * float(total), limit("memory.max") or float("inf"))


def limit(name: str, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The lowest limit on this process's control group and those that it is in (Linux, version 2). Not collective.

    Args:
        name: "memory.max" (bytes) or "cpu.max" (cores).
        root: where the control groups are mounted.
        own: the file that names the group of this process.

    Returns:
        None where there is no limit, or no control groups.
    """
    lines = own.read_text().splitlines() if own.exists() else []
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = root / path.lstrip("/")
    folders = [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    limits = [_value((folder / name).read_text()) for folder in folders if (folder / name).exists()]
    return min((value for value in limits if value is not None), default=None)


def _value(text: str) -> float | None:
    """`max`, a number, or microseconds of time in microseconds that pass."""
    first, *period = text.split()
    return None if first == "max" else float(first) / float(period[0] if period else 1)
