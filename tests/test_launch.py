"""Starting ranks on one machine: the right options for each MPI, and ranks that end as they are told to."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcframe.errors import InputError
from hpcframe.launch import local

LAUNCH = [sys.executable, "-m", "hpcframe.launch.local", "-n", "2", "--"]

REPORT_SIZE = """
import pathlib, sys
from mpi4py import MPI
comm = MPI.COMM_WORLD
pathlib.Path(sys.argv[1], f"rank-{comm.rank}").write_text(str(comm.size))
sys.exit(int(sys.argv[2]))
"""

# Ranks that take their time to end when interrupted, or, told so, never end.
WORK = """
import os, pathlib, signal, sys, time
from mpi4py import MPI
comm, folder, patience = MPI.COMM_WORLD, pathlib.Path(sys.argv[1]), sys.argv[2]
interrupted = []
signal.signal(signal.SIGUSR1, lambda number, frame: interrupted.append(number))
(folder / f"started-{comm.rank}-{os.getpid()}").touch()
while not interrupted or patience == "stubborn":
    time.sleep(0.05)
    if interrupted:
        (folder / f"interrupted-{comm.rank}").touch()
time.sleep(2)
comm.Barrier()
(folder / f"saved-{comm.rank}").touch()
sys.exit(75)
"""


@pytest.fixture
def working(tmp_path):
    """Start two ranks that work in `tmp_path`, and end them with the test."""
    started = []

    def start(patience: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([*LAUNCH, sys.executable, "-c", WORK, str(tmp_path), patience]))
        wait_for(lambda: len(list(tmp_path.glob("started-*"))) == 2)
        return started[0]

    yield start
    for job in started:
        job.kill()
        job.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_rank_runs_the_program_and_its_exit_code_comes_back(tmp_path):
    code = local.run(3, [sys.executable, "-c", REPORT_SIZE, str(tmp_path), "3"])
    assert code == 3
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"rank-{rank}": "3" for rank in range(3)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_job_has_time_to_save_and_its_exit_code_comes_back(working, tmp_path, number):
    job = working("patient")
    job.send_signal(number)
    assert job.wait(timeout=30) == 75
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


def test_a_second_signal_ends_a_job_that_ignores_the_first(working, tmp_path):
    job = working("stubborn")
    job.send_signal(signal.SIGINT)
    wait_for(lambda: len(list(tmp_path.glob("interrupted-*"))) == 2)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=local.GRACE / 2) != 0


def test_no_rank_outlives_a_killed_launcher(working, tmp_path):
    job = working("stubborn")
    job.kill()
    job.wait()
    ranks = [int(path.name.split("-")[2]) for path in tmp_path.glob("started-*")]
    assert ranks
    wait_for(lambda: not any(runs(rank) for rank in ranks))  # fails after half a minute


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_ranks_show_live_progress_only_on_a_terminal(on_a_terminal):
    ask = "import rich.console; print('live:', rich.console.Console().is_terminal)"
    reading, writing = pty.openpty() if on_a_terminal else os.pipe()
    subprocess.run([*LAUNCH, sys.executable, "-c", ask], stdout=writing, check=True, timeout=60)
    os.close(writing)
    assert f"live: {on_a_terminal}" in os.read(reading, 1000).decode()
    os.close(reading)


def test_the_parent_of_the_ranks_loads_no_mpi():
    heavy = "import sys, hpcframe.launch.local; print({'mpi4py', 'numba', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True).strip() == "set()"


def test_without_mpiexec_the_error_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match=r"pip install.*hpcframe\[mpi\].*module load"):
        local.find_mpiexec(str(tmp_path))


def test_fewer_ranks_than_one_are_refused():
    with pytest.raises(InputError, match="0 ranks"):
        local.command(0, ["true"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("mpiexec (Open MPI) 5.0.11", "openmpi"),
        ("mpiexec.openmpi (OpenRTE) 4.1.4", "openmpi"),
        ("HYDRA build details:\n    Version: 5.0.2", "mpich"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.18 HYDRA", "intel"),
        ("slurm 24.05", None),
    ],
)
def test_an_mpiexec_is_known_by_what_it_says_of_itself(tmp_path, answer, expected):
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    mpiexec.chmod(0o755)
    assert local.implementation(str(mpiexec)) == expected


@pytest.mark.parametrize(
    ("implementation", "ranks", "threads", "expected"),
    [
        ("openmpi", 2, 1, ["--bind-to", "none"]),
        ("openmpi", 4, 1, ["--bind-to", "core"]),
        ("openmpi", 2, 2, ["--map-by", "slot:PE=2", "--bind-to", "core"]),
        ("openmpi", 4, 2, ["--bind-to", "none"]),
        ("openmpi", 5, 1, ["--oversubscribe", "--bind-to", "none"]),
        ("mpich", 4, 1, ["-bind-to", "core"]),
        ("mpich", 2, 2, ["-bind-to", "core:2"]),
        ("mpich", 5, 1, []),
        ("intel", 4, 1, []),
        (None, 5, 1, []),
    ],
)
def test_ranks_are_bound_only_when_they_and_their_threads_fill_the_cores(implementation, ranks, threads, expected):
    assert local.options(implementation, ranks, cores=4, threads=threads) == expected


def test_a_rank_of_several_threads_gets_a_core_for_each(tmp_path):
    cores = local.cores()
    code = "import os; print(len(os.sched_getaffinity(0)))"
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", "1", "--", sys.executable, "-c", code]
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(cores)}
    assert subprocess.check_output(command, text=True, env=environment).strip() == str(len(os.sched_getaffinity(0)))


def test_what_the_user_set_stays():
    mine = {"HOME": "/home/me", "OMP_NUM_THREADS": "4", "OMPI_MCA_btl": "tcp,self"}
    environment = local.environment(mine)
    assert mine.items() <= environment.items()
    assert environment["NUMBA_NUM_THREADS"] == "1"


def test_waiting_ranks_give_way_when_there_are_more_than_cores():
    assert "OMPI_MCA_mpi_yield_when_idle" not in local.environment({})
    assert local.environment({}, oversubscribed=True)["OMPI_MCA_mpi_yield_when_idle"] == "1"


def test_only_root_is_allowed_to_run_as_root():
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in local.environment({})) == (os.geteuid() == 0)


@pytest.mark.parametrize("home", [{}, {"HOME": ""}])
def test_ranks_have_a_home_even_if_the_user_has_none(home):
    assert Path(local.environment(home)["HOME"]).is_dir()
