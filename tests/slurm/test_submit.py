"""`hpcframe submit`, `status` and `cancel` on a real Slurm."""

import os
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

from .environments import CHECKOUT

SCRIPTS = sysconfig.get_path("scripts")
HPCFRAME = (str(Path(SCRIPTS, "hpcframe")),)
TWO_NODES = ("--nodes", "2", "--ranks-per-node", "1")
SMALL = ("--set", "time.steps=20", "--set", "output.picture=false")
LONG = ("--set", "time.steps=1000000", "--set", "output.every_steps=0", "--set", "output.picture=false")


@pytest.fixture
def case(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "kernels/heat.toml", tmp_path / "sim.toml")
    return tmp_path


@pytest.fixture
def hpcframe(cluster, case):
    """The command, in the folder of a sim.toml, as somebody with an active environment calls it."""
    path = {"PATH": os.pathsep.join([SCRIPTS, cluster.environment["PATH"]])}

    def call(*arguments: str, code: int = 0) -> str:
        done = cluster.run(*HPCFRAME, *arguments, environment=path, cwd=case, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    return call


def submitted(output: str) -> str:
    return re.search(r"^submitted +job (\d+)$", output, re.MULTILINE)[1]


def test_a_dry_run_prints_the_line_and_submits_nothing(cluster, case, hpcframe):
    output = hpcframe("submit", "sim.toml", "--nodes", "3", "--time", "1h30m", "--dry-run")
    (line,) = re.findall(r"^HPCFRAME_THREADS=1 sbatch .*$", output, re.MULTILINE)
    assert "--nodes=3 --ntasks-per-node=8 --cpus-per-task=1 --time=01:30:00" in line
    assert "ranks        24 as " in output
    assert str(case) not in cluster.run("squeue", "--noheader", "--states=all", "--format=%Z").stdout
    cluster.run("sh", "-c", line.replace("sbatch ", "sbatch --test-only ", 1), cwd=case)  # Slurm takes it as it is


def test_a_submitted_run_reaches_its_end(cluster, case, hpcframe):
    output = hpcframe("submit", "sim.toml", *TWO_NODES, *SMALL)
    job = submitted(output)
    assert cluster.wait(job) == "COMPLETED", cluster.output(job)
    assert "20 steps" in (case / f"hpcframe-{job}.out").read_text()
    told = hpcframe("status", job)
    assert "COMPLETED" in told
    assert "step 20 of 20 (100 %)" in told
    assert "summary.json: done at step 20" in told


def test_a_cancelled_run_leaves_a_checkpoint_and_does_not_come_back(cluster, case, hpcframe):
    job = submitted(hpcframe("submit", "sim.toml", *TWO_NODES, *LONG))
    diagnostics = case / "runs/heat/diagnostics.csv"
    cluster.wait_until(lambda: diagnostics.exists() and len(diagnostics.read_text().splitlines()) > 3, "steps", job=job)
    assert f"{job}  hpcframe-heat  RUNNING, 2 node(s) of mpi" in hpcframe("status")
    assert "to write a checkpoint" in hpcframe("cancel", job, "--checkpoint")
    cluster.wait(job)
    assert cluster.restarts(job) == 0
    told = hpcframe("status", job)
    assert "interrupted by SIGUSR1" in told
    assert re.search(r"newest checkpoint: step [1-9]", told)
    assert "has ended already" in hpcframe("cancel", job)


def test_of_a_sweep_what_runs_keeps_a_checkpoint_and_what_waits_is_cancelled(cluster, case, hpcframe):
    values = ("--sweep", "parameters.diffusivity=1e-4,2e-4", "--nodes", "3", "--ranks-per-node", "1")
    job = submitted(hpcframe("submit", "sim.toml", *values, *LONG))  # of 4 nodes: one waits for the other
    runs = case / "runs/heat/parameters.diffusivity=1e-4"
    diagnostics = runs / "diagnostics.csv"
    cluster.wait_until(lambda: diagnostics.exists() and len(diagnostics.read_text().splitlines()) > 3, "steps", job=job)
    assert "to write a checkpoint" in hpcframe("cancel", job, "--checkpoint")
    cluster.wait(job)
    assert cluster.state(f"{job}_1") == "CANCELLED"
    assert cluster.restarts(f"{job}_0") == 0
    assert list((runs / "checkpoints").glob("step-*"))


def test_a_chain_is_submitted_and_cancelled_as_one(cluster, case, hpcframe):
    first = submitted(hpcframe("submit", "sim.toml", *TWO_NODES, *LONG, "--chain", "2", "--sbatch=--nice=3"))
    diagnostics = case / "runs/heat/diagnostics.csv"
    cluster.wait_until(
        lambda: diagnostics.exists() and len(diagnostics.read_text().splitlines()) > 3, "steps", job=first
    )
    second = str(int(first) + 1)
    assert cluster.record(second)["Nice"] == "3"
    assert f"those after it are cancelled: {second}" in hpcframe("cancel", first, "--checkpoint")
    cluster.wait(first)
    assert cluster.wait(second) == "CANCELLED"
    assert "a checkpoint is kept, and no job comes after: submit it again to go on" in cluster.output(first)


def test_a_job_that_waits_is_told_why_and_is_cancelled_with_those_after_it(cluster, case, hpcframe):
    job = submitted(hpcframe("submit", "sim.toml", *TWO_NODES, *SMALL, "--sbatch=--hold"))
    later = submitted(hpcframe("submit", "sim.toml", *TWO_NODES, *SMALL, f"--sbatch=--dependency=afterany:{job}"))
    told = hpcframe("status")
    assert f"{job}  hpcframe-heat  PENDING" in told
    assert f"scontrol release {job}" in told
    assert "it waits for another job to end" in told
    cancelled = hpcframe("cancel", job, "--checkpoint")
    assert "it had not begun" in cancelled
    assert f"those after it: {later}" in cancelled
    assert cluster.wait(job) == cluster.wait(later) == "CANCELLED"
    assert "no job of yours" in hpcframe("status")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--partition", "mpo"), "did you mean 'mpi'"),
        (("--nodes", "5"), "partition mpi has 4"),
        (("--ranks-per-node", "9"), "a node has 8"),
        (("--set", "grid.shape=[2000, 2000, 2000]"), "GB; give --nodes"),
        (("--set", "grid.shpae=[8, 8, 8]"), "did you mean 'shape'"),
        (("--sweep", "parameters.difusivity=1,2"), "did you mean 'diffusivity'"),
        (("--sweep", "parameters.diffusivity=1,-1"), "from --set parameters.diffusivity=-1"),
        (("--sbatch=--reservation=none",), "Slurm does not take the job"),
    ],
)
def test_what_cannot_run_is_refused_with_the_remedy(cluster, case, hpcframe, options, said):
    assert said in hpcframe("submit", "sim.toml", *options, code=1 if "--sbatch" in options[0] else 2)


def test_more_time_than_a_partition_allows_is_refused(cluster, case, hpcframe):
    cluster.run("scontrol", "update", "PartitionName=spot", "MaxTime=60")
    try:
        refused = hpcframe("submit", "sim.toml", "--spot", "--time", "2h", code=2)
    finally:
        cluster.run("scontrol", "update", "PartitionName=spot", "MaxTime=INFINITE")
    assert "--time 02:00:00: partition spot allows 01:00:00" in refused


def test_an_unknown_job_is_refused(hpcframe):
    assert "does not know job 99999" in hpcframe("cancel", "99999", code=2)
    assert "is no job id" in hpcframe("status", "all", code=2)
