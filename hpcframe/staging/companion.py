"""The uploaders of a run, seen from its ranks: started, looked after, and waited for."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from mpi4py import MPI

from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.grid.communicator import connect
from hpcframe.staging import state as states
from hpcframe.staging.options import FILE, Options
from hpcframe.staging.state import FOLDER, State

ANSWER_WITHIN = 20.0  # s for S3, at the start of a run: after that the run begins without it
START_AGAIN_AFTER, LONGEST_PAUSE = 10.0, 600.0  # s between two starts of an uploader that ended; doubled if it cannot
POLL = 0.05  # s
END_WITHIN = 10.0  # s that an uploader gets to end
REMEDY = "push what is missing by `hpcframe stage push`"


class Staging:
    """Brings checkpoints and output of a run to S3, behind it: a process on each node does, see `uploader`.

        staging = hf.Staging("runs/mine/checkpoints", "s3://bucket/mine", comm=comm)
        checkpoints.held = staging.held       # what is on its way stays on the disk
        ...
        staging.finish()

    A slow or dead S3 neither stops the ranks nor costs a checkpoint on the disk.

    Attributes:
        run: the folder of the run: the one in which `checkpoints` is.
        notices: lines on what went wrong, on rank 0.
    """

    def __init__(
        self, checkpoints: str | os.PathLike[str], url: str = "", comm: MPI.Intracomm | None = None, **options: Any
    ) -> None:
        """Collective. Starts pushing what is there.

        Args:
            checkpoints: the folder, as `hf.Checkpoints` has it.
            url: s3://bucket/prefix.
            comm: COMM_WORLD if not given.
            options: as in [staging] of sim.toml.

        Raises:
            InputError: on every rank: an option that cannot be, or S3 refuses: no such bucket, no permission.
        """
        from hpcframe.staging.pushing import run_of

        world = MPI.COMM_WORLD if comm is None else comm
        shared = connect(world)
        self._comm, self._node, self._leads = shared.comm, shared.node_of_rank[world.rank], shared.node.rank == 0
        self._nodes = len(set(shared.node_of_rank))
        self.checkpoints = Path(checkpoints).absolute()
        self.run = run_of(self.checkpoints)
        self.notices: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._seen = 0.0
        self._start_after = START_AGAIN_AFTER
        self._said = ""
        with collectively(self._comm, "reading what is to be staged"):
            self.options = _checked(url, options)
        self._token = self._comm.bcast(secrets.token_hex(6))
        with collectively(self._comm, f"staging to {self.options.url}"), explained(self.run / FOLDER):
            if self._comm.rank == 0:
                (self.run / FOLDER).mkdir(parents=True, exist_ok=True)
                (self.run / FOLDER / FILE).write_bytes(msgspec.json.encode(self.options))  # for `stage push`
        with collectively(self._comm, f"staging to {self.options.url}"), explained(self.run / FOLDER):
            if self._leads:
                self._start()
            if self._comm.rank == 0:
                self._wait_for_answer()

    # -- the process --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        from hpcframe.staging.uploader import Job

        job = Job(str(self.checkpoints), self.options, self._token, self._node, self._nodes)
        with open(self.run / FOLDER / f"uploader-{self._node}.log", "ab") as log:
            # A session of its own: a Ctrl-C of the terminal's is for the run to decide about.
            process = subprocess.Popen(
                [sys.executable, "-m", "hpcframe.staging.uploader"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
        except OSError:
            process.kill()
            process.wait()
            with suppress(OSError):
                process.stdin.close()
            raise
        self._process, self._started = process, time.monotonic()

    def _start_again(self, code: int) -> None:
        """After pauses that grow as long as it cannot be started."""
        notice = f"the uploader of node {self._node} ended ({code}) and "
        try:
            self._start()
        except OSError as error:
            self._started, self._start_after = time.monotonic(), min(2 * self._start_after, LONGEST_PAUSE)
            self.notices.append(f"{notice}cannot be started: {error}; it is tried again in {self._start_after:g} s")
        else:
            self._start_after = START_AGAIN_AFTER
            self.notices.append(f"{notice}starts again")

    def _wait_for_answer(self) -> None:
        """Raises InputError where S3 refuses. Where it does not answer, the run begins all the same."""
        while time.monotonic() - self._started < ANSWER_WITHIN:
            said = self.state()
            if said and said.ready:
                return
            if said and said.refused:
                self._stop()
                raise InputError(f"[staging]: {said.error}")
            if said and said.error:
                break
            if self._process and self._process.poll() is not None:
                raise HpcframeError(f"the uploader ended at once; {self._log()} says why")
            time.sleep(POLL)
        self.look()

    def _log(self) -> Path:
        return self.run / FOLDER / f"uploader-{self._node}.log"

    def state(self) -> State | None:
        """What the uploader of the first node says of itself; None where it has said nothing yet. Not collective."""
        try:
            said = states.read(self.run)
        except OSError:
            return None
        return said if said and said.token == self._token else None

    def look(self) -> None:
        """Start an uploader that ended again, and take note of what went wrong. Not collective; quick.

        Raises nothing: a machine that is short of memory, say, is no reason for the steps to end.
        """
        now = time.monotonic()
        if self._process and self._process.poll() is not None and now - self._started > self._start_after:
            self._start_again(self._process.returncode)
        if self._comm.rank == 0 and now - self._seen > 1.0:
            self._seen = now
            said = self.state()
            error = said.error or "; ".join(said.left) if said else ""
            if error and error != self._said:
                self.notices.append(f"staging: {error}")
            self._said = error

    def held(self) -> set[int]:
        """Steps whose checkpoints are on their way, and must stay on the disk. Not collective."""
        from hpcframe.staging.holds import held

        return held(self.run)

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self, seconds: float = float("inf"), progress: Callable[[], None] = lambda: None) -> str:
        """Wait until all is in S3, and end the uploaders. Collective.

        Args:
            seconds: at most; rank 0's counts.
            progress: called on rank 0 while something arrives: for a watchdog.

        Returns:
            "" or why not all is there, the same on every rank. It can be pushed later; what was sent is not sent again.
        """
        reason = ""
        if self._comm.rank == 0:
            try:
                reason = self._wait_for_end(seconds, progress)
            except (OSError, HpcframeError) as error:  # all others wait for this rank
                reason = f"not all is in S3: {error}; {REMEDY} {self.run}"
        done = self._comm.Ibarrier()
        while not done.Test():  # without using a core, which uploaders may need
            time.sleep(POLL)
        self._stop()
        return self._comm.bcast(reason)

    def _wait_for_end(self, seconds: float, progress: Callable[[], None]) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        begun, sent = time.monotonic(), -1
        end = begun + seconds
        self._process.stdin.close()
        while self._process.poll() is None:
            said = self.state()
            if said and said.sent != sent:
                sent = said.sent
                progress()
            if time.monotonic() > end or (said and not said.ended and not said.is_alive):
                return f"not all is in S3 after {time.monotonic() - begun:.3g} s; {REMEDY} {self.run}"
            time.sleep(POLL)
        if self._process.returncode == 0:
            return ""
        said = self.state()
        why = said.error if said and said.error else f"the uploader ended with {self._process.returncode}"
        return f"not all is in S3: {why}; {REMEDY} {self.run}"

    def _stop(self) -> None:
        """End this node's uploader."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.stdin and not process.stdin.closed:
            process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def summary(self) -> dict[str, Any]:
        """What summary.json says of it. Not collective."""
        said = self.state()
        kept = ("pushed", "latest", "files", "pending", "sent", "seconds", "error", "failures")
        return {"url": self.options.url} | ({key: getattr(said, key) for key in kept} if said else {})


def _checked(url: str, options: dict[str, Any]) -> Options:
    """Raises InputError."""
    try:
        return msgspec.convert({"url": url, **options} if url else options, Options)
    except (msgspec.ValidationError, ValueError) as error:
        raise InputError(f"staging: {error}") from error
