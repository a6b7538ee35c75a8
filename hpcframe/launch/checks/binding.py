"""Binding: a rank whose threads wander between NUMA nodes reads its fields from afar."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping

from hpcframe.launch.checks import slurm
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.programs import ask, essence

FOLDER = "/sys/devices/system/node"
LOOK = f"grep Cpus_allowed_list /proc/self/status; grep -H . {FOLDER}/node*/cpulist"
BY_HAND = f"srun --ntasks=1 --cpu-bind=cores,verbose sh -c '{LOOK}'"
UNBOUND = "Slurm binds no rank to its cores, though it is told to: TaskPlugin=task/affinity,task/cgroup in slurm.conf"
NOWHERE = "see it in a job: salloc -N 2 hpcframe doctor --nodes"


def binding(environment: Mapping[str, str] = os.environ) -> Finding:
    """Of a task that is started and bound as the batch scripts do it, on this node if it is one of the job.
    Not collective."""
    if "SLURM_JOB_ID" not in environment or not shutil.which("srun"):
        return Finding("SKIP", "not in a Slurm job", NOWHERE)
    asked = ask(["srun", *_one_task(environment), "sh", "-c", LOOK], environment)
    nodes = numa_nodes(asked.stdout)
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", asked.stdout, re.MULTILINE)
    if allowed is None:
        return Finding("FAIL", f"srun starts no task: {essence(asked.stderr + asked.stdout)}", slurm.WHEN_HUNG)
    if not nodes:
        return Finding("SKIP", f"unknown here: there is no {FOLDER}")
    return judge(numbers(allowed[1]), nodes, int(environment.get("SLURM_CPUS_PER_TASK", "1")))


def _one_task(environment: Mapping[str, str]) -> list[str]:
    # It starts no MPI, and takes nothing from the step that this process may be in.
    options = ["--mpi=none", "--overlap", "--mem=0", "--cpu-bind=cores"]
    options += ["--nodes=1", "--ntasks=1", "--ntasks-per-node=1"]
    options += [f"--cpus-per-task={environment.get('SLURM_CPUS_PER_TASK', '1')}"]
    here = environment.get("SLURMD_NODENAME")
    return [*options, f"--nodelist={here}"] if here else options


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
    return Finding("PASS", found, UNBOUND)


def numa_nodes(said: str) -> dict[int, set[int]]:
    """The hardware threads of each NUMA node, in what `LOOK` prints; a node of memory alone has none. Not collective.

    >>> numa_nodes("/sys/devices/system/node/node1/cpulist:4-5")
    {1: {4, 5}}
    """
    lists = re.findall(r"/node(\d+)/cpulist:(.*)", said)
    return {int(node): numbers(text) for node, text in lists}


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
