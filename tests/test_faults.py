"""The faults that other tests make by system calls: each does what it says, to the calls that it names and no other."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import faults
import pytest

pytestmark = pytest.mark.skipif(bool(faults.missing()), reason=faults.missing())

DATA = bytes(range(256)) * 16
PATIENCE = 60  # s
RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")

# What a checkpoint does, in plain calls: `step` writes a file, syncs and renames it.
PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
DATA = bytes(range(256)) * 16
os.makedirs("hurt", exist_ok=True)
os.makedirs("spared", exist_ok=True)

def step(folder):
    file = os.open(f"{{folder}}/a", os.O_CREAT | os.O_RDWR, 0o600)
    written = os.pwrite(file, DATA, 0)
    os.fsync(file)
    os.close(file)
    os.rename(f"{{folder}}/a", f"{{folder}}/b")
    return written
"""


def run(folder: Path, fault: str, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **faults.environment(fault), **environment}
    command = [sys.executable, "-c", PROGRAM + textwrap.dedent(program)]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=PATIENCE)


def test_without_a_fault_nothing_changes(tmp_path):
    done = run(tmp_path, "", "print(step('hurt'))")
    assert (done.returncode, done.stdout) == (0, f"{len(DATA)}\n"), done.stderr
    assert (tmp_path / "hurt/b").read_bytes() == DATA


def test_kill_ends_the_process_before_the_nth_call(tmp_path):
    program = "step('spared')\nfor _ in range(3): step('hurt'); print('step', flush=True)"
    done = run(tmp_path, "call=rename,path=hurt,nth=2,action=kill", program)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "step\n")
    assert (tmp_path / "hurt/a").exists()


