"""The batch scripts on a real Slurm: whatever happens to a job, its fields are those of one that was left in peace."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from imds import Imds, spot_notice

from .environments import CHECKOUT

STEPS = 80  # of 0.05 s
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
PATH = {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}

CONFIGURATION = f"""
[simulation]
model = "slow.py:Slow"
directory = "run"
[grid]
shape = [16, 12, 20]
[time]
steps = {STEPS}
[checkpoint]
every_steps = 20
[output]
picture = false
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return left_in_peace(tmp_path_factory.mktemp("undisturbed"))


def left_in_peace(folder: Path, steps: int = STEPS) -> Path:
    """A run on one rank, without Slurm and without waiting."""
    program = [sys.executable, "-m", "hpcframe.run", "sim.toml", "--set", "simulation.model='heat'"]
    command = [*program, "--set", f"time.steps={steps}"]
    subprocess.run(command, cwd=case_in(folder), check=True, capture_output=True)
    return folder / "run"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    (tmp_path / "a case").mkdir()  # a path with a space, as users have them
    return case_in(tmp_path / "a case")


def case_in(folder: Path) -> Path:
    shutil.copy(Path(__file__).with_name("slow.py"), folder)
    (folder / "sim.toml").write_text(CONFIGURATION)
    return folder


class Batch:
    """Submits a script in a folder, and waits for what its job does."""

    def __init__(self, cluster, case: Path) -> None:
        self.cluster, self.case = cluster, case

    def submit(self, script: str, *arguments: str, options=TWO_NODES, **environment: str) -> str:
        """A script of a copy beside the case; it runs in the folder of the case."""
        scripts = shutil.copytree(CHECKOUT / "slurm", self.case / "batch scripts", dirs_exist_ok=True)
        line = (*options, str(scripts / script), *arguments)
        return self.cluster.sbatch(*line, environment=PATH | environment, cwd=self.case)

    def wait_for_steps(self, job: str, run: str = "run") -> None:
        """Wait until the first checkpoint of a run is there."""
        kept = self.case / run / "checkpoints/step-0000020"
        self.cluster.wait_until(kept.exists, "the first checkpoint", 60, job)

    def interrupt(self, job: str) -> None:
        """As Slurm does before the time limit."""
        self.cluster.run("scancel", "--signal=USR1", job)

    def finish(self, job: str, limit: float = 90) -> str:
        """Wait until the job is completed; what it wrote."""
        self.cluster.wait(job, "COMPLETED", limit)
        return self.cluster.output(job)


@pytest.fixture
def batch(cluster, case) -> Batch:
    return Batch(cluster, case)


def assert_same(run: Path, undisturbed: Path, steps: int = STEPS) -> None:
    name = f"output/step-{steps:07d}.h5"
    assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    assert (run / "diagnostics.csv").read_bytes() == (undisturbed / "diagnostics.csv").read_bytes()


def test_an_interrupted_job_is_requeued_and_ends_with_the_same_bits(batch, case, undisturbed):
    job = batch.submit("run.sbatch", "sim.toml")
    batch.wait_for_steps(job)
    batch.interrupt(job)
    said = batch.finish(job)
    assert batch.cluster.restarts(job) == 1
    assert "interrupted (SIGUSR1), a checkpoint is kept: requeued, start number 2" in said
    assert "continues from the checkpoint of step" in said
    assert_same(case / "run", undisturbed)


@pytest.mark.slow
def test_a_time_limit_is_met_with_a_checkpoint_and_a_requeue(batch, case, tmp_path_factory):
    # Slurm looks every 30 s: it signals between 15 and 45 s after the start, and the steps take 45 s at least.
    limit, steps = (*TWO_NODES, "--time=1", "--signal=USR1@15"), 900
    job = batch.submit("run.sbatch", "sim.toml", "--set", f"time.steps={steps}", options=limit)
    said = batch.finish(job, 150)
    assert batch.cluster.restarts(job) == 1
    assert "a checkpoint is kept: requeued, start number 2" in said
    assert_same(case / "run", left_in_peace(tmp_path_factory.mktemp("long"), steps), steps)


