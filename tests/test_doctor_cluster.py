"""What `hpcframe doctor` says of a cluster's nodes, from files as Linux has them and programs that answer as there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import bare_environment
import pytest
from imds import Imds
from test_doctor import report
from test_fabric import write_counters

from hpcframe.launch import allocation
from hpcframe.launch.checks import CHECKS, binding, clock, efa, limits, lustre, mitigations, pages, placement, s3, smt
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.comparison import compare
from hpcframe.launch.node import line, read_line


def write(root: Path, path: str, text: str) -> Path:
    """A file below the folder that stands for /; that folder."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    return root


# ---- Elastic Fabric Adapters


def test_adapters_are_counted_and_what_they_sent_is_told(tmp_path):
    write_counters(tmp_path, "rdmap0s31", tx_bytes=12 * 10**9)
    write_counters(tmp_path, "rdmap1s31", tx_bytes=0)
    found = efa.adapters(tmp_path)
    assert (found.status, found.found, found.remedy) == ("PASS", "2 adapters", "")
    assert found.varies == "rdmap0s31, rdmap1s31, 12 GB sent since the machine started"


def test_adapters_that_never_sent_anything_are_noticed(tmp_path):
    assert "have sent nothing yet" in efa.adapters(write_counters(tmp_path, tx_bytes=0)).remedy


