"""Start ranks on this machine with the mpiexec at hand: the one place that knows what each MPI's mpiexec wants.

    python -m hpcframe.launch.local -n 2 -- python -m hpcframe.run sim.toml

On a cluster use `srun` or the site's own launcher instead: the settings here suit a single machine.
Imports neither MPI nor numba, for the parent of MPI ranks must not be an MPI process itself.
"""

import argparse
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hpcframe.errors import InputError

ANSWER_WITHIN = 20.0  # seconds
GRACE = 60.0  # seconds from an interruption until ranks that still run, for a checkpoint perhaps, are ended

# SIGUSR1 is what Slurm users send before a time limit.
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

REMEDY = 'on a laptop `pip install "hpcframe[mpi]"`, on a cluster load its MPI (`module load openmpi`)'

# What `mpiexec --version` says, most telling first: Intel MPI's mpiexec is a Hydra too.
SIGNS = {"intel": ("Intel(R) MPI",), "openmpi": ("Open MPI", "OpenRTE", "PRRTE"), "mpich": ("HYDRA",)}


def environment(base: Mapping[str, str], oversubscribed: bool = False) -> dict[str, str]:
    """The environment `base` with what ranks on one machine need; what `base` sets already stays. Not collective.

    `oversubscribed` says that there are more ranks than cores: waiting ranks then give way to working ones.
    """
    defaults = {
        "NUMBA_NUM_THREADS": "1",  # the ranks are the parallelism: threads of theirs would compete for the cores
        "OMP_NUM_THREADS": "1",
        # Open MPI otherwise spends a second looking for networks. "vader" is the shared memory of 4, an alias in 5.
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "self,vader",
    }
    if oversubscribed:
        defaults |= {"OMPI_MCA_mpi_yield_when_idle": "1", "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1"}
    if os.geteuid() == 0:
        defaults |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    settings = {**defaults, **base}
    if not settings.get("HOME"):
        settings["HOME"] = tempfile.gettempdir()  # Open MPI does not start without one
    return settings


