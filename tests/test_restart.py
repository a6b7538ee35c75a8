"""An interrupted run that is continued, on whatever number of ranks, leaves the bytes that one without interruption
leaves; and it never continues from what it should not."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

HPCFRAME = str(Path(sysconfig.get_path("scripts"), "hpcframe"))
PATIENCE = 100  # s: a job that takes longer hangs

# ---- every kernel, from N ranks to M

RANKS = (1, 2, 3, 4, 6, 8)

CASES = {
    "heat": """
[grid]
shape = [12, 10, 9]
[boundary]
x = "periodic"
y = { lower = { dirichlet = 0.0 }, upper = { neumann = 0.5 } }
z = { lower = "neumann", upper = { dirichlet = "0.1*sin(1000*t)" } }
[checkpoint]
driver = "direct"
""",
    "wave": """
[grid]
shape = [40, 36]
extent = [2000.0, 1800.0]
[parameters]
space_order = 8
amplitude = 1.0e6
[initial]
velocity = "3000 if y < 500 else 1500"
[boundary]
x = "periodic"
y = { lower = "neumann", upper = "dirichlet" }
[checkpoint]
asynchronous = true
""",
    "gray_scott": """
[grid]
shape = [24, 21]
extent = [0.24, 0.21]
[checkpoint]
files = 3
""",
}

COMMON = """
[simulation]
model = "{model}"
[time]
steps = 5
[output]
every_steps = 2
picture = false
[monitor]
every_steps = 1
"""

MATRIX = """
import json, math, shutil, sys
from pathlib import Path
from mpi4py import MPI
from hpcframe.checkpoint import tiles
from hpcframe.simulation import bandwidth
from hpcframe.simulation.configuration import load
from hpcframe.simulation.interruption.reason import Reason
from hpcframe.simulation.loop import Run
from hpcframe.simulation.results import final_norms

tiles.TILE_BYTES = 1000  # several a rank, which do not end where blocks do
bandwidth.ELEMENTS_A_NODE = bandwidth.LEAST_ELEMENTS_A_RANK = 1 << 10  # what it measures is of no interest here
world = MPI.COMM_WORLD
TOGETHER = ((8,), (6, 2), (4, 3, 1))  # numbers of ranks that make 8
faults, count = [], 0


class AfterSteps:
    "Asks to stop when some steps are done."
    def __init__(self, steps):
        self.left = steps
    def look(self):
        self.left -= 1
        return (Reason.SIGTERM if self.left <= 0 else Reason.NONE), math.inf
    def obeyed(self):
        pass


def each(groups):
    "The communicator of this rank's group, and the number of ranks in it."
    numbers = [number for number in groups for _ in range(number)]
    color = [index for index, number in enumerate(groups) for _ in range(number)][world.rank]
    return world.Split(color), numbers[world.rank]


def simulate(comm, model, folder, steps=None, restart="auto"):
    run = Run(load(f"{model}.toml", [f"simulation.directory={folder}"]), comm, restart)
    run.execute(AfterSteps(steps) if steps else None)
    assert not run.not_kept and (run.is_interrupted or not steps), (run.not_kept, run.step)
    return run


def left_by(run):
    "What a run leaves: bytes of its files by name, and the norms."
    files = [run.directory / "diagnostics.csv", *sorted((run.directory / "output").iterdir())]
    return {file.name: file.read_bytes() for file in files} | {"norms": repr(final_norms(run))}


def compare(run, expected, what, first_step):
    global count
    count += 1
    found = left_by(run)
    if run.first_step != first_step:
        faults.append(f"{what}: began at step {run.first_step}, not {first_step}")
    if found.keys() != expected.keys():
        faults.append(f"{what}: {sorted(found)}, not {sorted(expected)}")
    faults.extend(f"{what}: {name} differs" for name in found if found[name] != expected.get(name))


