"""A job that makes no progress ends by itself and says which rank is stuck and where. Real ranks, really stuck."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcframe.simulation.stall import RankState, describe_stall, find_stuck

WITHIN = 60  # s: a job that takes longer hangs

PROGRAM = """
import os, sys, threading, time
from pathlib import Path
import numpy as np
from mpi4py import MPI
from hpcframe.simulation.watchdog import Watchdog

comm = MPI.COMM_WORLD
case, rank = sys.argv[1], comm.rank

def advance():
    comm.Allreduce(MPI.IN_PLACE, np.zeros(1))

def fall_asleep():
    time.sleep(1000)

watchdog = Watchdog(Path("."), comm, patience=1.5)
Path(f"pid-{rank}").write_text(str(os.getpid()))
begin = time.monotonic()
for step in range(3):
    watchdog.enter(f"step {step}")
    advance()

if case.startswith("asleep-"):
    if case.endswith(str(rank)):
        watchdog.enter("writing the checkpoint of step 3")
        fall_asleep()
    watchdog.enter("step 3")
    advance()
elif case == "steps":
    while not comm.allreduce(Path("enough").exists()):
        watchdog.enter("step 4")
        advance()
        time.sleep(0.05)
        if time.monotonic() > begin + 1:
            Path(f"ready-{rank}").touch()
elif case == "a thread asleep":
    writer = threading.Thread(target=fall_asleep, name="writer", daemon=True)
    if rank == 1:
        watchdog.enter("waiting for the checkpoint of step 3")
        writer.start()
        writer.join()
    watchdog.enter("step 4")
    advance()
elif case == "mismatch":
    watchdog.enter("step 3")
    if rank == 2:
        comm.Barrier()
    comm.recv(source=2)
elif case == "held":
    watchdog.enter("step 3")
    if rank == 1:
        sum(range(10**12))  # holds the interpreter's lock
    advance()
elif case == "no folder":
    watchdog.enter("step 3")
    comm.Barrier()
    if rank == 0:
        import shutil
        for folder in Path(".").glob(".watchdog-*"):
            shutil.rmtree(folder)
    comm.recv(source=rank)
elif case == "files hang":
    watchdog.enter("step 3")
    (own,) = Path(".").glob(f".watchdog-*/rank-{rank}.json")
    own.unlink()
    os.mkfifo(own)  # opening it waits for ever
    comm.recv(source=rank)
elif case == "one works":
    for step in range(8):
        if rank == 1:
            watchdog.enter(f"writing tile {step}")
            time.sleep(0.5)
    watchdog.enter("step 3")
    advance()