@pytest.mark.parametrize(
    "noticed",
    [pytest.param(True, id="by Slurm"), pytest.param(False, id="by the script", marks=pytest.mark.slow)],
)
def test_a_crashed_node_sends_the_job_elsewhere(batch, case, undisturbed, noticed):
    job = batch.submit("run.sbatch", "sim.toml")
    batch.wait_for_steps(job)
    batch.cluster.crash("n2")
    if noticed:
        batch.cluster.down("n2")
    said = batch.finish(job, 150)
    assert batch.cluster.restarts(job) == 1
    assert "continues from the checkpoint of step" in said
    assert "n2" not in batch.cluster.record(job)["NodeList"]
    assert_same(case / "run", undisturbed)


def test_a_drained_node_is_left_at_the_next_start(batch, case, undisturbed):
    job = batch.submit("run.sbatch", "sim.toml")
    batch.wait_for_steps(job)
    batch.cluster.drain("n1")
    batch.interrupt(job)
    batch.finish(job)
    assert batch.cluster.record(job)["NodeList"] == "n[2-3]"
    assert_same(case / "run", undisturbed)


def test_a_spot_notice_requeues(batch, case, undisturbed):
    with Imds() as service:
        service.answers["spot/instance-action"] = spot_notice(100)  # of the first nodes: the next start has none
        endpoint = f"http://{service.host}"
        job = batch.submit("spot.sbatch", "sim.toml", AWS_EC2_METADATA_SERVICE_ENDPOINT=endpoint)
        batch.cluster.wait_until(lambda: batch.cluster.restarts(job) == 1, "a requeue", 60, job)
        service.answers.clear()
        said = batch.finish(job)
    assert "interrupted (SPOT), a checkpoint is kept: requeued" in said
    assert_same(case / "run", undisturbed)


def test_a_sweep_has_a_folder_for_each_value_and_one_that_is_interrupted_leaves_the_others_alone(batch, case):
    values, cluster = "parameters.diffusivity=1e-4,2e-4,4e-4", batch.cluster
    options = ("--array=0-2", "--nodes=1", "--ntasks-per-node=1")
    job = batch.submit("sweep.sbatch", "sim.toml", values, options=options)
    for value in ("1e-4", "2e-4", "4e-4"):
        batch.wait_for_steps(job, f"run/parameters.diffusivity={value}")
    cluster.run("scancel", f"{job}_0")
    batch.interrupt(f"{job}_2")  # the last task is the one that has the number of the array
    assert cluster.wait(f"{job}_2", "COMPLETED", 90) == cluster.wait(f"{job}_1", "COMPLETED") == "COMPLETED"
    assert cluster.state(f"{job}_0") == "CANCELLED"
    assert [cluster.restarts(f"{job}_{task}") for task in range(3)] == [0, 0, 1]
    for value in ("2e-4", "4e-4"):
        summary = json.loads((case / f"run/parameters.diffusivity={value}/summary.json").read_text())
        assert summary["status"] == "done"
        assert summary["configuration"]["parameters"]["diffusivity"] == float(value)


