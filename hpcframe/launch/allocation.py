"""`hpcframe doctor --nodes`: the checks of a node on all nodes of a Slurm job, and where the nodes differ."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping

from rich.console import Console

from hpcframe.errors import HpcframeError, InputError
from hpcframe.launch.checks import CHECKS
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.programs import ask, essence
from hpcframe.launch.comparison import compare
from hpcframe.launch.examination import LIMIT
from hpcframe.launch.node import read_line
from hpcframe.launch.report import show
from hpcframe.launch.supervision import run_within

TITLES = [check.title for check in CHECKS if check.everywhere]
START = 60.0  # s that srun may take to start


def examine_nodes(environment: Mapping[str, str] = os.environ) -> int:
    """Run the checks of a node on all nodes of this job, print how they compare, return 0, or 1 if one failed.
    Not collective.

    Raises:
        InputError: this is not in a Slurm job.
        HpcframeError: Slurm does not start anything on its nodes.
    """
    if "SLURM_JOB_ID" not in environment or not shutil.which("srun"):
        raise InputError("--nodes looks at the nodes of a Slurm job: salloc -N 2 hpcframe doctor --nodes")
    console = Console(highlight=False, soft_wrap=True)
    names = _names(environment)
    with console.status(f"asking {len(names)} nodes"):  # seen on a terminal only
        comparisons = compare(TITLES, _ask_nodes(names))
    for comparison in comparisons:
        show(console, comparison.title, comparison.status, comparison.in_words(), comparison.remedy)
    number = Counter(comparison.status for comparison in comparisons)
    console.print(f"\n{len(names)} node(s): {number['DIFF']} differ, {number['FAIL']} failed of {len(TITLES)} checks")
    return 1 if number["FAIL"] else 0


def _names(environment: Mapping[str, str]) -> list[str]:
    asked = ask(["scontrol", "show", "hostnames", environment["SLURM_JOB_NODELIST"]])
    if asked.returncode or not asked.stdout.split():
        raise HpcframeError(f"scontrol does not name the nodes of this job: {essence(asked.stderr + asked.stdout)}")
    return asked.stdout.split()


def _ask_nodes(names: list[str]) -> dict[str, dict[str, Finding]]:
    """Findings by node and title."""
    answer = run_within(START + LIMIT * len(TITLES), [*_srun(len(names)), sys.executable, "-m", "hpcframe.launch.node"])
    findings: dict[str, dict[str, Finding]] = {name: {} for name in names}
    whole = answer.output.rpartition("\n")[0]  # where it was out of time, the last line may be cut
    for said in filter(None, map(read_line, whole.splitlines())):
        node, title, finding = said
        findings.setdefault(node, {})[title] = finding
    if not any(findings.values()):
        said_instead = essence(answer.errors) if answer.code is not None else "no answer"
        raise HpcframeError(f"srun does not start the checks on the nodes of this job: {said_instead}")
    return findings


def _srun(nodes: int) -> list[str]:
    # The step may share the cores of the one that this process may be in, and each task may use all cores of the job:
    # the checks look at the node, not at a binding. It starts no MPI.
    places = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return ["srun", "--mpi=none", *places, "--overlap", "--cpu-bind=none", "--kill-on-bad-exit=0"]
