"""What `hpcframe submit`, `status` and `cancel` make of a cluster's words, and what they refuse: without a Slurm."""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import bare_environment
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpcframe.errors import InputError
from hpcframe.launch import durations, jobs, partitions, reasons, submission
from hpcframe.launch.estimate import time_in_words
from hpcframe.launch.placement import binding, place, spread_over
from hpcframe.launch.progress import progress
from hpcframe.launch.sweep import overrides

HPCFRAME = str(Path(sysconfig.get_path("scripts"), "hpcframe"))
SCRIPTS = Path("/cluster/scripts")

# What sinfo prints on a ParallelCluster, which tells of processors only, and on another Slurm.
SINFO = """
mpi*|1-00:00:00|n/a|8|192|192|1|1|747110|mpi-dy-hpc8a-[1-8]|dynamic,hpc8a.96xlarge,hpc8a,efa
spot|infinite|1:00:00|16|96|96|1|1|183500|spot-dy-c7-[1-16]|dynamic,c7a.48xlarge,c7i.48xlarge,c7
old|2:00:00|n/a|2|64|2|16|2|128000+|fast-[1-2]|(null)
old|2:00:00|n/a|3|32|2|8|2|64000|slow-[1-3]|ib
"""


@pytest.fixture
def types():
    return partitions.parse(SINFO)


def request(**changes) -> submission.Request:
    return replace(submission.Request(Path("sim.toml"), "heat", 4, "mpi"), **changes)


def line(asked, placement, kind) -> list[str]:
    return submission.command(asked, placement, kind, "run in /runs", SCRIPTS)


def always(ranks: int) -> bool:
    return True


# -- durations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 5400),
        ("2:30", 150),
        ("2:30:00", 9000),
        ("1-12", 129600),
        ("1-2:03", 93780),
        ("1-2:03:04", 93784),
        ("2h30m", 9000),
        ("45min", 2700),
        ("1d", 86400),
        ("30s", 30),
    ],
)
def test_a_time_is_in_slurms_forms_or_in_peoples(text, expected):
    assert durations.seconds(text) == expected


@given(st.integers(1, 10**7))
def test_a_duration_survives_slurms_way_to_write_it(duration):
    assert durations.seconds(durations.as_slurm(duration)) == duration


