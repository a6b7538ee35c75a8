"""What asks a run to stop: real signals to real processes, a stop file, a job's end, and EC2's notices."""

import faulthandler
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from imds import Imds, moment, spot_notice
from waiting import PATIENCE, until

from hpcframe import metadata
from hpcframe.errors import HpcframeError, InputError
from hpcframe.metadata import metadata_host
from hpcframe.simulation.interruption import slurm, stop_file
from hpcframe.simulation.interruption.interruptions import Interruptions
from hpcframe.simulation.interruption.reason import Reason
from hpcframe.simulation.interruption.spot import SpotNotices
from hpcframe.simulation.interruption.time_limit import TimeLimit, age_of_process

QUIET = {"AWS_EC2_METADATA_DISABLED": "true"}


# ---- signals

RANK = """
import sys, time
from pathlib import Path
from mpi4py import MPI
from hpcframe.simulation.interruption.interruptions import Interruptions
from hpcframe.simulation.interruption.reason import Reason
import os
comm = MPI.COMM_WORLD
interruptions = Interruptions(Path("nowhere"), comm, comm)
Path(f"pid-{comm.rank}.partial").write_text(str(os.getpid()))
os.rename(f"pid-{comm.rank}.partial", f"pid-{comm.rank}")
known = Reason.NONE
while known.name != sys.argv[1]:
    time.sleep(0.01)
    agreed = Reason(comm.allreduce(interruptions.look()[0], MPI.MAX))
    if agreed is not known:
        known = agreed
        Path(f"{known.name}-{comm.rank}").touch()
"""


class Job:
    """Ranks that go on until they agree on a reason."""

    def __init__(self, folder: Path, last_reason: str, ranks: int = 1, **environment: str) -> None:
        (folder / "rank.py").write_text(RANK)
        program = [sys.executable, "rank.py", last_reason]
        if ranks > 1:
            program = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--", *program]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        settings = {**outside, **QUIET, **environment}
        self.folder, self.ranks = folder, ranks
        self.process = subprocess.Popen(program, cwd=folder, env=settings, stderr=subprocess.PIPE, text=True)
        until(lambda: self.process.poll() is not None or all(map(self.pid, range(ranks))))

    def pid(self, rank: int) -> int:
        file = self.folder / f"pid-{rank}"
        return int(file.read_text()) if file.exists() else 0

    def knows(self, reason: str) -> bool:
        return all((self.folder / f"{reason}-{rank}").exists() for rank in range(self.ranks))

    def send(self, number: int, known_as: str) -> None:
        """To one process; then wait until the ranks know."""
        self.process.send_signal(number)
        until(lambda: self.knows(known_as))

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_is_a_reason_to_stop(tmp_path, name):
    job = Job(tmp_path, name)
    job.send(getattr(signal, name), known_as=name)
    assert job.end() == (0, "")


@pytest.mark.parametrize(
    ("first", "then", "code"),
    [("SIGINT", "SIGINT", 130), ("SIGUSR1", "SIGTERM", 143), ("SIGUSR1", "SIGINT", 130)],
)
def test_who_insists_ends_the_process_at_once(tmp_path, first, then, code):
    job = Job(tmp_path, "SPOT")
    job.send(getattr(signal, first), known_as=first)
    job.process.send_signal(getattr(signal, then))
    assert job.end()[0] == code


def test_ctrl_c_twice_ends_the_process_also_after_another_signal(tmp_path):
    job = Job(tmp_path, "SPOT")
    job.send(signal.SIGTERM, known_as="SIGTERM")
    until(lambda: job.process.poll() is not None or job.process.send_signal(signal.SIGINT))
    assert job.end()[0] == 130


def test_in_a_slurm_job_its_time_limit_after_its_warning_leaves_time_to_stop(tmp_path):
    end = str(int(time.time()) + 3600)
    job = Job(tmp_path, "SIGTERM", SLURM_JOB_ID="7", SLURM_JOB_END_TIME=end)
    job.send(signal.SIGUSR1, known_as="SIGUSR1")
    job.send(signal.SIGTERM, known_as="SIGTERM")
    assert job.end() == (0, "")


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_that_two_launchers_pass_on_is_one(tmp_path, name):
    job = Job(tmp_path, "SPOT")
    job.send(getattr(signal, name), known_as=name)
    job.process.send_signal(getattr(signal, name))
    time.sleep(0.3)
    assert job.process.poll() is None
    job.process.kill()
    job.end()


