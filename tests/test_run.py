"""The real program on real ranks: exit codes, one message from one rank, and nobody left hanging."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hpcframe.launch import local

PATIENCE = 60  # s: a job that takes longer hangs

MODEL = """
import os
import hpcframe as hf
from hpcframe.kernels.heat import Heat

class Failing(Heat):
    def advance(self, steps, dt):
        super().advance(steps, dt)
        if os.environ["FAILING"] in ("all", str(self.grid.rank)):
            raise ZeroDivisionError("a fault of the model's own")

class Exploding(Heat):
    def stable_dt(self):
        return 10 * super().stable_dt()

class Slow(Heat):
    def advance(self, steps, dt):
        super().advance(steps, dt)
        import time
        time.sleep(0.02 * steps)
"""


@pytest.fixture
def case(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODEL)
    text = '[simulation]\nmodel = "heat"\n[grid]\nshape = [20, 24]\n[time]\nsteps = 12\n[output]\npicture = false\n'
    (tmp_path / "sim.toml").write_text(text)
    return tmp_path


def start(case: Path, ranks: int, *options: str, **environment: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "hpcframe.run", "sim.toml", *options]
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--", *program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=case, env={**os.environ, **environment}, **pipes)


def run(case: Path, ranks: int, *options: str, **environment: str) -> tuple[int, str, str]:
    job = start(case, ranks, *options, **environment)
    output, errors = job.communicate(timeout=PATIENCE)
    return job.returncode, output, errors


def test_a_run_leaves_its_results_and_exit_code_zero(case):
    code, output, errors = run(case, 2)
    assert code == 0, errors
    summary = json.loads((case / "runs/heat/summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["steps"] == 12
    assert summary["grid"]["ranks"] == 2
    assert (case / "runs/heat/output/step-0000012.h5").exists()
    assert (case / "runs/heat/output/series.xdmf").exists()
    assert len((case / "runs/heat/diagnostics.csv").read_text().splitlines()) == 1 + 13
    assert "summary.json" in output


def test_a_picture_is_drawn_at_the_end(case):
    code, output, _ = run(case, 2, "--set", "output.picture=true")
    assert code == 0
    assert (case / "runs/heat/result.png").read_bytes().startswith(b"\x89PNG")
    assert "result.png" in output


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("grid.shpae=[3]", "did you mean 'shape'?"),
        ("time.dt=1e9", "is not stable"),
        ("simulation.model=haet", "did you mean 'heat'?"),
        ("grid.shape=[1, 2]", "run with 2 ranks"),
        ("initial.u={file='none.npy'}", "none.npy"),
        ("parameters.diffusivity='much'", "diffusivity"),
        ("simulation.directory=/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_wrong_input_ends_with_code_two_and_one_message(case, override, expected):
    code, _, errors = run(case, 3, "--set", override)
    assert code == 2
    assert errors.count("hpcframe: ") == 1, errors
    assert expected in errors
    assert "Traceback" not in errors


def test_the_error_of_one_rank_is_told_once_and_ends_all(case):
    begin = time.monotonic()
    code, _, errors = run(case, 3, "--set", f"simulation.model={case}/models.py:Failing", FAILING="1")
    assert code == 1
    assert errors.count("Traceback") == 1, errors
    assert "rank 1 of 3" in errors
    assert "a fault of the model's own" in errors
    assert time.monotonic() - begin < PATIENCE


def test_an_error_of_all_ranks_is_told_once(case):
    code, _, errors = run(case, 3, "--set", f"simulation.model={case}/models.py:Failing", FAILING="all")
    assert code == 1
    assert errors.count("Traceback") == 1, errors


def test_a_solution_that_blows_up_is_said_so(case):
    options = ("--set", f"simulation.model={case}/models.py:Exploding", "--set", "time.steps=5000")
    code, _, errors = run(case, 2, *options)
    assert code == 1
    assert re.search(r"step \d+, t = .* no longer finite", errors), errors
    assert "cfl" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_between_steps_with_its_state_kept(case, number):
    job = start(case, 2, "--set", f"simulation.model={case}/models.py:Slow", "--set", "time.steps=100000")
    assert job.stdout is not None
    assert "100000 steps" in job.stdout.readline()
    time.sleep(1.0)
    job.send_signal(number)
    output, errors = job.communicate(timeout=PATIENCE)
    assert job.returncode == 75, errors
    summary = json.loads((case / "runs/models/summary.json").read_text())
    assert summary["status"].startswith("interrupted by")
    assert (case / f"runs/models/output/step-{summary['steps']:07d}.h5").exists()
    assert (case / f"runs/models/checkpoints/step-{summary['steps']:07d}/MANIFEST.json").exists()
    assert f"checkpoint of step {summary['steps']} kept" in output


def test_tasks_that_do_not_see_each_other_are_refused(case):
    code, _, errors = run(case, 1, OMPI_COMM_WORLD_SIZE="4")
    program = [sys.executable, "-m", "hpcframe.run", "sim.toml"]
    settings = {**os.environ, "PMI_SIZE": "4", "OMPI_MCA_ess_singleton_isolated": "1"}
    alone = subprocess.run(program, cwd=case, env=settings, capture_output=True, text=True)
    assert alone.returncode == 2
    assert "the launcher started 4 tasks (PMI_SIZE)" in alone.stderr
    assert "srun --mpi=pmix" in alone.stderr
    assert code in (0, 2), errors  # mpiexec itself says how many it started, which is the truth


def test_initial_values_come_from_numpy_and_hdf5_files(case):
    values = np.arange(20.0 * 24).reshape(20, 24)
    np.save(case / "u.npy", values)
    code, _, errors = run(case, 2, "--set", "initial.u={file='u.npy'}", "--set", "time.steps=0")
    assert code == 0, errors
    again = ("--set", "initial.u={file='runs/heat/output/step-0000000.h5'}", "--set", "simulation.directory=runs/again")
    code, _, errors = run(case, 3, *again, "--set", "time.steps=0")
    assert code == 0, errors
    import h5py

    for folder in ("heat", "again"):
        with h5py.File(case / f"runs/{folder}/output/step-0000000.h5") as file:
            assert (file["u"][:] == values).all()


def test_a_file_that_does_not_fit_is_refused_with_both_shapes(case):
    np.save(case / "u.npy", np.zeros((5, 6)))
    code, _, errors = run(case, 2, "--set", "initial.u={file='u.npy'}")
    assert code == 2
    assert "[5, 6]" in errors
    assert "[20, 24]" in errors


def test_a_dry_run_explains_and_writes_nothing(case):
    code, output, errors = run(case, 2, "--dry-run")
    assert code == 0, errors
    for word in ("ranks", "memory", "time", "state", "output"):
        assert re.search(rf"^{word} ", output, re.MULTILINE), output
    assert not (case / "runs").exists()


def test_half_of_the_ranks_compute_while_the_others_do_something_else(tmp_path):
    (tmp_path / "half.py").write_text(
        """