for model in sys.argv[1:]:
    whole = left_by(simulate(world, model, f"{model}/whole"))
    for groups in TOGETHER:
        comm, ranks = each(groups)
        simulate(comm, model, f"{model}/{ranks}", steps=3)
    world.Barrier()
    for before in (1, 2, 3, 4, 6, 8):
        for groups in TOGETHER:
            comm, ranks = each(groups)
            folder = Path(f"{model}/{before}-{ranks}")
            if comm.rank == 0:
                shutil.copytree(f"{model}/{before}", folder)
            comm.Barrier()
            compare(simulate(comm, model, folder), whole, f"{model}, {before} -> {ranks} ranks", 3)
            comm.Barrier()
    folder = f"{model}/often"
    for turn, ranks in enumerate((3, 8, 1, 6)):
        comm = world.Split(int(world.rank < ranks))
        if world.rank < ranks:
            run = simulate(comm, model, folder, steps=1)
        world.Barrier()
    compare(simulate(world, model, folder), whole, f"{model}, interrupted four times", 4)

found = world.gather((faults, count if world.rank == 0 else 0))
if world.rank == 0:
    listed = sorted({fault for part, _ in found for fault in part})
    Path("outcome.json").write_text(json.dumps({"faults": listed, "groups": count}))
"""


@pytest.mark.timeout(300)  # eight ranks take turns, on two cores for half a minute
@pytest.mark.parametrize("model", CASES)
def test_from_any_number_of_ranks_to_any_other_the_bits_stay(tmp_path, model):
    (tmp_path / "matrix.py").write_text(MATRIX)
    (tmp_path / f"{model}.toml").write_text(COMMON.format(model=model) + CASES[model])
    job = launched(tmp_path, 8, "matrix.py", model)
    output, errors = job.communicate(timeout=280)
    assert job.returncode == 0, output + errors
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["faults"] == []
    assert outcome["groups"] == len(RANKS) * 3 + 1  # rank 0 is in one of the groups each time
    for before in RANKS:
        for after in RANKS:
            assert (tmp_path / f"{model}/{before}-{after}/output/step-0000005.h5").exists()


# ---- the real program

SLOW = """
import os, time
from hpcframe.kernels.gray_scott import GrayScott

class Slow(GrayScott):
    def advance(self, steps, dt):
        super().advance(steps, dt)
        time.sleep(steps * float(os.environ.get("SECONDS_A_STEP", "0")))