def test_a_signal_to_one_rank_stops_all(tmp_path):
    job = Job(tmp_path, "SIGTERM", ranks=3)
    os.kill(job.pid(1), signal.SIGTERM)
    code, errors = job.end()
    assert code == 0, errors
    assert job.knows("SIGTERM")


def test_ctrl_c_at_the_launcher_reaches_all_ranks(tmp_path):
    job = Job(tmp_path, "SIGUSR1", ranks=3)
    job.process.send_signal(signal.SIGINT)
    code, errors = job.end()
    assert code == 0, errors
    assert job.knows("SIGUSR1")


# ---- on the ranks of a run


@pytest.fixture
def folder(comm, tmp_path):
    """One empty folder for all ranks."""
    return comm.bcast(tmp_path)


@pytest.fixture
def interrupted_by(comm, folder, request):
    """Makes `Interruptions`, and gives the signals back, that of the report of a hanging rank included."""
    made = []

    def make(environment=QUIET, node_comm=None, **options):
        made.append(Interruptions(folder, comm, node_comm or comm, environment=environment, **options))
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()
    faulthandler.unregister(signal.SIGUSR1)
    reports = [each for each in request.config.pluginmanager.get_plugins() if type(each).__name__ == "RankReport"]
    for report in reports:
        faulthandler.register(signal.SIGUSR1, file=report.stderr, chain=True)


@pytest.mark.mpi
def test_nothing_asks_a_run_to_stop_by_itself(comm, interrupted_by):
    interruptions = interrupted_by()
    assert interruptions.look() == (Reason.NONE, math.inf)
    assert interruptions.time_left() == math.inf


@pytest.mark.mpi
def test_the_signals_are_given_back(comm, interrupted_by):
    former = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    interruptions = interrupted_by()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != former
    interruptions.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == former


@pytest.mark.mpi
def test_a_stop_file_stops_the_run_and_is_gone_when_it_was_obeyed(comm, folder, interrupted_by, monkeypatch):
    monkeypatch.setattr(stop_file, "PAUSE", 0.05)
    interruptions = interrupted_by()
    assert interruptions.look()[0] is Reason.NONE
    comm.Barrier()
    if comm.rank == comm.size - 1:
        (folder / "STOP").touch()
    comm.Barrier()
    time.sleep(0.1)
    reason, left = interruptions.look()
    assert Reason(comm.allreduce(reason)) is Reason.STOP_FILE  # of rank 0 alone
    assert left == math.inf
    interruptions.obeyed()
    assert not (folder / "STOP").exists()
    interruptions.obeyed()  # nothing to remove


@pytest.mark.mpi
@pytest.mark.filterwarnings("error")
def test_a_stop_file_for_a_former_run_is_removed_with_a_word(comm, folder, interrupted_by):
    if comm.rank == 0:
        (folder / "STOP").touch()
        with pytest.warns(RuntimeWarning, match="removed .*STOP, which was there before the run began"):
            interruptions = interrupted_by()
    else:
        interruptions = interrupted_by()
    assert interruptions.look()[0] is Reason.NONE
    assert not (folder / "STOP").exists()


@pytest.mark.mpi
def test_a_stop_file_that_cannot_be_removed_is_an_error_of_all_ranks(comm, folder, interrupted_by):
    interruptions = interrupted_by()
    if comm.rank == 0:
        (folder / "STOP").mkdir()
    with pytest.raises(HpcframeError, match="STOP"):
        interruptions.obeyed()


