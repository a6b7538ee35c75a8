"""Trials of a kill campaign: a job is hurt, started again on other ranks, and must end with the right fields.

A job of one rank is forked from this process, which has everything imported: such a trial takes a third of a second.
One of several ranks is started by the real launcher.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import faults
import numpy as np
import trials_job

from hpcframe.checkpoint.folder import STEP, steps_in
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError
from hpcframe.checkpoint.verify import verify

LIMIT = 60.0  # s: a job that takes longer hangs
STEPS = 6
ENDS = ("kill", "killall", "stop", "torn")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES")
WRONGS = ("short", "flip", *ERRORS)
VERDICTS = ("recovered", "refused", "wrong", "hang", "lost")
WRITES = ("torn", "short", "flip")  # make sense for writes only


@dataclass(frozen=True)
class Fault:
    """The `nth` call of a kind on a checkpoint's path, on one rank, and what happens there."""

    call: str
    nth: int
    action: str  # of faults.c, or the name of an error
    rank: int
    once: bool

    def __str__(self) -> str:
        action = f"errno:{self.action}" if self.action in ERRORS else self.action
        once = ",once" * self.once
        return f"call={self.call},path=/checkpoints,nth={self.nth},rank={self.rank},action={action}{once}"


@dataclass(frozen=True)
class Setting:
    """How a job is run."""

    ranks: int
    driver: str = "direct"
    asynchronous: bool = False

    def options(self) -> list[str]:
        return ["--driver", self.driver, *["--asynchronous"] * self.asynchronous]


@dataclass
class Outcome:
    """What came of a trial.

    Attributes:
        kind: of the fault.
        verdict: recovered, refused (rightly: nothing was left), wrong, hang or lost.
        lost: steps of checkpoints that were good and were not continued from.
        leftovers: files of unfinished checkpoints after the restart.
    """

    kind: str
    driver: str
    verdict: str
    lost: int = 0
    leftovers: int = 0
    details: str = ""
    settings: list[Setting] = field(default_factory=list)


def run_job(folder: Path, setting: Setting, fault: Fault | None = None, until: int = STEPS) -> int | None:
    """The exit code of the job; None where it did not end, and was ended."""
    arguments = [str(folder), *setting.options(), "--steps", str(STEPS), "--until", str(until)]
    patience = 1.0 if fault and fault.action == "stop" else LIMIT
    if setting.ranks == 1:
        return _forked(folder, arguments, fault, patience)
    return _launched(folder, arguments, setting.ranks, fault, patience if patience == LIMIT else 8.0)


def _launched(folder: Path, arguments: list[str], ranks: int, fault: Fault | None, patience: float) -> int | None:
    program = [sys.executable, trials_job.__file__, *arguments]
    settings = [f"{key}={value}" for key, value in faults.environment(str(fault)).items()] if fault else []
    # The launcher itself is not hurt: `env` sets the fault for the ranks only.
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--", "env", *settings, *program]
    with open(folder / "log", "ab") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            return job.wait(patience)
        except subprocess.TimeoutExpired:
            _end(job.pid)
            job.wait()
            return None


