"""Slurm: does srun start ranks that know of each other? It must speak the protocol of the MPI that mpi4py loads."""

from __future__ import annotations

import os
import re
import shutil

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.handshake import replies
from hpcframe.launch.checks.mpi import HANDSHAKE, judge, loaded_version, release
from hpcframe.launch.checks.programs import ask, essence
from hpcframe.protocol import protocol_of

BY_HAND = "srun --mpi=list; srun --mpi=pmix --ntasks=2 python -m hpcframe.launch.checks.handshake"  # or pmi2
WHEN_HUNG = "see what the job waits for: squeue --steps --me; or run hpcframe doctor in a job of its own"


def agreement() -> Finding:
    """Start two ranks by srun, in the job that this process is in. Not collective."""
    if "SLURM_JOB_ID" not in os.environ:
        if not shutil.which("srun"):
            return Finding("SKIP", "no Slurm here")
        return Finding("SKIP", "not in a Slurm job", "check a compute node too: salloc -N 2 -n 2 hpcframe doctor")
    if not shutil.which("srun"):
        return Finding("FAIL", "in a Slurm job, but there is no srun on PATH", "module load slurm, or correct PATH")
    asked = ask(["srun", "--mpi=list"])
    own = release(loaded_version())
    protocol = protocol_of(own)
    if protocol not in offered(asked.stdout + asked.stderr):
        return _not_offered(own, protocol, asked.stdout + asked.stderr)
    return _trial(own, protocol)


def offered(listing: str) -> set[str]:
    """The protocols in what `srun --mpi=list` prints, which differs between versions of Slurm. Not collective."""
    return set(re.findall(r"^(?:srun:)?\s*([a-z]\w*)\s*$", listing, flags=re.MULTILINE))


def _not_offered(own: str, protocol: str, listing: str) -> Finding:
    choices = ", ".join(sorted(offered(listing))) or essence(listing)
    return Finding(
        "FAIL",
        f"{own} needs srun --mpi={protocol}, and this Slurm has none: {choices}",
        f"use mpiexec in the job instead of srun, or ask for a Slurm that is built with {protocol}",
    )


def _trial(own: str, protocol: str) -> Finding:
    # On two nodes where the job has them. The step may share the cores of the one that this process may be in.
    nodes = min(2, int(os.environ.get("SLURM_JOB_NUM_NODES", "1")))
    srun = ["srun", f"--mpi={protocol}", f"--nodes={nodes}", "--ntasks=2", "--overlap", "--overcommit"]
    started = ask([*srun, *HANDSHAKE])
    answers = replies(started.stdout)
    remedy = f"load the module of {own} in the job; with Intel MPI also set I_MPI_PMI_LIBRARY to Slurm's libpmi2.so"
    if not answers:
        return Finding("FAIL", f"srun starts no ranks: {essence(started.stderr + started.stdout)}", remedy)
    finding = judge(answers, launched_by=f"srun --mpi={protocol}", remedy=remedy)
    if finding.status != "PASS":
        return finding
    return Finding("PASS", finding.found, f"start runs by: srun --mpi={protocol} python -m hpcframe.run sim.toml")