begin = time.monotonic()
watchdog.close()
watchdog.close()
print(f"closed in {time.monotonic() - begin:.3f} s")
"""


def start(folder: Path, ranks: int, case: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "hpcframe.launch.local",
        "-n",
        str(ranks),
        "--",
        sys.executable,
        "program.py",
        case,
    ]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stall(folder: Path, ranks: int, case: str) -> str:
    """What a job that gets stuck reports; it has ended with exit code 1, and nothing of it is left."""
    return ended(folder, ranks, start(folder, ranks, case))


def ended(folder: Path, ranks: int, job: subprocess.Popen[str]) -> str:
    _, errors = job.communicate(timeout=WITHIN)
    assert job.returncode == 1, errors
    assert not list(folder.glob(".*")), "something is left behind"
    for rank in range(ranks):
        wait_for_the_end_of(int((folder / f"pid-{rank}").read_text()))
    return errors


def processes(folder: Path, ranks: int, job: subprocess.Popen[str]) -> list[int]:
    """The processes of the ranks, once all of them do steps."""
    deadline = time.monotonic() + WITHIN
    while len(list(folder.glob("ready-*"))) < ranks:
        assert job.poll() is None, job.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int((folder / f"pid-{rank}").read_text()) for rank in range(ranks)]


def wait_for_the_end_of(process: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process}/cmdline").exists() and b"program.py" in Path(f"/proc/{process}/cmdline").read_bytes():
        assert time.monotonic() < deadline, f"process {process} is left"
        time.sleep(0.05)


def test_a_rank_asleep_is_named_with_its_phase_and_stack_and_the_others_together(tmp_path):
    errors = stall(tmp_path, 3, "asleep-1")
    assert errors.count("hpcframe: ") == 1, errors
    stuck, others = errors.split("The others:")
    assert re.search(r"rank 1 on \S+: writing the checkpoint of step 3, entered \d+ s ago", stuck), errors
    assert "fall_asleep: time.sleep(1000)" in stuck
    assert "Allreduce" not in stuck
    assert re.search(r"ranks 0, 2 on \S+: step 3, .* waits for others", others), errors
    assert "advance: comm.Allreduce(" in others
    assert (tmp_path / "stalled.txt").read_text().startswith(errors[errors.index("hpcframe: ") :][:200])


def test_rank_zero_asleep_is_named(tmp_path):
    stuck = stall(tmp_path, 2, "asleep-0").split("The others:")[0]
    assert re.search(r"rank 0 on \S+: writing the checkpoint of step 3", stuck)


@pytest.mark.parametrize("victim", [0, 2])
def test_a_stopped_rank_does_not_answer(tmp_path, victim):
    job = start(tmp_path, 3, "steps")
    os.kill(processes(tmp_path, 3, job)[victim], signal.SIGSTOP)
    errors = ended(tmp_path, 3, job)
    stuck, others = errors.split("The others:")
    assert re.search(rf"rank {victim} on \S+ does not answer.* Last known: step 4", stuck), errors
    assert "waits for others" in others


def test_a_job_that_was_suspended_for_longer_than_the_patience_goes_on(tmp_path):
    job = start(tmp_path, 2, "steps")
    ranks = processes(tmp_path, 2, job)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in ranks:
            os.kill(process, number)
        time.sleep(2.5)
    (tmp_path / "enough").touch()
    _, errors = job.communicate(timeout=WITHIN)
    assert job.returncode == 0, errors
    assert "hpcframe" not in errors


def test_a_rank_held_in_compiled_code_does_not_answer(tmp_path):
    stuck = stall(tmp_path, 2, "held").split("The others:")[0]
    assert re.search(r"rank 1 on \S+ does not answer", stuck)


def test_a_rank_that_waits_for_a_thread_of_its_own_shows_that_thread(tmp_path):
    stuck = stall(tmp_path, 2, "a thread asleep").split("The others:")[0]
    assert re.search(r"rank 1 on \S+: waiting for the checkpoint of step 3", stuck)
    assert "its thread writer" in stuck
    assert "fall_asleep: time.sleep(1000)" in stuck


def test_of_ranks_that_all_wait_in_mpi_the_one_elsewhere_is_named(tmp_path):
    stuck = stall(tmp_path, 3, "mismatch").split("The others:")[0]
    assert re.search(r"rank 2 on .*comm\.Barrier\(\)", stuck, re.DOTALL)


def test_ranks_end_and_speak_for_themselves_where_their_folder_is_gone(tmp_path):
    errors = stall(tmp_path, 2, "no folder")
    assert "this rank ends" in errors
    assert "step 3" in errors


def test_ranks_end_where_the_file_system_hangs(tmp_path):
    job = start(tmp_path, 2, "files hang")
    _, errors = job.communicate(timeout=WITHIN)
    assert job.returncode == 1, errors
    assert "this rank ends" in errors
    assert re.search(r"rank [01] on \S+: step 3", errors)


def test_progress_of_one_rank_is_enough_and_a_healthy_job_is_left_alone(tmp_path):
    job = start(tmp_path, 3, "one works")  # 4 s, while the others wait for longer than the watchdog's patience
    output, errors = job.communicate(timeout=WITHIN)
    assert job.returncode == 0, errors
    assert "hpcframe" not in errors
    assert output.count("closed in") == 3
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "stalled.txt").exists()


def state(rank: int, **known: object) -> RankState:
    usual = {
        "host": "node",
        "phase": "step 7",
        "beats": 7,
        "stack": ("loop.py:1 advance: comm.Barrier()",),
        "waits": True,
    }
    return RankState(rank=rank, **(usual | known))


def test_where_no_rank_stands_out_the_report_says_so_and_shows_them_together():
    states = [state(rank) for rank in range(512)]
    assert find_stuck(states) == []
    text = describe_stall(states, 600)
    assert "No rank stands out" in text
    assert "ranks 0-511 on node: step 7" in text


def test_of_ranks_that_wait_the_one_behind_is_named():
    states = [state(rank, beats=6 if rank == 3 else 7) for rank in range(5)]
    assert [found.rank for found in find_stuck(states)] == [3]


def test_where_all_write_the_rank_that_does_not_answer_is_named():
    states = [state(rank, waits=False, answers=rank != 2) for rank in range(4)]
    assert [found.rank for found in find_stuck(states)] == [2]