import numpy as np
from mpi4py import MPI
import hpcframe as hf

@hf.stencil
def diffuse(v, u, k):
    v[0, 0] = u[0, 0] + k * (u[1, 0] + u[-1, 0] + u[0, 1] + u[0, -1] - 4.0 * u[0, 0])

world = MPI.COMM_WORLD
half = world.Split(world.rank % 2)
if world.rank % 2 == 0:
    grid = hf.Grid((16, 16), periodic=True, comm=half)
    u, v = grid.fields("u", "v")
    u.fill(lambda x, y: np.sin(2 * np.pi * x) + y)
    u, v = diffuse.iterate(v, u, steps=9, k=0.1)
    total = grid.sum(u)
    if half.rank == 0:
        print("half", grid.size, total)
else:
    assert half.allreduce(1) == half.size
world.Barrier()
"""
    )
    sums = set()
    for ranks in (2, 4):
        command = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--", sys.executable, "half.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        word, size, total = done.stdout.split()
        assert (word, int(size)) == ("half", ranks // 2)
        sums.add(total)
    assert len(sums) == 1


def test_output_into_a_file_has_no_control_codes_though_mpiexec_gives_ranks_a_terminal(case):
    command = local.command(2, [sys.executable, "-m", "hpcframe.run", "sim.toml"])
    environment = local.environment({k: v for k, v in os.environ.items() if k != "TTY_COMPATIBLE"})
    with open(case / "log", "w") as log:
        subprocess.run(command, cwd=case, env=environment, stdout=log, check=True, timeout=PATIENCE)
    text = (case / "log").read_text()
    assert "done: 12 steps" in text
    assert "\x1b" not in text


def test_a_model_in_a_file_finds_modules_beside_it_from_any_folder(case, tmp_path):
    (case / "rates.py").write_text("FASTER = 2.0\n")
    (case / "own.py").write_text(
        "from rates import FASTER\nfrom hpcframe.kernels.heat import Heat\n\n\n"
        "class Own(Heat):\n    def stable_dt(self):\n        return super().stable_dt() / FASTER\n"
    )
    code, _, errors = run(case, 1, "--set", f"simulation.model={case}/own.py:Own", PYTHONSAFEPATH="1")
    assert code == 0, errors
