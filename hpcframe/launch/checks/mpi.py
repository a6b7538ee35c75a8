"""mpiexec, mpi4py, and whether the two belong to the same MPI: the fault that costs newcomers most time.

If they do not, mpiexec starts N runs of one rank each, which all write the same files.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from pathlib import Path

from hpcframe.errors import InputError
from hpcframe.launch import local
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.handshake import Reply, replies
from hpcframe.launch.checks.programs import ask, essence
from hpcframe.launch.checks.units import count

HANDSHAKE = [sys.executable, "-m", "hpcframe.launch.checks.handshake"]
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")  # which launchers give to each rank
NAMES = {"OpenRTE": "Open MPI", "PRRTE": "Open MPI", "HYDRA": "MPICH", "Intel(R) MPI": "Intel MPI"}
MPIEXEC_HUNG = f"see what `mpiexec --version` waits for, or use another: {local.REMEDY}"
BY_HAND = shlex.join([sys.executable, "-m", "hpcframe.launch.local", "-n", "2", "--", *HANDSHAKE])


def launcher() -> Finding:
    """Which mpiexec there is. Not collective."""
    try:
        mpiexec = find_mpiexec()
    except InputError as error:
        if "SLURM_JOB_ID" in os.environ:
            return Finding("SKIP", "none here; in a Slurm job srun starts the ranks")
        return Finding("FAIL", "there is none", str(error).partition(": ")[2])
    asked = ask([mpiexec, "--version"], local.environment(os.environ))
    if asked.returncode:
        return Finding("FAIL", f"{mpiexec} does not run: {essence(asked.stdout + asked.stderr)}", local.REMEDY)
    return Finding("PASS", f"{release(asked.stdout + asked.stderr)} ({mpiexec})")


def find_mpiexec() -> str:
    """The one that `hpcframe run` uses. Raises `InputError` where there is none. Not collective."""
    return local.find_mpiexec(os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))


def library() -> Finding:
    """Whether mpi4py loads, and which MPI with it. Not collective."""
    try:
        version = loaded_version()
    except (ImportError, RuntimeError) as error:
        remedy = "pip install mpi4py" if isinstance(error, ModuleNotFoundError) else f"it needs an MPI: {local.REMEDY}"
        return Finding("FAIL", f"does not load: {essence(str(error))}", remedy)
    import mpi4py

    return Finding("PASS", f"{mpi4py.__version__} on {release(version)} ({_loaded_from()})")


def loaded_version() -> str:
    """What the MPI that mpi4py loads says of itself; MPI is not started for it. Not collective.

    Raises:
        ImportError: there is no mpi4py.
        RuntimeError: mpi4py finds no MPI.
    """
    leave_mpi_alone()
    from mpi4py import MPI

    return MPI.Get_library_version()


def leave_mpi_alone() -> None:
    """Have mpi4py not start MPI in this process, which no launcher started: it could hang. Not collective.

    Raises ImportError where there is no mpi4py.
    """
    import mpi4py

    mpi4py.rc.initialize = False


def _loaded_from() -> str:
    maps = Path("/proc/self/maps")
    files = re.findall(r"(?m)/.*/libmpi(?:ch|_\w+)?\.so.*$", maps.read_text()) if maps.exists() else []
    return files[0] if files else "its file is unknown"


def agreement() -> Finding:
    """Start two ranks as `hpcframe run` does. Not collective."""
    if any(name in os.environ for name in RANK_VARIABLES):
        return Finding("SKIP", "this process is a rank itself", "run hpcframe doctor without mpiexec or srun")
    command = local.command(2, HANDSHAKE)
    environment = local.environment(os.environ, oversubscribed=local.cores() < 2)
    started = ask(command, environment)
    answers = replies(started.stdout)
    if not answers:
        return Finding(
            "FAIL", f"mpiexec starts no ranks: {essence(started.stderr + started.stdout)}", "see what it says by hand"
        )
    return judge(answers, launched_by=launcher().found, remedy=_remedy())


def judge(answers: list[Reply], launched_by: str, remedy: str) -> Finding:
    """Whether the ranks that were started are one job of two that can talk. Not collective."""
    own = release(answers[0].library)
    if [answer.size for answer in answers] == [2, 2] and all(answer.heard == 1 - answer.rank for answer in answers):
        return Finding("PASS", f"{own}, 2 ranks on {count(answers[0].nodes, 'node')}")
    if all(answer.size == 1 for answer in answers):
        found = f"2 ranks were asked for, {len(answers)} started that are each alone"
    else:
        sizes = " and ".join(str(answer.size) for answer in answers)
        found = f"2 ranks were asked for, {len(answers)} answered, which count {sizes}"
    return Finding("FAIL", f"{found}: mpi4py runs on {own}, the launcher is {launched_by}", remedy)


def _remedy() -> str:
    return (
        f"use the mpiexec of the MPI that mpi4py loads. {local.REMEDY[0].upper()}{local.REMEDY[1:]}. "
        "Unload what is in the way: module purge, unset LD_LIBRARY_PATH"
    )


def release(text: str) -> str:
    """Name and number of an MPI, from what its mpiexec or its library says of itself. Not collective."""
    name = r"(Intel\(R\) MPI|Open MPI|OpenRTE|PRRTE|HYDRA|MVAPICH2?|MPICH)"
    match = re.search(name + r"\D*?(\d+(?:\.\d+)+)", text)
    if match is None:
        return f"an MPI unknown to hpcframe: {essence(text)}" if text.strip() else "an MPI that does not name itself"
    return f"{NAMES.get(match[1], match[1])} {match[2]}"