@pytest.mark.mpi
def test_a_time_limit_is_a_reason_to_stop_a_margin_before_it(comm, interrupted_by):
    interruptions = interrupted_by(time_limit=age_of_process() + 1000.0)
    assert interruptions.margin == 60
    assert interruptions.look()[0] is Reason.NONE
    left = interruptions.time_left()
    assert 900 < left <= 1000 if comm.rank == 0 else left == math.inf


@pytest.mark.mpi
def test_a_short_job_is_used_to_its_half(comm, interrupted_by):
    interruptions = interrupted_by(time_limit=age_of_process() + 2.0)
    assert interruptions.margin == 60
    assert interruptions.look()[0] is Reason.NONE
    if comm.rank == 0:
        until(lambda: interruptions.look()[0] is Reason.TIME_LIMIT)
        assert interruptions.time_left() <= 1.0


@pytest.mark.mpi
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_notice_to_any_node_is_seen_by_the_first_rank_of_it(comm, interrupted_by, nodes):
    node_comm = comm.Split(comm.rank % nodes)
    with Imds() as imds:
        imds.answers["spot/instance-action"] = spot_notice(100)
        host = comm.bcast(imds.host, comm.size - 1)
        environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{host}"}
        interruptions = interrupted_by(environment, node_comm)
        if node_comm.rank == 0:
            until(lambda: interruptions.look()[0] is Reason.SPOT)
            assert 0 < interruptions.look()[1] <= 100
        else:
            assert interruptions.look() == (Reason.NONE, math.inf)
        comm.Barrier()
        if comm.rank == comm.size - 1:
            assert imds.tokens == min(nodes, comm.size)
    node_comm.Free()


@pytest.mark.mpi
def test_an_endpoint_that_is_none_is_refused_on_all_ranks(comm, interrupted_by):
    with pytest.raises(InputError, match="AWS_EC2_METADATA_SERVICE_ENDPOINT is 'nowhere'"):
        interrupted_by({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "nowhere"})


# ---- the end of the job


def test_a_limit_counts_from_the_start_of_the_process(tmp_path):
    module = "hpcframe.simulation.interruption.time_limit"
    code = f"import {module} as module; print(module.age_of_process(), module.TimeLimit(9, {{}}).time_left())"
    begin = time.monotonic()
    command = ["sh", "-c", 'sleep 1; exec "$0" -c "$1"', sys.executable, code]  # the same process goes on
    age, left = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 1 <= age <= time.monotonic() - begin + 0.02
    assert 0 < left <= 9 - age


def test_a_limit_that_is_over_leaves_no_time():
    assert TimeLimit(1e-9, {}).look() == (Reason.TIME_LIMIT, 0.0)