def _end(parent: int) -> None:
    """End a job that hangs: SIGKILL to all that descend from a process of ours, the deepest first."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        _end(int(child))
    os.kill(parent, signal.SIGKILL)


def _forked(folder: Path, arguments: list[str], fault: Fault | None, patience: float) -> int | None:
    child = os.fork()
    if child == 0:
        os._exit(_child(folder, arguments, fault))
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(folder: Path, arguments: list[str], fault: Fault | None) -> int:
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from mpi4py import MPI

    MPI.Init_thread()
    try:
        if fault:
            faults.Fault().arm(str(fault))
        sys.argv[1:] = arguments
        code = trials_job.main()
        MPI.Finalize()
        sys.stderr.flush()
        return code
    except BaseException as error:  # a child must not go on as its parent
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 99


def preload() -> None:
    """Start this program again with the library of faults in it, so that what it forks can be hurt."""
    if str(faults.library()) not in os.environ.get("LD_PRELOAD", ""):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **faults.environment()})


def prepare() -> None:
    """Import what a forked job needs and takes long, without starting MPI."""
    import mpi4py

    mpi4py.rc.initialize = mpi4py.rc.finalize = False
    import h5py
    from mpi4py import MPI

    from hpcframe.checkpoint.crc32c import crc32c

    assert h5py and MPI
    crc32c(bytes(100))


@functools.cache
def calls_of(setting: Setting, begun: int) -> Counter[tuple[str, int]]:
    """How often each rank makes each call on checkpoints, in a job that goes on from a step."""
    folder = _new_folder(Path(os.environ.get("TMPDIR", "/tmp")), "calls")
    if begun:
        run_job(folder, setting, until=begun)
    log = folder / "calls"
    program = [sys.executable, trials_job.__file__, str(folder), *setting.options()]
    settings = [f"{key}={value}" for key, value in faults.environment(f"path=/checkpoints,log={log}").items()]
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(setting.ranks), "--"]
    subprocess.run([*command, "env", *settings, *program], check=True)
    counted = Counter((call.call, call.rank) for call in faults.calls(log))
    shutil.rmtree(folder)
    return counted


def random_fault(chance: random.Random, setting: Setting, kinds: tuple[str, ...], begun: int) -> Fault:
    """A fault at a call that the job makes, of a kind of call that is drawn first: rare calls are hurt as often."""
    action = chance.choice(kinds)
    calls = calls_of(setting, begun)
    names = sorted({call for call, _ in calls if action not in WRITES or call in ("pwrite", "write")})
    call = chance.choice(names)
    rank = chance.choice(sorted(rank for name, rank in calls if name == call))
    once = action in ("short", "flip") or (action in ERRORS and chance.random() < 0.5)
    return Fault(call, chance.randint(1, calls[call, rank]), action, rank=rank, once=once)


def fault_trial(base: Path, chance: random.Random, first: Setting, second: Setting, kinds: tuple[str, ...]) -> Outcome:
    """Hurt a job by a random fault, and start it again without."""
    begun = chance.choice((0, 0, 3))  # steps of a job before, so that the hurt one has something to load
    fault = random_fault(chance, first, kinds, begun)
    folder = _new_folder(base, "trial")
    if begun and run_job(folder, first, until=begun) != 0:
        raise RuntimeError((folder / "log").read_text())
    code = run_job(folder, first, fault)
    details = f"{fault} -> {code}"
    if code is None and fault.action != "stop":
        return Outcome(fault.action, first.driver, "hang", details=details, settings=[first])
    return _restart(folder, fault.action, first, second, details, good_steps(folder))


def corruption_trial(base: Path, chance: random.Random, first: Setting, second: Setting) -> Outcome:
    """Stop a job between two steps, spoil its newest checkpoint, and start it again."""
    folder = _new_folder(base, "trial")
    code = run_job(folder, first, until=chance.randint(3, STEPS - 1))
    assert code == 0, (folder / "log").read_text()
    kind, spoil = chance.choice(list(CORRUPTIONS.items()))
    newest, *older = steps_in(folder / "checkpoints").items()
    details = spoil(newest[1], older[0][1], chance)
    return _restart(folder, kind, first, second, f"{newest[1].name}: {details}", [step for step, _ in older])


def _restart(folder: Path, kind: str, first: Setting, second: Setting, details: str, good: list[int]) -> Outcome:
    """Start a hurt job again, and judge."""
    outcome = Outcome(kind, first.driver, "recovered", details=details, settings=[first, second])
    finished = (folder / "final.npy").exists()
    if finished and not _is_right(folder):
        outcome.verdict = "wrong"
        return outcome
    (folder / "final.npy").unlink(missing_ok=True)
    code = run_job(folder, second)
    if code is None:
        outcome.verdict = "hang"
    elif code == 3 and not good and not finished:
        outcome.verdict = "refused"
    elif code != 0 or not (folder / "final.npy").exists():
        outcome.verdict, outcome.details = "lost", f"{details}: exit code {code}: {_last_line(folder)}"
    elif not _is_right(folder):
        outcome.verdict = "wrong"
    else:
        outcome.lost = max([0, *good]) - int((folder / "restored").read_text())
        outcome.leftovers = sum(path.name.startswith(".") for path in (folder / "checkpoints").iterdir())
    if outcome.verdict in ("recovered", "refused"):
        shutil.rmtree(folder)
    return outcome


def _is_right(folder: Path) -> bool:
    return bool((np.load(folder / "final.npy") == trials_job.expected(STEPS)).all())


def good_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are complete and right."""
    good = []
    for path in (folder / "checkpoints").iterdir() if (folder / "checkpoints").is_dir() else ():
        name = STEP.fullmatch(path.name)
        if name:
            try:
                verify(path)
                good.append(int(name[1]))
            except BadCheckpointError:
                pass  # one that was hurt
    return good