def command(ranks: int, program: Sequence[str]) -> list[str]:
    """The command line that starts `program` on `ranks` ranks of this machine. Not collective.

    It names the mpiexec beside the Python that runs this, or else the first on PATH.
    Raises `InputError` where there is none, or for fewer ranks than one.
    """
    if ranks < 1:
        raise InputError(f"{ranks} ranks asked for: a run needs at least 1")
    mpiexec = find_mpiexec(os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    placed = options(implementation(mpiexec), ranks, cores(), threads(os.environ))
    return [mpiexec, "-n", str(ranks), *placed, *program]


def run(ranks: int, program: Sequence[str]) -> int:
    """Run `program` on `ranks` ranks of this machine, wait for its end and return its exit code.

    Where ranks end with different codes, Open MPI's first that is not 0 counts. An end by a signal returns 128 plus
    its number. SIGINT, SIGTERM, SIGHUP and SIGUSR1 interrupt the ranks, see `_passing_signals_to`; so call this from
    the main thread. The ranks read nothing from standard input. Raises `InputError` as `command` does. Not collective.
    """
    arguments = command(ranks, program)
    settings = environment({**_terminal(), **os.environ}, oversubscribed=ranks * threads(os.environ) > cores())
    # A process group of its own keeps the terminal's Ctrl-C from reaching mpiexec, which would kill the ranks at once.
    job = subprocess.Popen(
        arguments, env=settings, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_end_with_the_parent
    )
    with _passing_signals_to(job, known=implementation(arguments[0]) is not None):
        code = job.wait()
    return code if code >= 0 else 128 - code


def find_mpiexec(path: str) -> str:
    """The first mpiexec in the folders of `path`, which is written as PATH is. Raises `InputError` if there is none."""
    found = shutil.which("mpiexec", path=path)
    if found is None:
        raise InputError(f"no mpiexec on this machine: {REMEDY}")
    return found


@functools.cache
def implementation(mpiexec: str) -> str | None:
    """Which MPI an mpiexec belongs to: "openmpi", "mpich" or "intel"; None is any other."""
    try:
        asked = subprocess.run(
            [mpiexec, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=ANSWER_WITHIN,
            env=environment(os.environ),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(f"{mpiexec} --version does not answer within {ANSWER_WITHIN:g} s: {REMEDY}") from None
    said = asked.stdout + asked.stderr
    return next((name for name, signs in SIGNS.items() if any(sign in said for sign in signs)), None)


def options(implementation: str | None, ranks: int, cores: int, threads: int = 1) -> list[str]:
    """The options of an mpiexec that place `ranks` ranks of some threads on `cores` cores.

    Ranks are bound to as many cores as they have threads, and only when they fill the machine: a smaller job would be
    bound to the first cores, where another one may run already. Intel MPI does this by itself.
    """
    fills = ranks * threads == cores
    if implementation == "openmpi":
        each = ["--map-by", f"slot:PE={threads}"] if fills and threads > 1 else []
        binding = [*each, "--bind-to", "core" if fills else "none"]
        return binding if ranks <= cores else ["--oversubscribe", *binding]
    if implementation == "mpich" and fills:
        return ["-bind-to", "core" if threads == 1 else f"core:{threads}"]
    return []


def threads(environment: Mapping[str, str]) -> int:
    """Threads of a rank, for placing it; one where the number is none, which the ranks then refuse."""
    text = environment.get("NUMBA_NUM_THREADS", "")
    return max(1, int(text)) if text.isdecimal() else 1


def cores() -> int:
    """Physical cores that this process may use, which is what mpiexec counts, not hardware threads."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_threads_of_core(cpu) for cpu in os.sched_getaffinity(0)})


def _threads_of_core(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text() if path.exists() else str(cpu)


def _terminal() -> dict[str, str]:
    """Tell the ranks' progress display what standard output is: they see a pipe or a terminal of mpiexec's making."""
    if not sys.stdout.isatty():
        return {"TTY_COMPATIBLE": "0", "NO_COLOR": "1"}
    columns, lines = shutil.get_terminal_size()
    return {"TTY_COMPATIBLE": "1", "COLUMNS": str(columns), "LINES": str(lines)}


def _end_with_the_parent() -> None:
    """In mpiexec's process: have Linux end it when the process that waits for it is killed. Elsewhere do nothing."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


@contextmanager
def _passing_signals_to(job: subprocess.Popen[bytes], known: bool) -> Iterator[None]:
    """Interrupt the ranks of `job`, not its mpiexec, when this process is interrupted.

    Open MPI gives ranks less than a second after a SIGINT or SIGTERM, and no setting of Open MPI 5 changes that.
    But it, MPICH and Intel MPI pass SIGUSR1 on to the ranks and wait. So the first signal becomes SIGUSR1, on which
    `hpcframe.run` ends cleanly and by which other programs die. A second signal, or ranks that still run after
    `GRACE` seconds, end the job at once.
    """
    escalation = [threading.Timer(GRACE, job.terminate), threading.Timer(GRACE + 5, job.kill)]

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if not known or escalation[0].ident is not None:  # a timer has an identity once it runs
            job.terminate()
            return
        job.send_signal(signal.SIGUSR1)
        for timer in escalation:
            timer.daemon = True
            timer.start()

    previous = {number: signal.signal(number, interrupt) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for timer in escalation:
            timer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def main() -> int:
    """`python -m hpcframe.launch.local -n RANKS -- PROGRAM ...`; the exit code is the program's, 2 without an MPI."""
    parser = argparse.ArgumentParser(prog="python -m hpcframe.launch.local", description="Start ranks on this machine.")
    parser.add_argument("-n", "--ranks", type=int, required=True, help="how many")
    parser.add_argument("program", nargs="+", help="what each of them runs, after --")
    arguments = parser.parse_args()
    try:
        return run(arguments.ranks, arguments.program)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