def test_the_next_job_of_a_chain_is_as_the_first_and_the_rest_is_taken_back(batch, case, undisturbed):
    like = (*TWO_NODES, "--job-name=hpcframe-chain", "--nice=7", f"--output={case}/log-%j.txt", "--time=9")
    first = batch.submit("chain.sbatch", "3", "sim.toml", options=like, HPCFRAME_SBATCH="--nice=7\n--signal=USR1@60")
    batch.wait_for_steps(first)
    batch.interrupt(first)
    batch.cluster.wait(first)
    second, third = str(int(first) + 1), str(int(first) + 2)
    assert f"interrupted (SIGUSR1), a checkpoint is kept: job {second} goes on" in batch.cluster.output(first)
    batch.finish(second)
    assert batch.cluster.wait(third) == "CANCELLED"
    assert batch.cluster.record(third)["Dependency"].startswith(("(null)", f"afterany:{second}"))
    assert (case / f"log-{second}.txt").exists()
    for key in ("JobName", "Nice", "TimeLimit", "NumNodes", "NumTasks", "Partition"):
        assert batch.cluster.record(second)[key] == batch.cluster.record(first)[key], key
    assert_same(case / "run", undisturbed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sim.toml", "--set", "time.stepz=3"], "did you mean 'steps'"),
        (["sim.toml", "--sett", "time.steps=3"], "error: unrecognized arguments: --sett time.steps=3"),
    ],
)
def test_wrong_input_is_told_once_and_not_tried_again(batch, arguments, said):
    job = batch.submit("run.sbatch", *arguments)
    batch.cluster.wait(job, "FAILED")
    assert batch.cluster.exit_code(job) == 2
    assert batch.cluster.restarts(job) == 0
    assert batch.cluster.output(job).count(said) == 1
    assert "the input is wrong (see above): not requeued" in batch.cluster.output(job)


@pytest.mark.parametrize("script", ["run", "spot", "sweep", "chain", "benchmark"])
def test_a_script_without_arguments_says_what_it_takes(script):
    done = subprocess.run(["bash", CHECKOUT / f"slurm/{script}.sbatch"], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{script}.sbatch " in done.stderr


def test_who_stops_a_job_by_hand_finds_it_stopped(batch, case):
    """Also where the ranks would see little of the environment: why it ended is in a file that a variable names."""
    job = batch.submit("run.sbatch", "sim.toml", options=(*TWO_NODES, "--export=PATH,HOME"))
    batch.wait_for_steps(job)
    (case / "run/STOP").touch()
    batch.cluster.wait(job, "FAILED")
    assert batch.cluster.exit_code(job) == 75
    assert batch.cluster.restarts(job) == 0
    assert "stopped by hand: submit it again to go on from the checkpoint" in batch.cluster.output(job)


def test_restarts_are_bounded(batch):
    job = batch.submit("run.sbatch", "sim.toml", HPCFRAME_RESTARTS="0")
    batch.wait_for_steps(job)
    batch.interrupt(job)
    batch.cluster.wait(job, "FAILED")
    assert batch.cluster.exit_code(job) == 75
    assert "HPCFRAME_RESTARTS=N allows more" in batch.cluster.output(job)


def test_a_killed_rank_ends_the_job(batch):
    job = batch.submit("run.sbatch", "sim.toml")
    batch.wait_for_steps(job)
    inside = ("srun", "--jobid", job, "--overlap", "--nodes=1", "--ntasks=1", "--mpi=none")
    batch.cluster.run(*inside, "pkill", "-KILL", "-x", "python")  # of that node
    batch.cluster.wait(job, "FAILED")
    assert batch.cluster.restarts(job) == 0
    assert "submit it again to go on from the newest checkpoint" in batch.cluster.output(job)


def test_a_benchmark_leaves_a_record_and_writes_nothing_on_its_way(batch, case):
    often = [
        "output.every_time=1e-9",
        "checkpoint.every_steps=0",
        "checkpoint.interval='auto'",
        "checkpoint.mean_hours=1e-6",
    ]
    changes = [word for each in ("simulation.model='heat'", "time.steps=300", *often) for word in ("--set", each)]
    job = batch.submit("benchmark.sbatch", "sim.toml", *changes)
    said = batch.finish(job)
    folder = case / f"benchmarks/hpcframe-{job}"
    record = json.loads((folder / "record.json").read_text())
    assert len(record["GLUP_per_s"]["rounds"]) == 3
    assert record["grid"] | {"ranks": 2, "nodes": 2} == record["grid"]
    assert "2 ranks on 2 node(s), median" in said
    assert not list(folder.glob("*/checkpoints/step-*"))
    assert [path.name for path in folder.glob("*/output/step-*.h5")] == ["step-0000300.h5"] * 3
