"""Of two incarnations of a run only the later one writes."""

import os
import subprocess
import sys

import pytest

from hpcframe.checkpoint.lease import NAME, Lease
from hpcframe.errors import HpcframeError

TAKE = "import os, sys; from pathlib import Path; from hpcframe.checkpoint.lease import Lease; {}"


def job(number: int, restarts: int = 0) -> dict[str, str]:
    """The environment of a job of Slurm, which counts restarts from the first on."""
    count = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
    return {"SLURM_JOB_ID": str(number), **count}


def test_who_has_it_may_write(tmp_path):
    lease = Lease.take(tmp_path, job(7))
    lease.check()
    lease.check()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("former", "later"),
    [
        (job(7), job(7, 1)),
        (job(7, 1), job(7, 2)),
        (job(7, 9), job(7, 10)),
        (job(7, 1), job(7, 1)),  # another step of the same job
        (job(7, 3), job(8)),
        (job(7, 3), {}),
        ({}, job(7)),
        ({}, {}),
    ],
)
def test_who_comes_later_takes_over_and_the_former_one_stops(tmp_path, former, later):
    zombie = Lease.take(tmp_path, former)
    lease = Lease.take(tmp_path, later)
    lease.check()
    with pytest.raises(HpcframeError, match="cannot keep checkpoints there any more"):
        zombie.check()


def test_an_earlier_incarnation_of_the_same_job_is_refused(tmp_path):
    lease = Lease.take(tmp_path, job(7, 2))
    for restarts in (0, 1):
        with pytest.raises(HpcframeError, match=r"job 7, started again 2 time\(s\)"):
            Lease.take(tmp_path, job(7, restarts))
    lease.check()


def test_the_zombie_is_told_who_has_the_folder_now(tmp_path):
    """The other one is a process of its own."""
    zombie = Lease.take(tmp_path, job(7))
    program = TAKE.format("Lease.take(Path(sys.argv[1]), os.environ); print(os.getpid(), os.uname().nodename)")
    environment = {**os.environ, **job(7, 1)}
    command = [sys.executable, "-c", program, str(tmp_path)]
    process, host = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    with pytest.raises(HpcframeError) as refused:
        zombie.check()
    assert f"job 7, started again 1 time(s), process {process} on {host}" in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_without_the_file_nobody_writes(tmp_path):
    lease = Lease.take(tmp_path, {})
    (tmp_path / NAME).unlink()
    with pytest.raises(HpcframeError, match="cannot keep checkpoints"):
        lease.check()


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b'{"token": 7}'])
def test_a_broken_file_gives_nobody_the_right_and_is_taken_over(tmp_path, text):
    lease = Lease.take(tmp_path, job(7, 5))
    (tmp_path / NAME).write_bytes(text)
    with pytest.raises(HpcframeError, match="cannot keep checkpoints"):
        lease.check()
    Lease.take(tmp_path, job(7)).check()


def test_a_restart_count_that_is_no_number_is_none(tmp_path):
    lease = Lease.take(tmp_path, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "many"})
    lease.check()
    assert lease.holder.restarts == 0


def test_of_many_that_take_it_at_once_exactly_one_has_it(tmp_path):
    program = TAKE.format(
        "lease = Lease.take(Path(sys.argv[1]), {}); print('taken', flush=True); sys.stdin.read(); lease.check()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == b"taken\n"
    for process in processes:
        process.communicate(timeout=30)
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
