"""The process that brings a run to S3: one on each node, beside the ranks and apart from them.

    python -m hpcframe.staging.uploader        what to do comes as a line of JSON; the end of the input means: finish

As a process of its own it takes neither the interpreter's lock nor the memory of a rank; it gives way to ranks that
compute, and its end does them no harm. It looks at the folder of the run, so nobody has to tell it what is new. The
first node decides what is pushed, and the others send their shares.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from hpcframe.aws import RefusedError
from hpcframe.checkpoint.manifest import BadCheckpointError
from hpcframe.errors import HpcframeError
from hpcframe.staging import state as states
from hpcframe.staging.local import Task
from hpcframe.staging.options import Options
from hpcframe.staging.pushing import Pusher, is_gone, run_of
from hpcframe.staging.state import FOLDER, State
from hpcframe.staging.store import Store
from hpcframe.staging.upload import UPLOADS, DamagedFileError, StoppedError, Traffic, help_with
from hpcframe.staging.url import Location

LOOK_EVERY = 0.5  # s between two looks at the folder
REPORT_EVERY = 0.5  # s
POLL = 0.05  # s
NICENESS = 19  # ranks that compute come first
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # s after a failure, doubled each time
DOUBLINGS = 10  # by then it is the longest
ERRORS = (HpcframeError, BadCheckpointError, OSError)


class Job(msgspec.Struct, frozen=True):
    """What an uploader is told."""

    checkpoints: str  # the folder
    options: Options
    token: str = ""  # of all uploaders of this start of the run
    node: int = 0
    nodes: int = 1


class Uploader:
    """Pushes until it is told to finish, and then until all is pushed.

    Attributes:
        finishing: set where nothing more comes.
        state: what it says of itself.
        failed: called with each error.
    """

    def __init__(self, job: Job, failed: Callable[[str], None] = lambda _: None) -> None:
        """Not collective; nothing is done yet."""
        self.job, self.failed = job, failed
        self.finishing = threading.Event()
        self.traffic = Traffic(job.options.streams, job.options.bandwidth, self._arrived)
        location = Location.parse(job.options.url)
        self.state = State(
            token=job.token, node=job.node, process=os.getpid(), host=platform.node(), url=location.url(),
            push=list(job.options.push),
        )  # fmt: skip
        self.run_folder = run_of(Path(job.checkpoints))
        self._store = Store(location, job.options)
        self._failures = 0
        self._moved = time.monotonic()  # when anything went forward
        self._ending = False  # it was seen that nothing more comes

    def run(self) -> bool:
        """Not collective. Whether all is pushed; otherwise `state.error` says why not."""
        step = self._lead if self.job.node == 0 else self._help
        pusher = Pusher(
            Path(self.job.checkpoints), self.job.options, self._store, self.traffic, self.job.nodes, self.job.token
        )
        pusher.begins = self._begins
        try:
            while not step(pusher):
                self._give_up_in_the_end()
            self.state.finished = not self.state.left
            self.state.error = "; ".join(self.state.left)
        except StoppedError as error:
            self.state.error = self.state.error or str(error)
        finally:
            self.state.ended = True
            with suppress(OSError):  # who comes next lets go of it
                pusher.release()
        return self.state.finished

    def _lead(self, pusher: Pusher) -> bool:
        """One thing more; whether that was all."""
        try:
            if not self.state.ready:
                pusher.begin()
                pusher.probe()
                self.state.ready = True
            finishing = self.finishing.is_set()  # before looking: what came before that is seen
            tasks = self._look(pusher, finishing)
            if tasks:
                self._push(pusher, tasks[0])
                return False
        except StoppedError:
            raise
        except ERRORS as error:
            self._note(error)
            return False
        self._went_well()
        if not finishing:
            self._rest(LOOK_EVERY)
        return finishing

    def _look(self, pusher: Pusher, finishing: bool) -> list[Task]:
        tasks = pusher.pending(finishing)
        self.state.pending, self.state.deferred = [task.name for task in tasks], pusher.deferred
        self.state.left, self.state.looked = pusher.refused(), time.time()
        return tasks

    def _push(self, pusher: Pusher, task: Task) -> None:
        state, begun = self.state, time.monotonic()
        try:
            pusher.push(task)
        finally:
            state.seconds += time.monotonic() - begun
            state.pushed, state.files = pusher.pushed, pusher.files
            state.latest = pusher.latest.name if pusher.latest else ""
        self._moved, state.current = time.monotonic(), ""
        self._went_well()

    def _begins(self, task: Task) -> None:
        self.state.current, self.state.size, self.state.arrived = task.name, task.size, 0

    def _went_well(self) -> None:
        self._failures, self.state.error, self.state.refused = 0, "", False

    def _help(self, _: Pusher) -> bool:
        try:
            found = help_with(
                self._store, self.run_folder / FOLDER / UPLOADS, self.job.token, self.job.node, self.traffic
            )
            self._failures, self.state.ready = 0, True
        except StoppedError:
            raise
        except ERRORS as error:
            self._note(error)
            return False
        if not found and not self.finishing.is_set():
            self._rest(LOOK_EVERY)
        return not found and self.finishing.is_set()

    def _rest(self, seconds: float) -> None:
        self._moved = time.monotonic()
        self._pause(seconds)

    def _note(self, error: Exception) -> None:
        """Say what went wrong, and wait a while: longer each time, and not as long as others that fail now."""
        self._failures += 1
        if is_gone(error):
            self._pause(LOOK_EVERY)
            return
        self.state.failures += 1
        self.state.error, self.state.refused = str(error), isinstance(error, RefusedError | DamagedFileError)
        self.failed(str(error))
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(self._failures - 1, DOUBLINGS))
        self._pause(pause * random.uniform(0.5, 1.0))

    def _pause(self, seconds: float) -> None:
        """Not beyond the moment when nothing more comes: there may be little time then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self._ending or not self.finishing.is_set()):
            self.traffic.pause(POLL)

    def _give_up_in_the_end(self) -> None:
        """Raises StoppedError: nothing has moved for long, and nothing more comes."""
        limit = self.job.options.wait_seconds
        if not self.finishing.is_set():
            return
        if not self._ending:  # S3 may answer by now
            self._ending, self._moved, self._failures = True, time.monotonic(), min(self._failures, 1)
        elif self._failures and time.monotonic() - self._moved > limit:
            raise StoppedError(f"nothing arrived in S3 for {limit:g} s")

    def _arrived(self, count: int) -> None:
        """What S3 had already is no movement: it is found there again at each try."""
        sent = self.traffic.sent
        if sent != self.state.sent:
            self._moved = time.monotonic()
        self.state.arrived += count
        self.state.sent = sent