def test_torn_leaves_half_of_the_bytes(tmp_path):
    done = run(tmp_path, "call=pwrite,path=hurt,action=torn", "step('spared'); step('hurt')")
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "hurt/a").read_bytes() == DATA[: len(DATA) // 2]
    assert (tmp_path / "spared/b").read_bytes() == DATA


def test_short_writes_half_and_says_so(tmp_path):
    done = run(tmp_path, "call=write,path=hurt,once,action=short", "print(step('hurt'), step('hurt'))")
    assert done.stdout == f"{len(DATA) // 2} {len(DATA)}\n"


WRITES = [
    "os.write(f, DATA)",
    "os.pwrite(f, DATA, 0)",
    "os.writev(f, [DATA[:99], DATA[99:]])",
    "os.pwritev(f, [DATA[:99], DATA[99:]], 0)",
    "open('hurt/a', 'wb').write(DATA)",
]


@pytest.mark.parametrize("write", WRITES)
def test_flip_changes_one_bit_and_says_nothing(tmp_path, write):
    program = f"f = os.open('hurt/a', os.O_CREAT | os.O_WRONLY); assert {write} == len(DATA)"
    done = run(tmp_path, "call=write,path=hurt,action=flip,bit=8003", program)
    assert done.returncode == 0, done.stderr
    wrong = int.from_bytes((tmp_path / "hurt/a").read_bytes(), "little") ^ int.from_bytes(DATA, "little")
    assert wrong == 1 << 8003


CALLS = {
    "open": "os.open('hurt/new', os.O_CREAT)",
    "pwrite": "os.pwrite(f, DATA, 0)",
    "pread": "os.preadv(f, [bytearray(9)], 0)",
    "read": "os.read(f, 9)",
    "fsync": "os.fsync(f)",
    "ftruncate": "os.ftruncate(f, 1)",
    "fallocate": "os.posix_fallocate(f, 0, 9)",
    "close": "os.close(f)",
    "rename": "os.replace('hurt/a', 'hurt/b')",
    "mkdir": "os.mkdir('hurt/c')",
    "unlink": "os.unlink('a', dir_fd=os.open('hurt', os.O_RDONLY))",
    "rmdir": "os.rmdir('hurt')",
}


@pytest.mark.parametrize(("call", "code"), CALLS.items())
def test_errors_come_from_the_call_that_is_named(tmp_path, call, code):
    program = f"""
        import faults
        f = os.open("hurt/a", os.O_CREAT | os.O_RDWR)
        with faults.armed("call={call},path=hurt,action=errno:EDQUOT"):
            try:
                {code}
            except OSError as error:
                print(error.errno)
    """
    assert run(tmp_path, "", program).stdout == f"{errno.EDQUOT}\n"


def test_errors_go_on_unless_once_is_said(tmp_path):
    program = """
        for _ in range(4):
            try: step('hurt'); print('right')
            except OSError as error: print(error.errno)
    """
    lasting = run(tmp_path, "call=fsync,path=hurt,nth=2,action=errno:EIO", program).stdout
    once = run(tmp_path, "call=fsync,path=hurt,nth=2,once,action=errno:EIO", program).stdout
    assert lasting.split() == ["right", "5", "5", "5"]
    assert once.split() == ["right", "5", "right", "right"]


def test_hdf5_meets_the_error_of_the_disk(tmp_path):
    program = """
        import h5py
        try:
            with h5py.File("hurt/a.h5", "w") as file: file["u"] = list(range(999))
        except (OSError, RuntimeError) as error: print(error)
    """
    done = run(tmp_path, "call=pwrite,path=hurt,action=errno:ENOSPC,once", program)
    assert "No space left on device" in done.stdout + done.stderr


@pytest.mark.parametrize("variable", RANKS)
def test_only_the_rank_that_is_named_is_hurt(tmp_path, variable):
    for rank, code in (("1", -signal.SIGKILL), ("0", 0)):
        done = run(tmp_path, "call=fsync,path=hurt,rank=1,action=kill", "step('hurt')", **{variable: rank})
        assert done.returncode == code, done.stderr


def test_stop_waits_until_the_process_is_continued(tmp_path):
    settings = {**os.environ, **faults.environment("call=rename,path=hurt,action=stop")}
    job = subprocess.Popen([sys.executable, "-c", PROGRAM + "step('hurt')"], cwd=tmp_path, env=settings)
    assert os.WIFSTOPPED(os.waitpid(job.pid, os.WUNTRACED)[1])
    assert (tmp_path / "hurt/a").exists()
    job.send_signal(signal.SIGCONT)
    assert job.wait(PATIENCE) == 0
    assert (tmp_path / "hurt/b").exists()


def test_sleep_delays_the_call(tmp_path):
    program = "import time; t = time.monotonic(); step('hurt'); print(time.monotonic() - t)"
    assert float(run(tmp_path, "call=fsync,path=hurt,action=sleep:0.3", program).stdout) >= 0.3


def test_killall_takes_the_ranks_of_the_launcher_and_no_others(tmp_path):
    rank = PROGRAM + "import time\nif sys.argv[1] == '1': step('hurt')\nopen(sys.argv[1], 'w')\ntime.sleep(60)"
    launcher = f"""
        import subprocess
        ranks = [subprocess.Popen([sys.executable, "-c", {rank!r}, str(n)], env=os.environ | {{"PMIX_RANK": str(n)}})
                 for n in (0, 1)]
        print(*(rank.wait() for rank in ranks))
    """
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    begun = time.monotonic()
    done = run(tmp_path, "call=open,path=hurt/a,action=killall", launcher)
    assert done.stdout == "-9 -9\n", done.stderr
    assert time.monotonic() - begun < PATIENCE
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_killall_by_a_process_that_no_launcher_started_takes_only_itself(tmp_path):
    job = PROGRAM + "os.environ['PMIX_RANK'] = '0'\nstep('hurt')"  # as MPI does in a process without a launcher
    sibling = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    settings = {**os.environ, **faults.environment("call=open,path=hurt/a,action=killall")}
    for variable in RANKS:
        settings.pop(variable, None)
    done = subprocess.run([sys.executable, "-c", job], cwd=tmp_path, env=settings, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    assert sibling.poll() is None
    sibling.kill()
    sibling.wait()


def test_calls_are_counted_and_noted(tmp_path):
    log = tmp_path / "log"
    done = run(tmp_path, f"path=hurt,log={log}", "step('spared'); step('hurt')", PMIX_RANK="3")
    assert done.returncode == 0, done.stderr
    found = [(call.call, call.rank, call.number, Path(call.path).name) for call in faults.calls(log)]
    made = ["mkdir hurt", "open a", "pwrite a", "fsync a", "close a", "rename b"]
    assert found == [(*line.split()[:1], 3, number, line.split()[1]) for number, line in enumerate(made, 1)]


def test_a_process_arms_faults_itself(tmp_path):
    program = """
        import faults
        for nth in (1, 2):
            with faults.armed(f"call=fsync,path=hurt,nth={nth},action=errno:EDQUOT") as fault:
                try: step("hurt")
                except OSError as error: print(error.errno, fault.hurt, fault.seen)
        print(step("hurt"), fault.hurt, fault.seen)
        try: fault.arm("action=explode")
        except ValueError as error: print(error)
    """
    done = run(tmp_path, "", program)
    assert done.stdout.splitlines() == [f"{errno.EDQUOT} 1 1", f"{len(DATA)} 0 1", "not a fault: action=explode"]


def test_a_fault_that_cannot_be_understood_ends_the_program(tmp_path):
    done = run(tmp_path, "call=fsync,action=explode", "print('went on')")
    assert (done.returncode, done.stdout) == (99, "")
    assert "action=explode cannot be understood" in done.stderr
