"""`hpcframe doctor` on machines that are broken for real: the wrong mpiexec, none, one that hangs, unusable folders."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import bare_environment
import pytest

from hpcframe.launch import local
from hpcframe.launch.checks import libraries, machine, mounts, mpi, slurm

EXAMINE = "import sys; from hpcframe.launch.doctor import examine; sys.exit(examine(float(sys.argv[1])))"

# Starts the program as often as it is told to, and tells none of them about the others, as the mpiexec of another MPI.
STARTS_SINGLETONS = """
if [ "$1" = --version ]; then echo "mpiexec (OpenRTE) 1.2.3"; exit; fi
while [ "${1#*/}" = "$1" ]; do
    if [ "$1" = -n ]; then ranks=$2; fi
    shift
done
while [ "$ranks" -gt 0 ]; do "$@"; ranks=$((ranks - 1)); done
"""

# Says in a file which process it is, and then does nothing for a long time.
HANGS = """
if [ "$1" = --version ]; then echo "mpiexec (OpenRTE) 1.2.3"; exit; fi
echo $$ >"$STARTED"
exec /bin/sleep 600
"""

SRUN = """
case $* in *--mpi=list*) printf 'MPI plugin types are...\\n\\tnone\\n\\t%s\\n' "$OFFERED" >&2; exit;; esac
while [ "${1#-}" != "$1" ]; do shift; done
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return bare_environment.make(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def path(tmp_path):
    """A folder that is all of PATH."""
    folder = tmp_path / "commands"
    folder.mkdir()
    return folder


def report(output: str) -> dict[str, tuple[str, str, str]]:
    """Status, findings and remedy by title, from what doctor prints."""
    found: dict[str, tuple[str, str, str]] = {}
    for line in output.split("\n\n")[0].splitlines():
        if line.startswith("      "):
            title, (status, finding, _) = list(found.items())[-1]
            found[title] = (status, finding, line.strip())
        else:
            status, title, finding = re.split(" {2,}", line, maxsplit=2)
            found[title] = (status, finding, "")
    return found


def look(title: str, python: Path | str = sys.executable, **options) -> tuple[str, str, str]:
    """What one check finds."""
    command = [str(python), "-m", "hpcframe.launch.checks", title]
    finding = json.loads(subprocess.check_output(command, text=True, timeout=60, **options).splitlines()[-1])
    return finding["status"], finding["found"], finding["remedy"]


def test_where_the_tests_run_all_is_well(tmp_path):
    done = subprocess.run([sys.executable, "-c", EXAMINE, "60"], capture_output=True, text=True, cwd=tmp_path)
    found = report(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {status for status, _, _ in found.values()} <= {"PASS", "SKIP"}
    assert "2 ranks on 1 node" in found["MPI and mpi4py agree"][1]
    assert str(tmp_path) in found["current folder"][1]
    passed = sum(status == "PASS" for status, _, _ in found.values())
    assert done.stdout.endswith(f"\n{passed} passed, {len(found) - passed} skipped, 0 failed\n")
    assert "\x1b" not in done.stdout  # no colour in a pipe
    assert done.stderr == ""


def test_without_mpiexec_the_remedy_is_to_install_one(python, path):
    settings = bare_environment.environment(path)
    done = subprocess.run([python, "-c", EXAMINE, "60"], capture_output=True, text=True, env=settings)
    found = report(done.stdout)
    assert done.returncode == 1
    assert found["mpiexec"][0] == "FAIL"
    assert "pip install" in found["mpiexec"][2]
    assert found["MPI and mpi4py agree"][:2] == ("SKIP", "needs mpiexec, see above")
    assert found["numba"][0] == "PASS"  # the other checks still ran
    assert ", 1 failed" in done.stdout


def test_an_mpiexec_of_another_mpi_is_named_with_the_library_it_does_not_fit(python, path, loaded):
    wrong = bare_environment.command(path, "mpiexec", STARTS_SINGLETONS)
    status, found, remedy = look("MPI and mpi4py agree", python, env=bare_environment.environment(path))
    assert status == "FAIL"
    assert "2 started that are each alone" in found
    assert f"mpi4py runs on {loaded}, the launcher is Open MPI 1.2.3 ({wrong})" in found
    assert "use the mpiexec of the MPI that mpi4py loads" in remedy


def test_an_mpiexec_that_fails_is_quoted(python, path):
    bare_environment.command(path, "mpiexec", "echo 'no daemon answers' >&2; exit 1")
    status, found, _ = look("mpiexec", python, env=bare_environment.environment(path))
    assert status == "FAIL"
    assert "no daemon answers" in found


def test_a_launch_that_hangs_is_ended_and_reported(python, path, tmp_path):
    bare_environment.command(path, "mpiexec", HANGS)
    settings = bare_environment.environment(path, STARTED=str(tmp_path / "started"))
    done = subprocess.run([python, "-c", EXAMINE, "5"], capture_output=True, text=True, env=settings, timeout=100)
    status, found, remedy = report(done.stdout)["MPI and mpi4py agree"]
    assert done.returncode == 1
    assert (status, found) == ("FAIL", "no answer within 5 s")
    assert "hpcframe.launch.local -n 2 --" in remedy
    assert is_gone(int((tmp_path / "started").read_text()))


def test_a_user_who_interrupts_a_check_leaves_nothing_behind(python, path, tmp_path):
    bare_environment.command(path, "mpiexec", HANGS)
    started = tmp_path / "started"
    settings = bare_environment.environment(path, STARTED=str(started))
    doctor = subprocess.Popen(
        [python, "-c", EXAMINE, "100"], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    doctor.send_signal(signal.SIGINT)
    doctor.communicate(timeout=30)
    assert is_gone(int(started.read_text()))


def is_gone(process: int) -> bool:
    """Whether a process has ended, or does within seconds; a zombie has."""
    state = Path(f"/proc/{process}/stat")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_without_a_library_of_mpi_mpi4py_does_not_load(tmp_path):
    status, found, remedy = look("mpi4py", env={**os.environ, "MPI4PY_LIBMPI": str(tmp_path / "libmpi.so")})
    assert status == "FAIL"
    assert "does not load" in found
    assert "hpcframe[mpi]" in remedy


def test_a_check_that_crashes_is_a_line_of_the_report(tmp_path):
    (tmp_path / "h5py.py").write_text("import os; os.abort()")
    settings = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", EXAMINE, "60"], capture_output=True, text=True, env=settings)
    status, found, remedy = report(done.stdout)["h5py"]
    assert status == "FAIL"
    assert "exit code -6" in found
    assert "hpcframe.launch.checks h5py" in remedy


def test_numba_that_does_not_compile_fails():
    status, found, remedy = look("numba", env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert (status, remedy) == ("FAIL", "unset NUMBA_DISABLE_JIT")
    assert "NUMBA_DISABLE_JIT is set" in found


def test_a_cache_that_others_can_write_to_fails(tmp_path):
    shared = tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o770)
    settings = {**os.environ, "HPCFRAME_CACHE_DIR": str(shared)}
    status, found, remedy = look("cache of compiled code", env=settings)
    assert status == "FAIL"
    assert f"{shared} can be written by others" in found
    assert f"chmod 700 {shared}" in remedy
    shared.chmod(0o700)
    assert look("cache of compiled code", env=settings)[0] == "PASS"


def test_a_cache_that_cannot_be_made_fails(tmp_path):
    (tmp_path / "file").touch()
    status, found, remedy = look(
        "cache of compiled code", env={**os.environ, "HPCFRAME_CACHE_DIR": str(tmp_path / "file" / "cache")}
    )
    assert status == "FAIL"
    assert "Not a directory" in found
    assert "HPCFRAME_CACHE_DIR" in remedy


def test_a_temporary_folder_that_is_not_there_fails(tmp_path):
    status, found, remedy = look("temporary folder", env={**os.environ, "TMPDIR": str(tmp_path / "gone")})
    assert status == "FAIL"
    assert str(tmp_path / "gone") in found
    assert "TMPDIR" in remedy


def test_outside_slurm_its_check_is_skipped_with_the_reason():
    settings = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    status, found, _ = look("srun and mpi4py agree", env=settings)
    assert status == "SKIP"
    assert found in ("no Slurm here", "not in a Slurm job")


@pytest.fixture
def look_in_a_job(python, path):
    """What the check of srun finds in a Slurm job, by an srun that offers `protocol` and starts ranks by `launch`."""

    def run(protocol: str, launch: str) -> tuple[str, str, str]:
        bare_environment.command(path, "srun", SRUN + launch)
        job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "2", "OFFERED": protocol}
        settings = bare_environment.environment(path, MPIEXEC=mpi.find_mpiexec(), **job)
        return look("srun and mpi4py agree", python, env=local.environment(settings, oversubscribed=True))

    return run


@pytest.fixture(scope="module")
def loaded():
    """The MPI that mpi4py loads, such as "Open MPI 5.0.11"."""
    return look("mpi4py")[1].partition(" on ")[2].partition(" (")[0]


@pytest.mark.parametrize(
    ("launch", "status", "expected"),
    [
        ('exec "$MPIEXEC" -n 2 "$@"', "PASS", "2 ranks on 1 node"),
        ('"$@"; "$@"', "FAIL", "2 started that are each alone"),
        ("echo 'srun: error: no nodes' >&2; exit 1", "FAIL", "srun: error: no nodes"),
    ],
)
def test_in_a_slurm_job_srun_must_start_one_job(look_in_a_job, loaded, launch, status, expected):
    protocol = slurm.protocol_of(loaded)
    found = look_in_a_job(protocol, launch)
    assert found[0] == status
    assert expected in found[1]
    assert f"srun --mpi={protocol}" in found[2] or status == "FAIL"


def test_a_slurm_without_the_protocol_of_the_library_fails(look_in_a_job, loaded):
    status, found, _ = look_in_a_job("cray_shasta", "")
    assert status == "FAIL"
    assert f"{loaded} needs srun --mpi={slurm.protocol_of(loaded)}" in found
    assert "cray_shasta, none" in found


@pytest.mark.parametrize(
    "listing",
    [
        "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\nspecific pmix plugin versions available: pmix_v4\n",
        "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: pmix\n",
    ],
)
def test_protocols_are_read_from_new_and_old_slurm(listing):
    assert slurm.offered(listing) == {"none", "pmi2", "pmix"}


def test_mpi_on_a_rank_is_not_started_again():
    status, _, remedy = look("MPI and mpi4py agree", env={**os.environ, "PMI_RANK": "0"})
    assert status == "SKIP"
    assert "without mpiexec" in remedy


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Open MPI v5.0.11, package: Open MPI user@localhost, ident: 5.0.11", "Open MPI 5.0.11"),
        ("mpiexec (OpenRTE) 4.1.4", "Open MPI 4.1.4"),
        ("MPICH Version:      5.0.2\nMPICH Release date: Tue Jul 7", "MPICH 5.0.2"),
        ("HYDRA build details:\n    Version:                                 5.0.2", "MPICH 5.0.2"),
        ("Intel(R) MPI Library 2021.18 for Linux* OS\n", "Intel MPI 2021.18"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 20260626", "Intel MPI 2021.18.1"),
        ("", "an MPI that does not name itself"),
    ],
)
def test_an_mpi_is_named_alike_by_its_library_and_its_mpiexec(said, expected):
    assert mpi.release(said) == expected


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "FAIL"), ((3, 11), "PASS"), ((3, 13), "PASS"), ((3, 14), "FAIL")]
)
def test_python_must_be_one_that_numba_takes(version, status):
    finding = libraries.fits(version, [(3, 10), (3, 11), (3, 12), (3, 13)])
    assert finding.status == status
    assert "3.11 to 3.13" in finding.found
    assert ("python3.13 -m venv" in finding.remedy) == (status == "FAIL")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/fsx/me/cache", "lustre"),
        ("/fsx2/me", "ext4"),  # beside the mount, not in it
        ("/home/me", "nfs4"),
        ("/scratch dir/x", "xfs"),
        ("/tmp/x", "tmpfs"),  # mounted over another
    ],
)
def test_what_holds_a_folder_is_its_deepest_and_latest_mount(path, expected):
    table = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
server@tcp:/fsx /fsx lustre rw 0 0
/dev/vdb /tmp ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdc /scratch\\040dir xfs rw 0 0
"""
    assert mounts.type_in(table, Path(path)) == expected
    assert mounts.is_network(expected) == (expected in ("lustre", "nfs4"))


def test_the_tightest_limit_on_memory_and_time_counts(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/slurm/job/step\n")
    (tmp_path / "root/slurm/job/step").mkdir(parents=True)
    (tmp_path / "root/slurm/job/step/memory.max").write_text("max\n")
    (tmp_path / "root/slurm/job/memory.max").write_text("2000000000\n")
    (tmp_path / "root/slurm/memory.max").write_text("8000000000\n")
    (tmp_path / "root/slurm/job/cpu.max").write_text("150000 100000\n")
    assert machine.limit("memory.max", tmp_path / "root", own) == 2e9
    assert machine.limit("cpu.max", tmp_path / "root", own) == 1.5
    assert machine.limit("cpu.max", tmp_path / "root", tmp_path / "absent") is None
