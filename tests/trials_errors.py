"""Trials of errors that a program survives: a system call fails or lies in a checkpoint or a restart, and it goes on.

    mpiexec -n 2 python trials_errors.py FOLDER --trials 100 --seed 1 [--driver direct] [--asynchronous]

with the library of faults preloaded. Each trial makes two checkpoints, hurts a call of the third or of a restart, looks
at what all ranks say and at what is on the disk, and goes on in the same process. Rank 0 prints a line of JSON a trial,
and how many were amiss.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import shutil
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faults
import h5py
import numpy as np
import trials_job
from mpi4py import MPI

import hpcframe as hf
from hpcframe.checkpoint import tiles
from hpcframe.checkpoint.folder import steps_in
from hpcframe.checkpoint.manifest import BadCheckpointError
from hpcframe.checkpoint.verify import verify

ACTIONS = ("ENOSPC", "EIO", "EDQUOT", "EACCES", "short", "flip")
HURT, END = 3, 6  # the step at which a call is hurt, and the last one
SILENT = ("short", "flip")  # no call fails
RAW = "not explained: "


@dataclass(frozen=True)
class Plan:
    """What a trial does; the same on all ranks."""

    during: str  # "save", "restore", or "takeover": the first checkpoint of a run that went on from another's
    options: dict[str, Any]
    call: str
    nth: int
    rank: int
    action: str
    once: bool
    bit: int

    def fault(self, path: Path) -> str:
        action = self.action if self.action in SILENT else f"errno:{self.action}"
        once = ",once" * self.once
        return f"call={self.call},path={path},nth={self.nth},rank={self.rank},action={action},bit={self.bit}{once}"


@dataclass
class Finding:
    """What came of it: all that is wrong, in words."""

    plan: Plan
    said: str = ""
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    leftovers: int = 0


class Run:
    """Fields whose every state is known, and checkpoints of them. All is collective."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        tiles.TILE_BYTES = 2048  # so that this small grid has several tiles a rank
        self.comm = comm
        self.grid = hf.Grid(trials_job.SHAPE, comm=comm)
        self.u, self.v = self.grid.fields("u", "v")

    def begin(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder, self.options, self.step = folder, options, 0
        self.u.fill(trials_job.initial)
        self.v.fill(0.0)
        self.renew()

    def renew(self) -> None:
        """As a new process has it."""
        self.checkpoints = hf.Checkpoints(self.folder, **self.options)

    def advance(self) -> None:
        self.step += 1
        trials_job.advance(self.u.interior, self.v.interior, self.step)

    def save(self) -> None:
        self.checkpoints.save(self.step, self.u, self.v, attributes={"step": self.step})
        self.checkpoints.wait()

    def restore(self) -> None:
        restored = self.checkpoints.restore(self.u, self.v)
        self.step = restored.step if restored else 0

    def is_right(self) -> bool:
        """Whether the fields are those of the step."""
        whole = [each.gather() for each in (self.u, self.v)]
        right = self.comm.rank > 0 or bool((np.stack(whole) == trials_job.expected(self.step)).all())
        return bool(self.comm.bcast(right))


def prepare(run: Run, folder: Path, during: str, options: dict[str, Any]) -> None:
    """Two checkpoints, and what else has to be there before the call that is hurt."""
    run.begin(folder, options)
    for _ in range(HURT - 1):
        run.advance()
        run.save()
    if during != "save":
        run.renew()
    if during == "takeover":
        run.restore()
    if during != "restore":
        run.advance()


def act(run: Run, during: str) -> str:
    """The action that is hurt; what it says on this rank."""
    try:
        run.restore() if during == "restore" else run.save()
    except Exception as error:
        return f"{'' if isinstance(error, hf.HpcframeError) else RAW}{type(error).__name__}: {error}"
    return ""


def calls_of(run: Run, folder: Path, during: str, options: dict[str, Any]) -> Counter[tuple[str, int]]:
    """How often each rank makes each call."""
    prepare(run, folder, during, options)
    log = folder.with_name(f"{folder.name}-log")
    run.comm.Barrier()
    with faults.armed(f"path={folder},log={log}"):
        act(run, during)
        run.comm.Barrier()
    counted = Counter((call.call, call.rank) for call in faults.calls(log))
    run.comm.Barrier()
    if run.comm.rank == 0:
        log.unlink()
        shutil.rmtree(folder)
    return counted


def plan(run: Run, base: Path, chance: random.Random, given: argparse.Namespace, known: dict[str, Any]) -> Plan:
    """Draw a call that is made; rare ones are drawn as often as others."""
    during = chance.choice(["save", "save", "restore", "takeover"])
    options = {"keep": chance.randint(1, 3), "files": chance.choice([1, 1, 2]), "driver": given.driver}
    options |= {"asynchronous": True} if given.asynchronous else {}
    key = f"{during} {options}"
    if key not in known:
        known[key] = calls_of(run, base / "counted", during, options)
    action = chance.choice(ACTIONS)
    calls = {at: n for at, n in known[key].items() if action not in SILENT or at[0].endswith("write")}
    name = chance.choice(sorted({name for name, _ in calls}))
    rank = chance.choice(sorted(rank for call, rank in calls if call == name))
    nth = chance.randint(1, calls[name, rank])
    once = action in SILENT or chance.random() < 0.5
    return Plan(during, options, name, nth, rank, action, once, chance.randrange(2**20))


def trial(run: Run, folder: Path, plan: Plan) -> Finding:
    """Collective; the finding of rank 0 counts."""
    finding = Finding(plan)
    prepare(run, folder, plan.during, plan.options)
    run.comm.Barrier()
    with faults.armed(plan.fault(folder)):
        said = run.comm.allgather(act(run, plan.during))
    finding.said = next(filter(None, said), "")
    if any(said) and not all(said):
        finding.wrong.append(f"an error on some ranks only: {said}")
    if any(each.startswith(RAW) for each in said):
        finding.wrong.append(f"an error that is not explained: {said}")
    if plan.action == "short" and any(said):
        finding.wrong.append("a short write is legal, and was taken for an error")
    good = run.comm.bcast(good_steps(folder, finding))
    if max(good, default=0) < least(plan, any(said)):
        finding.wrong.append(f"checkpoints that are left: {good}")
    go_on(run, plan, finding, any(said))
    start_again(run, finding)
    return finding


def least(plan: Plan, failed: bool) -> int:
    """The step that must be left."""
    if plan.during == "restore":  # a disk that gives an I/O error has lost what is there
        return HURT - 2 if plan.action == "EIO" else HURT - 1
    return HURT - 1 if failed or plan.action == "flip" else HURT


def good_steps(folder: Path, finding: Finding) -> list[int]:
    """Checkpoints that verify; what verifies must be right. On rank 0."""
    good = []
    for step, path in steps_in(folder).items() if MPI.COMM_WORLD.rank == 0 else ():
        try:
            verify(path)
        except BadCheckpointError:
            continue
        good.append(step)
        with h5py.File(path / "state.h5", "r", locking=False) as file:
            if not (np.stack([file["u"][...], file["v"][...]]) == trials_job.expected(step)).all():
                finding.wrong.append(f"step {step} verifies and is wrong")
    return good


def go_on(run: Run, plan: Plan, finding: Finding, failed: bool) -> None:
    """In the same process, with a disk that is well again."""
    if plan.during == "restore" and failed and act(run, "restore"):
        finding.wrong.append("a restore that failed can not be done again")
    if not run.is_right():
        finding.wrong.append(f"wrong fields after {plan.during}")
    if plan.during != "restore" and failed:
        said = act(run, "save")
        if said and plan.action != "flip":  # in the lease, a flip takes the folder away from us
            finding.wrong.append(f"after the error, the same again: {said}")
    run.advance()
    said = act(run, "save")
    if said and plan.action != "flip":
        finding.wrong.append(f"after the error, the next checkpoint: {said}")


def start_again(run: Run, finding: Finding) -> None:
    """What a new process would find and do."""
    good = run.comm.bcast(good_steps(run.folder, finding))
    run.renew()
    said = act(run, "restore")
    if said:
        finding.wrong.append(f"start again: {said}")
        return
    finding.lost = max(good, default=0) - run.step
    if not run.is_right():
        finding.wrong.append("WRONG RESTORE")
    while run.step < END:
        run.advance()
        said = said or act(run, "save")
    if said or not run.is_right():
        finding.wrong.append(f"the end: {said or 'wrong fields'}")
    names = [path.name for path in run.folder.iterdir()]
    finding.leftovers = sum(name.startswith(".") for name in names)
    if sum(name.startswith("step-") and not name.endswith(".bad") for name in names) > run.options["keep"] + 1:
        finding.wrong.append(f"old checkpoints stay: {sorted(names)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial: to repeat one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=60.0, help="s: a trial that takes longer hangs")
    parser.add_argument("--driver", default="direct")
    parser.add_argument("--asynchronous", action="store_true")
    given = parser.parse_args()
    run, known, bad = Run(MPI.COMM_WORLD), {}, 0
    for number in range(given.first, given.first + given.trials):
        chance = random.Random(f"{given.seed} {number}")
        folder = given.folder / f"trial-{number}"
        drawn = plan(run, given.folder, chance, given, known)
        faulthandler.dump_traceback_later(given.patience, exit=True)
        if run.comm.rank == 0:
            print(json.dumps({"trial": number, "plan": asdict(drawn)}), file=sys.stderr, flush=True)
        finding = trial(run, folder, drawn)
        run.comm.Barrier()
        faulthandler.cancel_dump_traceback_later()
        if run.comm.rank == 0:
            amiss = bool(finding.wrong or finding.lost or finding.leftovers)
            bad += amiss
            print(json.dumps({"trial": number, "amiss": amiss, **asdict(finding)}), flush=True)
            if not amiss:
                shutil.rmtree(folder)
    if run.comm.rank == 0:
        print(f"{given.trials} trials, {bad} with anything amiss", flush=True)


if __name__ == "__main__":
    sys.exit(main())