def _last_line(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace").strip().rpartition("\n")[2]


def _new_folder(base: Path, name: str) -> Path:
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    return folder


# -- what happens to files at rest -------------------------------------------------------------------------------


def flipped_bit(newest: Path, older: Path, chance: random.Random) -> str:
    """In a tile or in the manifest: anywhere that a restart reads."""
    from hpcframe.checkpoint.verify import read_manifest

    tiles = [tile for record in read_manifest(newest).arrays for tile in record.tiles]
    tile = chance.choice(tiles)
    path = newest / chance.choice(["state.h5", NAME])
    begin, length = (tile.offset, tile.length) if path.name != NAME else (0, path.stat().st_size - 1)
    offset = begin + chance.randrange(length)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0] ^ 1 << chance.randrange(8)
        file.seek(offset)
        file.write(bytes([byte]))
    return f"byte {offset} of {path.name}"


def torn_tile(newest: Path, older: Path, chance: random.Random) -> str:
    """The second half of a tile is zeros, as after a loss of power."""
    from hpcframe.checkpoint.verify import read_manifest

    tile = chance.choice([tile for record in read_manifest(newest).arrays for tile in record.tiles])
    with open(newest / "state.h5", "r+b") as file:
        file.seek(tile.offset + tile.length // 2 // 8 * 8)
        half = file.read(tile.length - tile.length // 2 // 8 * 8)
        file.seek(tile.offset + tile.length // 2 // 8 * 8)
        file.write(bytes(len(half)) if any(half) else bytes([255]) * len(half))
    return f"tile at {tile.offset}"


def deleted_file(newest: Path, older: Path, chance: random.Random) -> str:
    name = chance.choice(["state.h5", NAME])
    (newest / name).unlink()
    return name


def truncated_file(newest: Path, older: Path, chance: random.Random) -> str:
    path = newest / chance.choice(["state.h5", NAME])
    size = chance.randrange(path.stat().st_size - 1)
    os.truncate(path, size)
    return f"{path.name} to {size} bytes"


def stale_manifest(newest: Path, older: Path, chance: random.Random) -> str:
    shutil.copyfile(older / NAME, newest / NAME)
    return "that of the one before"


def stale_data(newest: Path, older: Path, chance: random.Random) -> str:
    shutil.copyfile(older / "state.h5", newest / "state.h5")
    return "that of the one before"


def broken_manifest(newest: Path, older: Path, chance: random.Random) -> str:
    text = chance.choice(["", "{}", "[]", '{"manifest": {}, "checksum": "00000000"}', "null", "\x00" * 100])
    (newest / NAME).write_text(text)
    return repr(text[:40])


CORRUPTIONS: dict[str, Callable[[Path, Path, random.Random], str]] = {
    "flipped bit at rest": flipped_bit,
    "torn tile": torn_tile,
    "deleted file": deleted_file,
    "truncated file": truncated_file,
    "stale manifest": stale_manifest,
    "stale data": stale_data,
    "broken manifest": broken_manifest,
}