def seconds_from_now(seconds: float) -> str:
    return str(round(time.time() + seconds))


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Puts a squeue on PATH; returns the environment of a job that is not told its end."""

    def put(script: str) -> dict[str, str]:
        program = tmp_path / "squeue"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return {"SLURM_JOB_ID": "4711"}

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return put


def test_slurm_tells_a_job_its_end(squeue):
    environment = {**squeue("exit 1"), "SLURM_JOB_END_TIME": seconds_from_now(500)}
    assert 490 < slurm.seconds_to_end(environment) <= 501


def test_outside_slurm_no_end_is_known(squeue):
    squeue("echo 2000-01-01T00:00:00")
    assert slurm.seconds_to_end({"SLURM_JOB_END_TIME": seconds_from_now(500)}) == math.inf


def test_the_earlier_of_the_limit_and_the_end_that_slurm_sets_counts(squeue):
    environment = {**squeue("exit 1"), "SLURM_JOB_END_TIME": seconds_from_now(500)}
    assert 490 < TimeLimit(1e6, environment).time_left() <= 501
    assert TimeLimit(age_of_process() + 300, environment).time_left() <= 300


@pytest.mark.parametrize("told", [{}, {"SLURM_JOB_END_TIME": "soon"}, {"SLURM_JOB_END_TIME": "1000000000"}])
def test_squeue_is_asked_where_no_end_to_come_is_told(squeue, told):
    end = datetime.now() + timedelta(seconds=500)
    wanted = '[ "$*" = "--noheader --jobs 4711 --format %e" ] && [ "$SLURM_TIME_FORMAT" = standard ]'
    environment = squeue(f"{wanted} && echo {end:%Y-%m-%dT%H:%M:%S}")
    assert 480 < slurm.seconds_to_end({**environment, **told, "SLURM_TIME_FORMAT": "relative"}) <= 501


def test_squeue_tells_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert slurm.parse("2026-01-01T05:45:00\n") == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_squeue_is_asked_about_this_task_of_an_array(squeue):
    environment = squeue('[ "$3" = 4700_3 ] && echo 2099-01-01T00:00:00')
    array = {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}
    assert math.isfinite(slurm.seconds_to_end({**environment, **array}))


def test_the_part_of_a_heterogeneous_job_that_ends_first_counts():
    answer = "2099-01-01T02:00:00\n2099-01-01T01:00:00\nNONE\n"
    assert slurm.parse(answer) == datetime(2099, 1, 1, 1).timestamp()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", ["NONE", "UNLIMITED", "N/A", "Unknown", ""])
def test_a_job_without_a_limit_has_no_end(squeue, answer):
    assert slurm.seconds_to_end(squeue(f"echo {answer}")) == math.inf


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo Invalid job id specified >&2; exit 1", "Invalid job id"),
        ("exit 3", "code 3"),
        ("exec sleep 60", "timed out"),
    ],
)
def test_a_squeue_that_fails_is_told_and_sets_no_end(squeue, monkeypatch, script, why):
    monkeypatch.setattr(slurm, "ANSWER_WITHIN", 0.5)
    with pytest.warns(RuntimeWarning, match=f"Slurm does not say when this job ends .*{why}.*give a time limit"):
        assert slurm.seconds_to_end(squeue(script)) == math.inf


def test_a_node_without_squeue_is_told_and_sets_no_end(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="No such file"):
        assert slurm.seconds_to_end({"SLURM_JOB_ID": "4711"}) == math.inf


# ---- EC2's notices


@pytest.fixture
def imds():
    with Imds() as service:
        yield service


@pytest.fixture
def poll(imds, monkeypatch):
    """Starts to poll, and ends it before the service ends."""
    monkeypatch.setattr(metadata, "WITHIN", 0.5)
    started = []

    def start(host=imds.host):
        started.append(SpotNotices(host, pause=0.02))
        return started[-1]

    yield start
    for notices in started:
        notices.close()
        notices.thread.join(PATIENCE)
        assert not notices.thread.is_alive()


def test_a_spot_notice_tells_the_time_left(imds, poll):
    notices = poll()
    imds.polled_twice()
    assert notices.look() == (Reason.NONE, math.inf)
    imds.answers["spot/instance-action"] = spot_notice(120)
    until(lambda: notices.look()[0] is Reason.SPOT)
    assert 60 < notices.look()[1] <= 120
    assert imds.tokens == 1
    assert imds.refused == 0


def test_a_notice_whose_time_has_come_leaves_no_time(imds, poll):
    imds.answers["spot/instance-action"] = spot_notice(-5)
    notices = poll()
    until(lambda: notices.look()[0] is Reason.SPOT)
    assert notices.look()[1] == 0


def test_a_notice_without_a_time_is_one(imds, poll):
    imds.answers["spot/instance-action"] = '{"action": "hibernate"}'
    notices = poll()
    until(lambda: notices.look()[0] is Reason.SPOT)
    assert notices.look()[1] == math.inf


def test_a_rebalance_recommendation_is_a_reason_until_a_spot_notice_follows(imds, poll):
    notices = poll()
    imds.answers["events/recommendations/rebalance"] = json.dumps({"noticeTime": moment(2)})
    until(lambda: notices.look()[0] is Reason.REBALANCE)
    assert notices.look()[1] == math.inf
    imds.answers["spot/instance-action"] = spot_notice(120)
    until(lambda: notices.look()[0] is Reason.SPOT)


def test_a_recommendation_from_before_the_start_does_not_end_every_new_run(imds, poll):
    imds.answers["events/recommendations/rebalance"] = json.dumps({"noticeTime": moment(-100)})
    notices = poll()
    imds.polled_twice()
    assert notices.look() == (Reason.NONE, math.inf)


@pytest.mark.parametrize("body", ["", "<html>log in</html>", "[]", "{}", "\u00ff"])
def test_what_is_not_a_notice_is_none(imds, poll, body):
    imds.answers["spot/instance-action"] = imds.answers["events/recommendations/rebalance"] = body
    notices = poll()
    imds.polled_twice()
    assert notices.look() == (Reason.NONE, math.inf)
    assert notices.thread.is_alive()


def test_a_token_that_the_service_forgot_is_renewed(imds, poll):
    notices = poll()
    imds.polled_twice()
    imds.forget_tokens()
    imds.answers["spot/instance-action"] = spot_notice(120)
    until(lambda: notices.look()[0] is Reason.SPOT)
    assert imds.refused == 1
    assert imds.tokens == 2


def test_a_token_is_renewed_before_it_expires(imds, poll, monkeypatch):
    monkeypatch.setattr(metadata, "LONGEST_TOKEN", 4)
    poll()
    until(lambda: imds.tokens == 2)
    imds.polled_twice()
    assert imds.refused == 0


@pytest.mark.filterwarnings("error")
def test_a_service_that_fails_and_hangs_for_a_while_is_asked_again(imds, poll):
    notices = poll()
    imds.polled_twice()
    for trouble in (500, None, 403):
        imds.answers["spot/instance-action"] = trouble
        imds.polled_twice()
        assert notices.look() == (Reason.NONE, math.inf)
    imds.answers["spot/instance-action"] = spot_notice(120)
    until(lambda: notices.look()[0] is Reason.SPOT)


def test_polling_ends_where_nobody_answers(imds, poll):
    imds.server.server_close()  # nothing listens at its port
    with pytest.warns(RuntimeWarning, match=r"EC2 Spot notices will not be seen: .*127\.0\.0\.1.* refused"):
        notices = poll()
        notices.thread.join(PATIENCE)
    assert notices.look() == (Reason.NONE, math.inf)


def test_polling_ends_where_the_service_only_hangs(imds, poll):
    imds.answers["spot/instance-action"] = None
    with pytest.warns(RuntimeWarning, match="EC2 Spot notices will not be seen: .*timed out"):
        notices = poll()
        assert notices.look() == (Reason.NONE, math.inf)  # at once: the start of a run waits for nobody
        notices.thread.join(PATIENCE)


def test_a_proxy_is_never_asked(imds, poll, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    imds.answers["spot/instance-action"] = spot_notice(120)
    notices = poll()
    until(lambda: notices.look()[0] is Reason.SPOT)
    assert notices.look()[1] < math.inf  # the time of the notice came, too


@pytest.mark.parametrize(
    ("environment", "vendor", "host"),
    [
        ({}, None, None),
        ({}, "LENOVO", None),
        ({}, "Amazon EC2", "169.254.169.254"),
        ({"AWS_EC2_METADATA_DISABLED": "True"}, "Amazon EC2", None),
        ({"AWS_EC2_METADATA_DISABLED": "false"}, "Amazon EC2", "169.254.169.254"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1338/"}, None, "127.0.0.1:1338"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[fd00:ec2::254]"}, None, "[fd00:ec2::254]"),
    ],
)
def test_only_ec2_and_an_endpoint_that_was_given_are_polled(tmp_path, environment, vendor, host):
    if vendor:
        (tmp_path / "sys_vendor").write_text(f"{vendor}\n")
    assert metadata_host(environment, firmware=tmp_path) == host


@pytest.mark.parametrize(
    "endpoint", ["169.254.169.254", "https://169.254.169.254", "http://", "http://here:port", "http://["]
)
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(InputError, match="expected a URL such as http://169"):
        metadata_host({"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint})


def test_every_reason_has_words():
    words = {reason.describe() for reason in Reason}
    assert len(words) == len(Reason)
    assert {"Ctrl-C", "SIGTERM", "the time limit of the job", "an EC2 Spot interruption notice"} < words