def main() -> int:
    """What each node runs; the exit code is 0 where all was pushed."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    _give_way()
    uploader = Uploader(job, lambda error: print(time.strftime("%Y-%m-%d %H:%M:%S"), error, flush=True))
    signal.signal(signal.SIGTERM, lambda *_: uploader.traffic.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the run decides
    (uploader.run_folder / FOLDER).mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    reporter = threading.Thread(target=_report, args=(uploader, ended), daemon=True)
    reporter.start()
    threading.Thread(target=_wait_for_end_of_input, args=(uploader,), daemon=True).start()
    try:
        return 0 if uploader.run() else 1
    finally:
        ended.set()
        reporter.join()


def _give_way() -> None:
    """Leave the core of the rank that started this, and let all ranks come first."""
    with suppress(OSError):
        os.nice(NICENESS)
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))  # of these, those that the job may use


def _report(uploader: Uploader, ended: threading.Event) -> None:
    while True:
        last = ended.is_set()
        with suppress(HpcframeError):  # a full disk, say: what is pushed is pushed all the same
            states.write(uploader.run_folder, uploader.state)
        if last:
            return
        ended.wait(REPORT_EVERY)


def _wait_for_end_of_input(uploader: Uploader) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # past the buffer, whose lock a thread that waits would keep for ever
        pass
    uploader.finishing.set()


if __name__ == "__main__":
    sys.exit(main())