"""

CONFIGURATION = """
[simulation]
model = "slow.py:Slow"
directory = "run"
[grid]
shape = [24, 21]
extent = [0.24, 0.21]
[parameters]
feed = 0.03
[time]
steps = 300
[output]
every_steps = 70
picture = false
[monitor]
every_steps = 1
"""


def launched(folder: Path, ranks: int, *program: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--", sys.executable, *program]
    return started(folder, command, environment)


def started(folder: Path, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    settings = {**outside, "AWS_EC2_METADATA_DISABLED": "true", **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=settings, **pipes)


def start(folder: Path, ranks: int, *options: str, **environment: str) -> subprocess.Popen[str]:
    return started(folder, [HPCFRAME, "run", "sim.toml", "-n", str(ranks), *options], environment)


def run(folder: Path, ranks: int, *options: str, **environment: str) -> tuple[int, str, str]:
    job = start(folder, ranks, *options, **environment)
    output, errors = job.communicate(timeout=PATIENCE)
    return job.returncode, output, errors


def interrupt(folder: Path, ranks: int, *options: str) -> tuple[int, str]:
    """Start a slow run, and ask it to end once it has done some steps."""
    job = start(folder, ranks, *options, SECONDS_A_STEP="0.02")
    give_up = time.monotonic() + PATIENCE
    while steps_done(folder) < 20 and job.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    output, errors = job.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors, errors
    return job.returncode, output


def steps_done(folder: Path) -> int:
    table = folder / "run/diagnostics.csv"
    return len(table.read_text().splitlines()) - 2 if table.exists() else 0


def results(folder: Path) -> dict[str, bytes]:
    """The files that a run leaves, but for those that tell how it went."""
    run = folder / "run"
    return {path.name: path.read_bytes() for path in [run / "diagnostics.csv", *(run / "output").iterdir()]}


def final(folder: Path) -> dict[str, float]:
    return json.loads((folder / "run/summary.json").read_text())["final"]


def checkpoints_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run/checkpoints").iterdir() if path.name.startswith("step-"))


def write_case(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "slow.py").write_text(SLOW)
    (folder / "sim.toml").write_text(CONFIGURATION)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was not interrupted."""
    folder = write_case(tmp_path_factory.mktemp("whole") / "case")
    code, _, errors = run(folder, 1)
    assert code == 0, errors
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run on two ranks that SIGTERM ended, what it said, and its step."""
    folder = write_case(tmp_path_factory.mktemp("stopped") / "case")
    code, output = interrupt(folder, 2)
    step = json.loads((folder / "run/summary.json").read_text())["steps"]
    return folder, code, output, step


@pytest.fixture
def case(stopped, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(stopped[0], tmp_path / "case"))


def test_an_interrupted_run_says_what_it_kept_and_exits_with_75(stopped):
    folder, code, output, step = stopped
    assert code == 75
    assert 20 <= step < 300
    assert f"checkpoint of step {step} kept" in output
    assert checkpoints_in(folder) == [f"step-{step:07d}"]


def test_the_same_command_continues_to_the_same_bytes(case, stopped, whole):
    code, output, errors = run(case, 3)
    assert code == 0, errors
    assert f"continues from the checkpoint of step {stopped[3]}" in output
    assert results(case) == results(whole)
    assert final(case) == final(whole)
    rows = list(csv.DictReader((case / "run/diagnostics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(301))


def test_a_run_may_be_interrupted_again_and_again(case, whole):
    for ranks in (3, 1):
        before = steps_done(case)
        job = start(case, ranks, SECONDS_A_STEP="0.02")
        give_up = time.monotonic() + PATIENCE
        while steps_done(case) < before + 10 and job.poll() is None:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=PATIENCE)
        assert job.returncode == 75
    code, _, errors = run(case, 2)
    assert code == 0, errors
    assert results(case) == results(whole)
    assert final(case) == final(whole)


def test_restart_none_begins_anew_and_sets_the_former_aside(case, stopped, whole):
    code, output, errors = run(case, 2, "--restart", "none", "--set", "checkpoint.every_steps=100")
    assert code == 0, errors
    assert "continues" not in output
    assert results(case) == results(whole)
    assert checkpoints_in(case) == ["step-0000100", "step-0000200", "step-0000300"]
    (before,) = (case / "run/checkpoints").glob("before-*")
    assert [path.name for path in before.iterdir()] == [f"step-{stopped[3]:07d}"]


def test_restart_from_a_path_continues_elsewhere(case, stopped, whole):
    step = stopped[3]
    path = f"run/checkpoints/step-{step:07d}"
    code, output, errors = run(case, 2, "--restart", path, "--set", "simulation.directory=other")
    assert code == 0, errors
    assert f"continues from the checkpoint of step {step}" in output
    last = "output/step-0000300.h5"
    assert (case / "other" / last).read_bytes() == (whole / "run" / last).read_bytes()
    assert checkpoints_in(case) == [f"step-{step:07d}"]


def test_another_simulation_is_not_continued(case, stopped):
    before = results(case)
    for _ in range(3):  # to say so is not an attempt
        code, _, errors = run(case, 2, "--set", "parameters.feed=0.04")
        assert code == 2
        assert errors.count("hpcframe: ") == 1, errors
        assert "[parameters] feed was 0.03 and is 0.04 now" in errors
        assert "--restart none" in errors
    assert results(case) == before
    code, output, errors = run(case, 2)
    assert code == 0, errors
    assert f"continues from the checkpoint of step {stopped[3]}" in output


def test_what_does_not_change_the_simulation_may_change(case, whole):
    """Where it writes, how far it goes, how often it says so."""
    shutil.move(case / "run", case / "moved")
    code, _, errors = run(case, 1, "--set", "simulation.directory=moved", "--set", "time.steps=310")
    assert code == 0, errors
    summary = json.loads((case / "moved/summary.json").read_text())
    assert summary["steps"] == 310
    row = (whole / "run/diagnostics.csv").read_text().splitlines()[-1]
    assert row in (case / "moved/diagnostics.csv").read_text().splitlines()


def damage(folder: Path) -> None:
    for file in (folder / "run/checkpoints").glob("step-*/state.h5"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        content[-100] ^= 1
        file.write_bytes(content)


def test_where_no_checkpoint_can_be_used_the_exit_code_is_three_each_time(case, stopped):
    damage(case)
    before = results(case)
    for _ in range(2):
        code, _, errors = run(case, 2)
        assert code == 3
        assert errors.count("hpcframe: ") == 1, errors
        assert f"step-{stopped[3]:07d}: " in errors
        assert "is not what was written" in errors
        assert "--restart none" in errors
    assert results(case) == before
    code, _, errors = run(case, 2, "--restart", "none")
    assert code == 0, errors


def test_a_damaged_checkpoint_is_told_and_the_older_continued(tmp_path, whole):
    folder = write_case(tmp_path / "case")
    code, _ = interrupt(folder, 2, "--set", "checkpoint.every_steps=8")
    assert code == 75
    newest, older = sorted((folder / "run/checkpoints").glob("step-*"))[::-1][:2]
    os.truncate(newest / "state.h5", 5000)
    code, output, errors = run(folder, 3)
    assert code == 0, errors
    assert f"hpcframe: {newest.name}: state.h5 has 5000 bytes" in errors
    assert f"continues from the checkpoint of step {int(older.name[5:])}" in output
    assert results(folder) == results(whole)


@pytest.mark.parametrize("options", [(), ("--set", "checkpoint.asynchronous=true")], ids=["direct", "asynchronous"])
def test_a_run_that_is_killed_continues_from_its_latest_checkpoint(tmp_path, whole, options):
    folder = write_case(tmp_path / "case")
    options = (*options, "--set", "checkpoint.every_steps=5")
    job = start(folder, 2, *options, SECONDS_A_STEP="0.02")
    give_up = time.monotonic() + PATIENCE
    while steps_done(folder) < 33:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    job.kill()  # the launcher: its ranks end with it
    job.communicate(timeout=PATIENCE)
    code, output, errors = run(folder, 3, *options)
    assert code == 0, errors
    assert "continues from the checkpoint of step" in output
    assert results(folder) == results(whole)


@pytest.mark.parametrize(
    "when",
    [("checkpoint.every_seconds=0.3",), ("checkpoint.interval='auto'", "checkpoint.mean_hours=0.0001")],
    ids=["every 0.3 s", "auto"],
)
def test_checkpoints_by_the_clock(tmp_path, whole, when):
    folder = write_case(tmp_path / "case")
    text = (folder / "slow.py").read_text()
    first = "from hpcframe.simulation import checkpointing\ncheckpointing.FIRST_AFTER = 0.3\n"  # a minute is long here
    (folder / "slow.py").write_text(text + first)
    options = [word for key in when for word in ("--set", key)]
    code, _, errors = run(folder, 2, *options, SECONDS_A_STEP="0.01")
    assert code == 0, errors
    said = json.loads((folder / "run/summary.json").read_text())["checkpoints"]
    assert said["count"] >= 3
    assert said["interval_seconds"] > 0
    assert said["waste_actual"] > 0
    assert checkpoints_in(folder)[-1] == "step-0000300"
    assert results(folder) == results(whole)


def test_a_run_that_is_done_may_be_started_again_and_says_the_same(tmp_path, whole):
    folder = write_case(tmp_path / "case")
    for _ in range(5):
        code, _, errors = run(folder, 1, "--set", "checkpoint.every_steps=100")
        assert code == 0, errors
        assert results(folder) == results(whole)
    assert checkpoints_in(folder) == ["step-0000100", "step-0000200", "step-0000300"]


def test_a_run_that_is_to_end_before_its_checkpoint_says_so(tmp_path):
    folder = write_case(tmp_path / "case")
    assert run(folder, 1, "--set", "checkpoint.every_steps=100")[0] == 0
    code, _, errors = run(folder, 1, "--set", "time.steps=150")
    assert code == 2, errors
    assert errors.count("hpcframe: ") == 1, errors
    assert "300" in errors
    assert "150" in errors
