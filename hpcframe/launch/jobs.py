"""The user's jobs as Slurm knows them, and how to stop one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcframe.errors import HpcframeError, InputError
from hpcframe.launch import durations, reasons
from hpcframe.launch.slurm import ask

# Id, state, nodes, time left, partition, names of nodes, dependencies, reason, name, comment: the last may contain
# anything.
FORMAT = "%i|%T|%D|%L|%P|%N|%E|%r|%j|%k"
COMMENT = r"run(?: of (\d+) steps)? in (/.*)"  # as `comment` makes it
NAME = "hpcframe"  # how the names of all jobs begin that the batch scripts make
ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
}


@dataclass(frozen=True)
class Job:
    """A job, or a task of an array.

    Attributes:
        left: of its time limit (s); None where there is none, or it has ended.
        after: the jobs that it waits for, in Slurm's words.
        folder: of the run; None where it was not submitted by `hpcframe submit`.
        steps: of the run; None where that is not known.
    """

    id: str
    state: str
    nodes: int
    left: int | None
    partition: str
    where: str
    after: str
    reason: str
    name: str
    folder: Path | None
    steps: int | None

    @property
    def is_pending(self) -> bool:
        """Whether none of it runs."""
        return self.state == "PENDING"

    @property
    def has_ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED


def comment(folder: Path, steps: int | None) -> str:
    """The comment by which a job tells `hpcframe status` of its run.

    >>> comment(Path("/runs/heat"), 500)
    'run of 500 steps in /runs/heat'
    """
    return f"run{f' of {steps} steps' if steps else ''} in {folder.absolute()}"


def jobs(ids: Sequence[str] = ()) -> list[Job]:
    """The user's own jobs of hpcframe that wait or run; or those given, ended ones too while Slurm remembers them.

    Raises:
        InputError: there is no Slurm, or it does not know a job.
        HpcframeError: it does not answer.
    """
    for job in ids:
        if not re.fullmatch(r"\d+(_(\d+|\[.*\]))?", job):
            raise InputError(f"{job} is no job id: they are numbers, such as 1234, or 1234_5 in an array")
    command = ["squeue", "--noheader", f"--format={FORMAT}"]
    if not ids:
        return [job for job in parse(ask([*command, "--me"])) if job.name.startswith(NAME)]
    return [job for each in ids for job in _asked([*command, "--states=all", f"--jobs={each}"], each)]


def _asked(command: list[str], job: str) -> list[Job]:
    unknown = InputError(
        f"Slurm does not know job {job} (any more: it forgets jobs minutes after their end); `hpcframe status` lists "
        f"yours, `sacct --jobs={job}` tells of ended ones where accounting is on"
    )
    try:
        found = parse(ask(command))
    except HpcframeError as error:
        if "Invalid job id" in str(error):
            raise unknown from None
        raise
    if not found:
        raise unknown
    return found


def parse(text: str) -> list[Job]:
    """What `squeue` prints in `FORMAT`."""
    return [_job(line.split("|", 9)) for line in text.splitlines() if line.count("|") >= 9]


def _job(columns: Sequence[str]) -> Job:
    job, state, nodes, left, partition, where, after, reason, name, comment = (column.strip() for column in columns)
    time = int(durations.limit(left) or 0) if re.fullmatch(r"[\d:-]*[1-9][\d:-]*", left) else None
    run = re.fullmatch(COMMENT, comment)
    folder, steps = (Path(run[2]), int(run[1]) if run[1] else None) if run else (None, None)
    return Job(job, state, int(nodes), time, partition, where, after, reason, name, folder, steps)


def describe(job: Job) -> str:
    """A job in a line, or in two where it waits for something.

    >>> describe(parse("7|PENDING|4|2:00:00|mpi|||JobHeldUser|hpcframe-heat|(null)")[0])
    '7  hpcframe-heat  PENDING, 4 node(s) of mpi\\n    JobHeldUser: you hold it: scontrol release 7'
    """
    where = f" ({job.where})" if job.where else ""
    left = f", {durations.in_words(job.left)} left" if job.left is not None and job.state == "RUNNING" else ""
    why = reasons.in_words(job.reason, job.id.partition("_")[0])
    return f"{job.id}  {job.name}  {job.state}, {job.nodes} node(s) of {job.partition}{where}{left}" + (
        f"\n    {why}" if why else ""
    )


def followers(job: str, known: Sequence[Job]) -> list[str]:
    """Ids of jobs that wait for a job, and for those: the rest of a chain.

    Args:
        known: where to look.
    """
    direct = [each.id for each in known if job in re.findall(r":(\d+)", each.after)]
    return list(dict.fromkeys([*direct, *(later for each in direct for later in followers(each, known))]))


def cancel(job: str, checkpoint: bool = False) -> str:
    """Stop a job, and those that follow it in a chain; what happens now, in words.

    Args:
        checkpoint: have its ranks write one first, if they run.

    Raises:
        InputError: there is no Slurm, or it does not know the job.
        HpcframeError: Slurm does not do it, with its reason.
    """
    found = [each for each in jobs([job]) if not each.has_ended]
    chain = followers(job, jobs())
    if chain:
        ask(["scancel", *chain])  # first, or they would begin
    also = f"; so are those after it: {', '.join(chain)}" if chain else ""
    if not found:
        return f"job {job} has ended already" + (f"; those after it are cancelled: {', '.join(chain)}" if chain else "")
    running = any(not each.is_pending for each in found)
    if not checkpoint or not running:
        ask(["scancel", job])
        return f"job {job} is cancelled" + ("" if running else ", it had not begun") + also
    ask(["scontrol", "update", f"JobId={job}", "Requeue=0"])  # the batch script reads it before it would requeue
    if any(each.is_pending for each in found):
        ask(["scancel", "--state=PENDING", job])  # tasks of an array that wait: they would begin
    ask(["scancel", "--state=RUNNING", "--signal=USR1", job])  # the ranks, not the batch script
    return (
        f"job {job} is told to write a checkpoint at the end of its step, to stop, and not to come back"
        + (f"; those after it are cancelled: {', '.join(chain)}" if chain else "")
        + f"\nwatch it by `hpcframe status {job}`; submitted again, it continues from there"
    )