@pytest.mark.parametrize("text", ["", "0", "h", "2x", "1-", "-5", "1:2:3:4", "2h 30m", "1.5h", "٣"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InputError, match="2h30m"):
        durations.seconds(text)


# -- nodes --------------------------------------------------------------------------------------------------------


def test_the_instance_type_and_its_memory_are_found(types):
    hpc8a, spot, *_ = types
    assert hpc8a.instance == "hpc8a.96xlarge"
    assert hpc8a.known_memory.dies == 24
    assert hpc8a.time_limit == 86400
    assert hpc8a.cores == 192
    assert spot.instance is None  # it is one of two, so nothing is known of it
    assert spot.default_time == 3600


def test_an_instance_type_in_the_name_of_the_nodes_is_found(types):
    assert replace(types[0], features=(), names="queue-st-hpc7a-96xlarge-[1-4]").instance == "hpc7a.96xlarge"


def test_cores_are_not_hardware_threads(types):
    fast = types[2]
    assert (fast.processors, fast.cores, fast.features) == (64, 32, ())


def test_the_default_partition_the_one_for_spot_and_a_constraint(types):
    assert partitions.choose(types, None, False, None)[0].partition == "mpi"
    assert partitions.choose(types, None, True, None)[0].partition == "spot"
    assert [kind.count for kind in partitions.choose(types, "old", False, None)] == [2, 3]
    assert [kind.count for kind in partitions.choose(types, "old", False, "ib")] == [3]


@pytest.mark.parametrize("constraint", ["c7a.48xlarge|c7i.48xlarge", "[dynamic*2&c7]", "c7"])
def test_a_constraint_may_name_several_features(types, constraint):
    assert partitions.choose(types, "spot", False, constraint) == types[1:2]


def test_cores_that_may_be_hardware_threads_are_known_as_such(types):
    assert [kind.knows_cores for kind in types] == [True, False, True, True]


@pytest.mark.parametrize(
    ("partition", "spot", "constraint", "said"),
    [
        ("mpo", False, None, "did you mean 'mpi'.*mpi, spot, old"),
        ("old", False, "eb", "expected one of: ib"),
        ("old", False, "ib|eb", "expected one of: ib"),
        ("mpi", False, "hpc8a.48xlarge", "did you mean 'hpc8a.96xlarge'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(types, partition, spot, constraint, said):
    with pytest.raises(InputError, match=said):
        partitions.choose(types, partition, spot, constraint)


def test_without_a_default_or_a_spot_partition_one_has_to_be_named(types):
    old = types[2:]
    for spot in (False, True):
        with pytest.raises(InputError, match="--partition, one of: old"):
            partitions.choose(old, None, spot, None)


# -- placement ----------------------------------------------------------------------------------------------------

machines = st.tuples(st.integers(1, 24), st.integers(1, 8))  # dies, cores a die


@given(machines, st.integers(1, 200), st.integers(1, 9))
def test_spread_ranks_have_cores_of_their_own_and_dies_share_them_evenly(machine, ranks, threads):
    dies, die = machine
    assume(ranks * threads <= dies * die)
    placed = spread_over([range(first, first + die) for first in range(0, dies * die, die)], ranks, threads)
    used = [core for cores in placed for core in cores]
    assert len(placed) == ranks
    assert all(len(cores) == threads for cores in placed)
    assert len(set(used)) == len(used)
    assert set(used) <= set(range(dies * die))
    assert used == sorted(used)  # ranks that follow each other are neighbours
    if ranks <= dies * (die // threads):
        assert all(cores[0] // die == cores[-1] // die for cores in placed)
        loads = [sum(cores[0] // die == number for cores in placed) for number in range(dies)]
        assert max(loads) - min(loads) <= 1


@given(st.lists(st.integers(0, 191), min_size=1, unique=True), st.integers(1, 3))
def test_core_lists_say_which_cores(starts, threads):
    kind, _, listed = binding([range(start, start + threads) for start in starts]).partition(":")
    bits = [1 << int(text) if kind == "map_cpu" else int(text, 16) for text in listed.split(",")]
    assert bits == [sum(1 << start + thread for thread in range(threads)) for start in starts]


def test_a_full_node_is_bound_to_cores_and_a_part_of_one_is_listed():
    full = place(192, 24, 4, always)
    assert (full.ranks, full.cores_a_rank, full.binding) == (192, 1, "cores")
    sparse = place(192, 24, 4, always, ranks=24)
    assert sparse.binding == "map_cpu:" + ",".join(map(str, range(0, 192, 8)))
    assert submission.environment(request(), sparse) == {"HPCFRAME_THREADS": "1", "HPCFRAME_CPU_BIND": sparse.binding}
    assert submission.environment(request(), full) == {"HPCFRAME_THREADS": "1"}


def test_where_dies_are_not_known_slurm_gives_a_rank_its_share_of_the_cores():
    placement = place(64, None, 2, always, ranks=10, threads=2)
    assert (placement.ranks, placement.threads, placement.cores_a_rank, placement.binding) == (10, 2, 6, "cores")
    assert submission.environment(request(), placement) == {"HPCFRAME_THREADS": "2"}


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 500))
def test_there_are_never_more_ranks_than_the_grid_takes(cores, count, most):
    assume(count <= most)
    placement = place(cores, None, count, lambda ranks: ranks <= most)
    assert placement.ranks == min(cores, most // count)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ranks": 17}, "need 17 cores.*--ranks-per-node 16 or fewer"),
        ({"ranks": 9, "threads": 2}, "need 18 cores.*--ranks-per-node 8 or fewer"),
        ({"threads": 17}, "a node has 16 cores"),
        ({"ranks": 16}, "64 ranks cannot share the grid, 40 can; give --ranks-per-node 10"),
        ({"fits": lambda ranks: False}, "too few cells.*fewer --nodes"),
    ],
)
def test_ranks_that_do_not_fit_are_refused_with_what_does(options, said):
    with pytest.raises(InputError, match=said):
        place(**{"cores": 16, "dies": None, "nodes": 4, "fits": lambda ranks: ranks <= 40, **options})


# -- the line -----------------------------------------------------------------------------------------------------


def test_the_line_of_a_run(types):
    words = line(request(time=9000, overrides=("time.steps=5",), options=("--account=a",)),
                 place(192, 24, 4, always), types[0])  # fmt: skip
    assert words == [
        "sbatch", "--parsable", "--exclusive", "--export=ALL", "--job-name=hpcframe-heat", "--partition=mpi",
        "--nodes=4",
        "--ntasks-per-node=192", "--cpus-per-task=1", "--time=02:30:00", "--output=hpcframe-%j.out",
        "--comment=run in /runs", "--account=a", "/cluster/scripts/run.sbatch", "sim.toml", "--set", "time.steps=5",
    ]  # fmt: skip


def test_the_lines_of_a_sweep_a_chain_and_spot(types):
    full = place(96, None, 4, always)
    sweep = line(request(sweep=submission.parse_sweep("parameters.diffusivity=1e-4,2e-4,3e-4")), full, types[0])
    assert "--array=0-2" in sweep
    assert sweep[-3:] == [f"{SCRIPTS}/sweep.sbatch", "sim.toml", "parameters.diffusivity=1e-4,2e-4,3e-4"]
    assert line(request(chain=3), full, types[0])[-3:] == [f"{SCRIPTS}/chain.sbatch", "3", "sim.toml"]
    chain = request(chain=3, options=("--qos=long", "--nice"))
    assert submission.environment(chain, full)["HPCFRAME_SBATCH"] == "--qos=long\n--nice"
    assert line(request(spot=True), full, types[1])[-2:] == [f"{SCRIPTS}/spot.sbatch", "sim.toml"]


def test_ranks_do_not_share_the_hardware_threads_of_a_core(types):
    assert "--threads-per-core=1" in line(request(), place(32, None, 1, always), types[2])


def test_core_lists_take_the_whole_node(types):
    words = line(request(), place(192, 24, 4, always, ranks=24), types[0])
    assert not any(word.startswith("--cpus-per-task") for word in words)  # it would confine the step to 24 cores


def test_what_is_printed_is_what_a_shell_reads(types):
    asked = request(overrides=('initial.u="exp(-x) $HOME"',))
    words = line(asked, place(192, 24, 4, always), types[0])
    from hpcframe.launch.slurm import as_typed

    assert shlex.split(as_typed(words, {"A": "1 2"})) == ["A=1 2", *words]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": 9}, "partition mpi has 8"),
        ({"time": 90000}, "--time 1-01:00:00: partition mpi allows 1-00:00:00.*--chain"),
        ({"spot": True}, "no hpc8a.96xlarge as Spot"),
        ({"sweep": submission.Sweep("a.b", ("1",)), "chain": 2}, "exclude each other"),
        ({"spot": True, "chain": 2}, "--spot is for one run"),
    ],
)
def test_what_the_nodes_cannot_do_is_refused(types, changes, said):
    submission.check(request(), types[:1])
    with pytest.raises(InputError, match=said):
        submission.check(request(**changes), types[:1])


def test_a_run_without_room_is_told_how_many_nodes_have_it(types):
    kind = types[0]
    submission.check_memory(kind.memory, kind, 4)
    with pytest.raises(InputError, match="--nodes 6 or more"):
        submission.check_memory(int(1.4 * kind.memory), kind, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps=1,2", "section.key=value"),
        ("time.steps", "section.key=value"),
        ("time.steps=1,,2", "plain values"),
        ("grid.shape=[8,8],[16,16]", "plain values"),
        ("time.steps=1,2,1", "1 is there twice"),
        ("simulation.directory=a,b", "folder of its own"),
        ("parameters.scheme='a/b',c", "plain values"),
        ("parameters.scheme='a',\"a\"", "a is there twice"),
    ],
)
def test_a_sweep_of_no_plain_and_different_values_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        submission.parse_sweep(text)


def test_a_sweep_over_texts_has_folders_without_quotes():
    table = {"simulation": {"directory": "runs/a b"}}
    value, folder = overrides(table, "parameters.scheme='upwind','central'", 1)
    assert value == "parameters.scheme='central'"
    assert folder == 'simulation.directory="runs/a b/parameters.scheme=central"'


def test_time_is_estimated_from_the_memory_where_that_is_known(types):
    told = time_in_words(10**6, 4 * 10**9, types[0], 4, 600)  # 4e15 bytes at 4e12 bytes/s
    assert told.startswith("at least 16 min 40 s: 1000000 steps at 4 x 1000 GB/s")
    assert "will not end in one job" in told
    assert time_in_words(10, 1, types[1], 4, None).startswith("not known: the memory of these nodes is not known")
    assert time_in_words(None, 1, types[0], 4, None).startswith("not known: the number of steps")


# -- jobs ---------------------------------------------------------------------------------------------------------

SQUEUE = """
12|RUNNING|4|2:00:00|mpi|n[1-4]||None|hpcframe-heat|run of 500 steps in /runs/a b|c
13_[0-2]|PENDING|4|1-00:00:00|mpi|||Resources|hpcframe-heat|(null)
14|PENDING|1|UNLIMITED|mpi||afterany:12(unfulfilled)|ReqNodeNotAvail, UnavailableNodes:n[2-3]|hpcframe|run in /runs/wave
15|COMPLETED|1|INVALID|mpi|n1||None|hpcframe-wave|by hand
16|TIMEOUT|1|0:00|mpi|n1|afterok:9(unfulfilled),afterany:14(unfulfilled)|TimeLimit|other|
"""


def test_jobs_are_read_with_the_folder_of_their_run():
    running, array, pending, ended, late = jobs.parse(SQUEUE)
    assert (running.left, running.folder, running.steps) == (7200, Path("/runs/a b|c"), 500)
    assert (array.is_pending, array.folder) == (True, None)
    assert (pending.left, pending.folder, pending.steps) == (None, Path("/runs/wave"), None)
    assert (ended.has_ended, ended.left, ended.folder) == (True, None, None)
    assert (late.has_ended, late.left) == (True, None)


def test_a_job_that_waits_is_told_with_the_reason_and_the_remedy():
    running, array, pending, *_ = jobs.parse(SQUEUE)
    assert jobs.describe(running) == "12  hpcframe-heat  RUNNING, 4 node(s) of mpi (n[1-4]), 2 h left"
    assert "it is next" in jobs.describe(array)
    assert "sinfo --list-reasons" in jobs.describe(pending)
    assert "UnavailableNodes:n[2-3]" in jobs.describe(pending)


def test_a_comment_leads_back_to_the_run():
    for steps in (None, 7):
        text = jobs.comment(Path("/runs/a"), steps)
        (job,) = jobs.parse(f"1|RUNNING|1|1:00|mpi|n1||None|hpcframe|{text}")
        assert (job.folder, job.steps) == (Path("/runs/a"), steps)


def test_what_follows_a_job_in_a_chain_is_found():
    known = jobs.parse(SQUEUE)
    assert jobs.followers("12", known) == ["14", "16"]
    assert jobs.followers("1", known) == []


def test_an_unknown_reason_is_passed_on():
    assert reasons.in_words("Whatever", "7") == "Whatever: see `scontrol show job 7`"


def test_progress_is_that_of_the_last_whole_row(tmp_path):
    assert "no rows" in progress(tmp_path)[1]
    rows = [f"{step},{0.5 * step!r},1.0" for step in range(20000)]
    (tmp_path / "diagnostics.csv").write_text("\n".join(["step,time,heat", *rows]) + "\n20000,10")
    assert progress(tmp_path, 40000)[1].startswith("step 19999 of 40000 (50 %), t = 9999.5 s; written ")
    (tmp_path / "diagnostics.csv").write_text("step,time,heat\n")
    assert progress(tmp_path)[1].startswith("no rows")


def test_progress_tells_how_a_run_ended_and_how_old_that_is(tmp_path):
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"status": "done", "steps": 7}))
    os.utime(summary, (time.time() - 7190, time.time() - 7190))
    assert progress(tmp_path)[1] == "summary.json: done at step 7; written 1 h 59 min ago"
    summary.write_text("{}")
    assert "not as hpcframe writes it" in progress(tmp_path)[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not look")
def test_a_run_in_a_folder_that_one_may_not_enter_is_told_in_words(tmp_path):
    """`squeue` here tells of a job in the folder of another user, root, whose temporary folders are for root only."""
    program = (
        "import os; from hpcframe.cli_slurm import status; import hpcframe.launch.progress, hpcframe.launch.jobs;"
        "import hpcframe.checkpoint.inspection; os.setuid(65534); status(['1'])"
    )
    with tempfile.TemporaryDirectory() as commands:
        Path(commands).chmod(0o755)
        bare_environment.command(Path(commands), "sbatch", "exit 1")
        told = f"1|RUNNING|1|1:00|mpi|n1||None|hpcframe-a|run in {tmp_path}"
        bare_environment.command(Path(commands), "squeue", f"echo '{told}'")
        settings = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path} cannot be read here: Permission denied" in done.stdout
    assert "no checkpoint" not in done.stdout


# -- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["submit", "heat.toml"], ["status"], ["cancel", "1"]])
def test_without_slurm_the_remedy_is_told(tmp_path, command):
    sample = subprocess.run([HPCFRAME, "new", "heat"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "heat.toml").write_text(sample)
    settings = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run([HPCFRAME, *command], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "no Slurm here" in done.stderr
    assert "hpcframe run" in done.stderr


def test_a_wrong_sim_toml_is_refused_before_slurm_is_asked(tmp_path):
    (tmp_path / "wrong.toml").write_text('[simulation]\nmodel = "heet"\n')
    done = subprocess.run([HPCFRAME, "submit", "wrong.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "did you mean 'heat'?" in done.stderr
