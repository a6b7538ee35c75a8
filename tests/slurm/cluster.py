"""Use the Slurm cluster that the script `cluster` beside this file starts."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster")
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE"})
ANSWER_WITHIN = 60  # seconds, for a command of Slurm's
UP = frozenset({"IDLE", "MIXED", "ALLOCATED", "COMPLETING"})

# What another Slurm or a launcher of MPI ranks may have left in the environment of the tests.
FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "PMI_", "PMIX_", "OMPI_COMM_", "PRTE_")


class Cluster:
    """A running cluster, whose configuration, state and logs are in `folder`.

    A job is named by the number that `sbatch` returns, or "12_3" for task 3 of an array. All jobs stay known until the
    cluster stops. Methods that wait poll, and raise `TimeoutError` with the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self.environment["SLURM_CONF"] = str(folder / "slurm.conf")
        self.crashed: set[str] = set()

    @classmethod
    def start(cls, folder: Path, *options: str) -> Cluster:
        """Start one in a new folder. Raises `RuntimeError` with the reason where it does not start."""
        _script("start", str(folder), *options)
        return cls(folder)

    def stop(self) -> None:
        """End it with all its jobs."""
        _script("stop", str(self.folder))

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        limit: float = ANSWER_WITHIN,
    ) -> subprocess.CompletedProcess[str]:
        """Run srun, scontrol or another command on this cluster; `environment` is added to that of the tests.

        Raises `RuntimeError` with its output if it fails, unless `check` is false, and `TimeoutError` after `limit`
        seconds.
        """
        settings = {**self.environment, **(environment or {})}
        try:
            done = subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as late:
            said = "\n".join(_text(stream) for stream in (late.stdout, late.stderr))
            raise TimeoutError(f"{' '.join(command)}: no end within {limit:g} s\n{said}\n{self.log()}") from None
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def sbatch(self, *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path) -> str:
        """Submit a batch job from the folder `cwd`, and return its number."""
        said = self.run("sbatch", "--parsable", *arguments, environment=environment, cwd=cwd).stdout
        return said.strip().partition(";")[0]

    def state(self, job: str) -> str:
        """Such as "RUNNING"; of an array whose tasks differ, all their states with commas between them."""
        return ",".join(sorted({record["JobState"] for record in self.records(job)}))

    def exit_code(self, job: str) -> int:
        """That of the batch script, or 128 and the number of the signal that ended it."""
        code, signal = self.record(job)["ExitCode"].split(":")
        return int(code) or (128 + int(signal) if int(signal) else 0)

    def restarts(self, job: str) -> int:
        """How often the job was requeued."""
        return int(self.record(job)["Restarts"])

    def output(self, job: str) -> str:
        """What the job, or all tasks of an array, wrote so far to standard output, and to standard error elsewhere."""
        named = (record[name] for record in self.records(job) for name in ("StdOut", "StdErr") if name in record)
        paths = map(Path, dict.fromkeys(named))
        return "".join(path.read_text(errors="replace") for path in paths if path.is_file())

    def record(self, job: str) -> dict[str, str]:
        """All that scontrol says of one job, or one task of an array."""
        (record,) = self.records(job)
        return record

    def records(self, job: str) -> list[dict[str, str]]:
        """All that scontrol says of a job, or of each task of an array."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job).stdout.splitlines()
        fields = (re.split(r" (?=[A-Za-z:/]+=)", line) for line in lines if line)  # a path may have a space
        return [dict(field.split("=", 1) for field in each if "=" in field) for each in fields]

    def wait(self, job: str, states: str | Sequence[str] = tuple(ENDED), limit: float = 60) -> str:
        """Wait until the job, or each task of an array, is in one of `states`, by default until it has ended.

        Returns the state. Raises `TimeoutError` after `limit` seconds, `RuntimeError` when it has ended otherwise.
        """
        wanted = {states} if isinstance(states, str) else set(states)

        def reached() -> bool:
            found = set(self.state(job).split(","))
            if found <= ENDED and not found <= wanted:
                raise RuntimeError(f"job {job} ended as {found}, not {wanted}\n{self.output(job)}\n{self.log()}")
            return found <= wanted

        self.wait_until(reached, f"job {job} in {', '.join(sorted(wanted))}", limit, job)
        return self.state(job)

    def wait_until(self, condition: Callable[[], bool], what: str, limit: float = 60, job: str | None = None) -> None:
        """Poll until `condition()`. Raises `TimeoutError` after `limit` seconds, with `what` and what `job` wrote."""
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                about = f"{self.records(job)}\n{self.output(job)}" if job else self.run("squeue").stdout
                raise TimeoutError(f"not within {limit:g} s: {what}\n{about}\n{self.log()}")
            time.sleep(0.1)

    def crash(self, node: str) -> None:
        """Cut the power of a node. Slurm notices after 10 to 30 seconds, or at once by `down`."""
        _script("crash", str(self.folder), node)
        self.crashed.add(node)

    def revive(self, node: str) -> None:
        """Boot a node that crashed, and wait until Slurm uses it."""
        _script("revive", str(self.folder), node)
        self.crashed.discard(node)
        self.wait_until(lambda: "NOT_RESPONDING" not in self.node(node), f"{node} answers")
        self.resume(node)

    def drain(self, node: str) -> None:
        """Have a node take no new job."""
        self.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def down(self, node: str) -> None:
        """Declare a node broken: its jobs are requeued or end."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Use a node again that is drained or down; do nothing if it is up."""
        if not self.node(node) <= UP:
            self.run("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait_until(lambda: self.node(node) <= UP, f"{node} up")

    def node(self, name: str) -> set[str]:
        """The state of a node with its flags, such as {"DOWN", "NOT_RESPONDING"}."""
        words = self.run("scontrol", "--oneliner", "show", "node", name).stdout.split()
        return set(next(word for word in words if word.startswith("State=")).removeprefix("State=").split("+"))

    def wait_idle(self, limit: float = 60) -> None:
        """Wait until no job is left."""
        self.wait_until(lambda: not self.run("squeue", "--noheader").stdout, "no job left", limit)

    def restore(self) -> None:
        """End all jobs, and have all nodes up, whatever was done to them."""
        for node in sorted(self.crashed):
            self.revive(node)
        jobs = set(self.run("squeue", "--noheader", "--format=%A").stdout.split())
        if jobs:
            self.run("scancel", *jobs, check=False)  # one may end by itself meanwhile
        self.wait_idle()
        for node in self.run("sinfo", "--noheader", "--Node", "--partition=mpi", "--format=%N").stdout.split():
            self.resume(node)

    def log(self, lines: int = 30) -> str:
        """The last lines of the log of slurmctld."""
        text = (self.folder / "log/slurmctld.log").read_text(errors="replace")
        return "\n".join(["slurmctld.log:", *text.splitlines()[-lines:]])


def install() -> None:
    """Install what the cluster needs. Raises `RuntimeError` with the reason where that cannot be."""
    _script("install")


def _script(*arguments: str) -> None:
    done = subprocess.run([SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"tests/slurm/cluster {arguments[0]}: {done.stdout.strip()[-3000:]}")


def _text(stream: str | bytes | None) -> str:
    return stream.decode(errors="replace") if isinstance(stream, bytes) else stream or ""