def test_an_ec2_instance_without_adapters_is_told_how_to_enable_them(tmp_path):
    assert efa.adapters(tmp_path) == Finding("SKIP", "there are none")
    write(tmp_path, "sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2\n")
    assert "enable it" in efa.adapters(tmp_path).remedy


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("echo 'provider: efa'", "PASS", "can use them"),
        ("echo 'fi_getinfo: -61 (No data available)' >&2; exit 61", "FAIL", "No data available"),
    ],
)
def test_libfabric_must_know_how_to_use_them(tmp_path, monkeypatch, script, status, said):
    monkeypatch.setenv("PATH", "/bin")
    assert efa.provider(tmp_path).status == "SKIP"
    (tmp_path / "opt/amazon/efa").mkdir(parents=True)
    bare_environment.command(tmp_path / "opt/amazon/efa/bin", "fi_info", script)
    found = efa.provider(tmp_path)
    assert found.status == status
    assert said in found.found


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max open files            {files:<20} 1048576              files
Max locked memory         {locked:<20} unlimited            bytes
"""


def test_with_adapters_locked_memory_must_be_unlimited(tmp_path):
    root = write(tmp_path, "proc/self/limits", LIMITS.format(files=65536, locked=8388608))
    assert limits.limits(root) == Finding("PASS", "locked memory 8 MiB, open files 65536")
    found = limits.limits(write_counters(root))
    assert found.status == "FAIL"
    assert "ulimit -l unlimited" in found.remedy
    write(root, "proc/self/limits", LIMITS.format(files=65536, locked="unlimited"))
    assert limits.limits(root) == Finding("PASS", "locked memory unlimited, open files 65536")


def test_too_few_open_files_are_noticed(tmp_path):
    root = write(tmp_path, "proc/self/limits", LIMITS.format(files=1024, locked="unlimited"))
    assert "ulimit -n 4096" in limits.limits(root).remedy


# ---- the placement group


@pytest.fixture
def imds():
    with Imds() as service:
        service.answers["instance-type"] = "hpc8a.96xlarge"
        service.answers["placement/availability-zone"] = "us-east-2b"
        yield service


def group(imds) -> Finding:
    return placement.group({"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{imds.host}"})


def test_the_placement_group_is_read_with_a_token(imds):
    imds.answers["placement/group-name"] = "hpcframe-mpi"
    assert group(imds) == Finding("PASS", "hpcframe-mpi (hpc8a.96xlarge in us-east-2b)")
    assert (imds.tokens, imds.refused) == (1, 0)


def test_without_a_placement_group_there_is_advice(imds):
    found = group(imds)
    assert found.found == "none (hpc8a.96xlarge in us-east-2b)"
    assert "PlacementGroup: {Enabled: true}" in found.remedy


def test_metadata_that_nobody_serves_is_a_skip(tmp_path, imds):
    assert placement.group({}, tmp_path).status == "SKIP"
    imds.server.server_close()  # nothing listens at its port
    found = group(imds)
    assert found.status == "SKIP"
    assert f"no metadata: http://{imds.host}" in found.found


# ---- the processor


@pytest.mark.parametrize(
    ("state", "found", "advised"),
    [
        ("on", "on", True),
        ("off", "off", False),
        ("forceoff", "off", False),
        ("notsupported", "none on this CPU", False),
    ],
)
def test_hardware_threads_that_share_cores_are_noticed(tmp_path, state, found, advised):
    answer = smt.control(write(tmp_path, smt.FILE, f"{state}\n"))
    assert (answer.status, answer.found) == ("PASS", found)
    assert ("DisableSimultaneousMultithreading" in answer.remedy) == advised


def test_mitigations_are_named_and_those_that_are_off_too(tmp_path):
    write(tmp_path, f"{mitigations.FOLDER}/meltdown", "Not affected\n")
    assert mitigations.mitigations(tmp_path).found == "this CPU needs none"
    write(tmp_path, f"{mitigations.FOLDER}/spectre_v2", "Mitigation: Retpolines; IBPB: conditional\n")
    write(tmp_path, f"{mitigations.FOLDER}/itlb_multihit", "KVM: Mitigation: VMX disabled\n")
    write(tmp_path, f"{mitigations.FOLDER}/mds", "Vulnerable: Clear CPU buffers attempted, no microcode\n")
    said = mitigations.mitigations(tmp_path).found
    assert said == "on: itlb_multihit, spectre_v2; off, though the CPU is vulnerable: mds"


def test_huge_pages_that_are_never_given_are_noticed(tmp_path):
    assert pages.huge(write(tmp_path, pages.FILE, "always [madvise] never\n")) == Finding("PASS", "madvise")
    found = pages.huge(write(tmp_path, pages.FILE, "always madvise [never]\n"))
    assert found.found == "never"
    assert "echo madvise" in found.remedy


@pytest.mark.parametrize("look", [smt.control, mitigations.mitigations, pages.huge, limits.limits])
def test_what_linux_does_not_tell_is_a_skip_with_the_reason(tmp_path, look):
    found = look(tmp_path)
    assert found.status == "SKIP"
    assert "unknown here" in found.found


# Two NUMA nodes of 4 cores with 2 hardware threads each, and one of memory alone, as a task tells of them.
NUMA = "".join(f"{binding.FOLDER}/node{node}/cpulist:{own}\n" for node, own in enumerate(("0-3,8-11", "4-7,12-15", "")))


@pytest.mark.parametrize(
    ("allowed", "threads", "advised"),
    [
        ({0, 8}, 1, False),
        ({4, 5, 6, 7}, 4, False),
        (set(range(16)), 1, True),  # not bound
        ({3, 4}, 2, True),  # bound across nodes
        (set(range(16)), 16, False),  # it needs both
    ],
)
def test_a_rank_that_may_wander_between_numa_nodes_is_noticed(tmp_path, allowed, threads, advised):
    found = binding.judge(allowed, binding.numa_nodes(NUMA), threads)
    assert found.status == "PASS"
    assert ("TaskPlugin" in found.remedy) == advised


@pytest.mark.parametrize(
    ("srun", "status", "said"),
    [
        ("echo 'Cpus_allowed_list: 4,12'", "PASS", "hardware threads 4,12, of 1 of 3 NUMA node(s)"),
        ("echo 'Cpus_allowed_list: 0-15'", "PASS", "of 2 of 3"),
        ("echo 'srun: error: no' >&2; exit 1", "FAIL", "srun starts no task: srun: error: no"),
    ],
)
def test_the_binding_is_that_of_a_task_which_srun_starts(tmp_path, monkeypatch, srun, status, said):
    assert "salloc" in binding.binding({}).remedy
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    bare_environment.command(tmp_path, "srun", f"echo $* >{tmp_path}/asked; {srun}\ncat <<END\n{NUMA}END")
    found = binding.binding({**os.environ, "SLURM_JOB_ID": "1", "SLURMD_NODENAME": "hpc-7"})
    assert found.status == status
    assert said in found.found
    asked = (tmp_path / "asked").read_text()
    assert "--cpu-bind=cores" in asked
    assert "--nodelist=hpc-7" in asked


# ---- files


@pytest.mark.parametrize(
    ("options", "status", "found", "advice"),
    [
        ("rw,flock,lazystatfs", "PASS", "/fsx: flock", ""),
        ("rw,localflock", "PASS", "/fsx: localflock", "do not see each other's locks"),
        ("rw,lazystatfs", "FAIL", "/fsx: no flock", "-o flock"),
    ],
)
def test_files_on_lustre_must_have_locks(tmp_path, options, status, found, advice):
    root = write(tmp_path, "proc/mounts", f"/dev/vda / ext4 rw 0 0\n10.0.0.1@tcp:/abc /fsx lustre {options} 0 0\n")
    answer = lustre.locks(root)
    assert (answer.status, answer.found) == (status, found)
    assert advice in answer.remedy


def test_without_lustre_its_checks_are_skipped(tmp_path):
    root = write(tmp_path, "proc/mounts", "/dev/vda / ext4 rw 0 0\n")
    assert lustre.locks(root) == Finding("SKIP", "no Lustre is mounted")
    assert lustre.striping(tmp_path, root) == Finding("SKIP", "the current folder is not on Lustre")


PROGRESSIVE = """  lcm_entry_count:   3
      stripe_count:  0       stripe_size:   65536       pattern:       mdt       stripe_offset: -1
      stripe_count:  1       stripe_size:   1048576       pattern:       raid0       stripe_offset: -1
      stripe_count:  -1       stripe_size:   1048576       pattern:       raid0       stripe_offset: -1"""


@pytest.mark.parametrize(
    ("said", "found", "advised"),
    [
        ("stripe_count:  1 stripe_size:   1048576 pattern: raid0 stripe_offset: -1", "over 1 storage", True),
        ("stripe_count:  -1 stripe_size:   1048576 pattern: raid0 stripe_offset: -1", "over all storage", False),
        (PROGRESSIVE, "over 1, then all storage", False),
    ],
)
def test_files_on_one_storage_target_are_noticed(tmp_path, monkeypatch, said, found, advised):
    root = write(tmp_path, "proc/mounts", f"10.0.0.1@tcp:/abc {tmp_path} lustre rw,flock 0 0\n")
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    assert "install lustre-client" in lustre.striping(tmp_path, root).remedy
    bare_environment.command(tmp_path / "commands", "lfs", f"echo '{said}'")
    answer = lustre.striping(tmp_path, root)
    assert found in answer.found
    assert ("lfs setstripe -c -1" in answer.remedy) == advised


def test_s3_is_skipped_where_no_bucket_is_named():
    assert s3.bucket({}) == Finding("SKIP", "HPCFRAME_BUCKET names no bucket")


# ---- the clock

TRACKING = """\
Reference ID    : A9FEA97B (169.254.169.123)
Stratum         : 4
System time     : 0.000004709 seconds fast of NTP time
Leap status     : {leap}
"""


@pytest.mark.parametrize(("leap", "status"), [("Normal", "PASS"), ("Not synchronised", "FAIL")])
def test_a_clock_is_as_chrony_says(tmp_path, monkeypatch, leap, status):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clock.clock().status == "SKIP"
    bare_environment.command(tmp_path, "chronyc", f"echo '{TRACKING.format(leap=leap)}'")
    found = clock.clock()
    assert found.status == status
    assert ("0.000004709 seconds fast" in found.varies) == (status == "PASS")


@pytest.mark.parametrize(("answer", "status"), [("yes", "PASS"), ("no", "FAIL")])
def test_where_chrony_does_not_run_systemd_is_asked(tmp_path, monkeypatch, answer, status):
    monkeypatch.setenv("PATH", str(tmp_path))
    bare_environment.command(tmp_path, "chronyc", "echo '506 Cannot talk to daemon'; exit 1")
    assert "506 Cannot talk to daemon" in clock.clock().found
    bare_environment.command(tmp_path, "timedatectl", f"echo NTPSynchronized={answer}")
    assert clock.clock().status == status


# ---- what the documentation says


def test_each_check_has_commands_to_see_it_by_hand():
    assert all(check.by_hand for check in CHECKS)


def test_the_page_lists_all_checks_in_their_order_and_which_are_about_a_node():
    page = (Path(__file__).parent.parent / "docs/reference/doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| (•?) ?\|.*\|.*\|$", page.partition("## Checks")[2], re.MULTILINE)
    assert [(title, bool(dot)) for title, dot in rows[1:]] == [(check.title, check.everywhere) for check in CHECKS]


# ---- all nodes of a job

ON, OFF = Finding("PASS", "on", "switch it off"), Finding("PASS", "off")


def test_nodes_that_agree_are_one_line():
    (compared,) = compare(["SMT"], {node: {"SMT": OFF} for node in ("a", "b", "c")})
    assert (compared.status, compared.in_words(), compared.remedy) == ("PASS", "all 3 nodes: off", "")


def test_nodes_that_differ_are_named_the_majority_first():
    names = [f"hpc-{number}" for number in range(1, 65)]
    answers = {name: {"SMT": ON if name in ("hpc-7", "hpc-9") else OFF} for name in names}
    (compared,) = compare(["SMT"], answers)
    assert (compared.status, compared.remedy) == ("DIFF", "switch it off")
    assert compared.in_words() == "62 nodes: off; hpc-7, hpc-9: on"


def test_a_node_that_fails_or_says_nothing_fails_the_check():
    answers = {
        "a": {"clock": Finding("PASS", "synchronised")},
        "b": {},
        "c": {"clock": Finding("FAIL", "not", "start")},
    }
    (compared,) = compare(["clock"], answers)
    assert (compared.status, compared.remedy) == ("FAIL", "start")
    assert compared.in_words() == "a: PASS synchronised; b: FAIL no answer; c: FAIL not"


def test_what_varies_between_nodes_that_are_alike_is_no_difference():
    answers = {name: {"disk": Finding("PASS", "/tmp, xfs", "", f"{name} GB free")} for name in ("1", "2")}
    sent = [read_line(line(name, "disk", answers[name]["disk"])) for name in answers]
    (compared,) = compare(["disk"], {node: {title: finding} for node, title, finding in sent})
    assert compared.in_words() == "all 2 nodes: /tmp, xfs"


def test_no_line_of_a_node_is_cut_in_two_by_slurm():
    long = Finding("FAIL", "a word " * 1000, "another " * 1000, "more " * 1000)
    assert len(line("a-node-with-quite-a-long-name", "CPU mitigations", long).encode()) < 1024


DOCTOR = [sys.executable, "-c", "from hpcframe.cli import main; main()", "doctor", "--nodes"]

# Starts the program for two nodes, of which the second has no temporary folder and fewer open files.
SRUN = """
while [ "${1#-}" != "$1" ]; do shift; done
SLURMD_NODENAME=hpc-1 "$@"
ulimit -n 300
SLURMD_NODENAME=hpc-2 TMPDIR=/nowhere "$@"
"""


@pytest.fixture
def in_a_job(tmp_path):
    """What `hpcframe doctor --nodes` comes to in a job on two nodes, by an srun of this script."""

    def run(srun: str) -> subprocess.CompletedProcess[str]:
        bare_environment.command(tmp_path / "commands", "srun", srun)
        bare_environment.command(tmp_path / "commands", "scontrol", "echo hpc-1; echo hpc-2")
        job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "hpc-[1-2]"}
        path = f"{tmp_path / 'commands'}:{os.environ['PATH']}"
        return subprocess.run(DOCTOR, capture_output=True, text=True, env={**os.environ, **job, "PATH": path})

    return run


def test_all_nodes_of_a_job_are_asked_and_compared(in_a_job):
    done = in_a_job(SRUN)
    found = report(done.stdout)
    assert done.returncode == 1, done.stderr
    status, said, remedy = found["temporary folder"]
    assert status == "FAIL"
    assert "hpc-2: FAIL TMPDIR is /nowhere, which cannot be written" in said
    assert "TMPDIR" in remedy
    assert found["limits"][0] == "DIFF"
    assert found["limits"][1].endswith("open files 300")
    assert found["Python"][0] == "PASS"
    assert found["Python"][1].startswith("all 2 nodes: 3.")
    assert "1 differ, 1 failed of " in done.stdout


def test_a_node_that_hangs_is_named_and_the_others_are_heard(tmp_path, monkeypatch, capsys):
    said = [line("hpc-1", title, Finding("PASS", "fine")) for title in allocation.TITLES]
    second = line("hpc-2", "Python", Finding("PASS", "fine"))
    (tmp_path / "said").write_text("\n".join([*said, second, second[:40]]))  # it hangs in the middle of a line
    bare_environment.command(tmp_path, "srun", f"cat {tmp_path}/said; exec sleep 60")
    bare_environment.command(tmp_path, "scontrol", "echo hpc-1; echo hpc-2")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(allocation, "START", 1.0)
    monkeypatch.setattr(allocation, "LIMIT", 0.0)
    assert allocation.examine_nodes({"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "hpc-[1-2]"}) == 1
    told = report(capsys.readouterr().out)
    assert told["Python"][1] == "all 2 nodes: fine"
    assert told["clock"][:2] == ("FAIL", "hpc-1: PASS fine; hpc-2: FAIL no answer")


def test_nodes_on_which_nothing_starts_are_an_error(in_a_job):
    done = in_a_job("echo 'srun: error: Unable to create step' >&2; exit 1")
    assert done.returncode == 1
    assert "srun: error: Unable to create step" in done.stderr


def test_outside_a_job_there_are_no_nodes_to_ask():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(DOCTOR, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "salloc -N 2 hpcframe doctor --nodes" in done.stderr
