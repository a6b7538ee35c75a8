"""A watchdog: when no rank makes progress any more, one report says which is stuck and where, and the job ends.

A thread of each rank looks at its main thread and writes what it sees into a small file in a hidden folder. It calls
no MPI, which may be what hangs, and uses files in a thread of their own, as a file system may hang too. The first rank
that has seen no progress for long enough reads the files of all, twice. A file that stays the same is of a rank that
does not answer; one that shows progress calls the report off. The others end once the report is out.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from mpi4py import MPI

from hpcframe.errors import HpcframeError
from hpcframe.files import write_text
from hpcframe.simulation.failure import FAILED
from hpcframe.simulation.stall import (
    RankState,
    describe_alone,
    describe_stack,
    describe_stall,
    waits_for_others,
)
from hpcframe.simulation.states import StateFiles

SHORTEST, LONGEST = 0.1, 5.0  # s between two wake-ups of the thread
SLACK = 1.0  # s that a busy machine or file system may delay one
GIVEN_UP = 30.0  # s that a rank waits for another's report
FORWARDING = 0.5  # s for the launcher to pass a report on, before it sees a rank end and ends all
ABORTING = 5.0  # s for MPI to end ranks that cannot end themselves
NAME = "hpcframe-watchdog"  # of its threads


class Watchdog:
    """Ends the job with exit code 1 and a report when no rank has made progress for a set time.

    The report goes to standard error and to `<directory>/stalled.txt`. Time that the process or the machine was
    suspended does not count.
    """

    def __init__(self, directory: Path, comm: MPI.Intracomm, patience: float) -> None:
        """Begin to watch the thread that calls. Collective.

        Args:
            directory: an existing folder that all ranks see.
            comm: all ranks of the job.
            patience: time without progress that is a stall (s): longer than the longest phase. 0 never ends a job.

        Raises:
            InputError: on every rank, where one cannot write to the folder.
        """
        self.patience = patience
        self._beats, self._phase = 0, "starting"
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if patience <= 0:
            return
        self._comm, self._rank = comm, comm.rank
        self._hosts: list[str] = comm.allgather(MPI.Get_processor_name())
        self._report = directory / "stalled.txt"
        self._watched = threading.get_ident()
        self._interval = min(max(patience / 10, SHORTEST), LONGEST)
        self._window = 2 * self._interval + SLACK  # within it every rank that can run has written its file
        self._seen, self._idle, self._wake_ups = 0, 0.0, 0
        self._reporter, self._waited = "", 0.0
        self._errand: threading.Thread | None = None
        self._files = StateFiles(directory, comm, self._state())
        self._thread = threading.Thread(target=self._watch, name=NAME, daemon=True)
        self._thread.start()

    def enter(self, phase: str) -> None:
        """Say that this rank makes progress, and what it does next, as in "step 1200". Not collective, and cheap."""
        self._phase = phase
        self.progress()

    def progress(self) -> None:
        """Say that this rank makes progress in its phase. Not collective, and cheap."""
        self._beats += 1

    def close(self) -> None:
        """Watch no longer. Not collective; the last rank removes the hidden folder."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(self._window)
            self._thread = None
            self._files.close()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            self._look(now - last)
            last = now
            reachable = self._attempt(self._tell, self._interval + SLACK)
            if self._idle < self.patience:
                self._waited = 0.0
                continue
            self._waited += self._interval
            if reachable:
                self._attempt(self._report_together, self._window + GIVEN_UP)
            if self._waited > (GIVEN_UP if reachable else self._window):
                self._end_alone()

    def _look(self, elapsed: float) -> None:
        """Count the time without progress, as far as this thread was awake in it."""
        self._wake_ups += 1
        self._idle += min(elapsed, 2 * self._interval)
        if self._seen != self._beats:
            self._seen, self._idle = self._beats, 0.0

    def _attempt(self, action: Callable[[], None], seconds: float) -> bool:
        """Do something with files, unless what was begun before hangs still. Whether it was done in time."""
        if self._errand is not None and self._errand.is_alive():
            return False
        done = threading.Event()

        def errand() -> None:
            with suppress(OSError, HpcframeError):  # a rank that cannot use the files reports alone
                action()
                done.set()

        self._errand = threading.Thread(target=errand, name=NAME, daemon=True)
        self._errand.start()
        self._errand.join(seconds)
        return done.is_set()

    def _state(self, sources: bool = True) -> RankState:
        frames = sys._current_frames() if self._idle > self.patience / 2 else {}
        frame = frames.get(self._watched)
        threads = [
            line
            for thread in threading.enumerate()
            if thread.ident in frames and thread.ident != self._watched and thread.name != NAME
            for line in (f"and its thread {thread.name} in", *describe_stack(frames[thread.ident], sources))
        ]
        return RankState(
            rank=self._rank,
            host=self._hosts[self._rank],
            phase=self._phase,
            beats=self._beats,
            idle=self._idle,
            wake_ups=self._wake_ups,
            stack=describe_stack(frame, sources),
            threads=tuple(threads),
            waits=sources and frame is not None and waits_for_others(frame),
        )

    def _tell(self) -> None:
        """Write this rank's file; where the files were removed because the report is out, end."""
        try:
            self._files.write(self._state())
        except OSError:
            if self._files.token in self._report.read_text(encoding="utf-8"):
                os._exit(FAILED)
            raise

    def _report_together(self) -> None:
        """Report for all ranks and end the job, unless another rank does so already or one makes progress."""
        own = f"{self._rank} {self._wake_ups}"
        reporter = self._files.claim_report(own)
        if reporter != self._reporter:
            self._reporter, self._waited = reporter, 0.0
        if reporter != own:
            return
        try:
            before = self._files.read()
            if not self._closed.wait(self._window):
                self._judge(before, self._files.read())
        finally:
            self._files.leave_report()

    def _judge(self, before: dict[int, RankState], after: dict[int, RankState]) -> None:
        after[self._rank] = self._state()
        before.pop(self._rank, None)  # this rank's own wake-ups pause meanwhile
        states = [_compared(rank, host, before, after) for rank, host in enumerate(self._hosts)]
        idle = min(state.idle for state in states if state.answers)
        if idle < self.patience:
            self._idle = idle
        elif self._seen == self._beats:
            self._end_together(states)

    def _end_together(self, states: list[RankState]) -> None:
        text = describe_stall(states, self.patience)
        stamp = f"{datetime.now().astimezone().isoformat(timespec='seconds')}, watchdog {self._files.token}\n"
        with suppress(HpcframeError):  # then the others do not see it, and end by themselves
            write_text(self._report, text + stamp)
        _say(text)
        with suppress(OSError):
            self._files.remove()
        if not all(state.answers for state in states) and MPI.Query_thread() == MPI.THREAD_MULTIPLE:
            # Not every launcher ends the ranks that cannot end themselves when others do.
            threading.Thread(target=self._comm.Abort, args=(FAILED,), daemon=True).start()
            time.sleep(ABORTING)
        os._exit(FAILED)

    def _end_alone(self) -> None:
        if self._seen == self._beats and not self._closed.is_set():
            text = describe_alone(self._state(sources=False), self.patience)  # reading a source may hang too
            threading.Thread(target=_say, args=(text,), daemon=True).start()
            time.sleep(self._window)  # until others in the same position have said it too
            os._exit(FAILED)


def _compared(rank: int, host: str, before: dict[int, RankState], after: dict[int, RankState]) -> RankState:
    """The state of a rank from its file at two times; a file that is gone was removed when the rank was done."""
    if rank not in after:
        return RankState(rank, host, "has left the time loop", idle=float("inf"))
    old, new = before.get(rank), after[rank]
    return new if old is None or old.wake_ups != new.wake_ups else msgspec.structs.replace(new, answers=False)


def _say(text: str) -> None:
    """To standard error, past Python's buffers: the main thread may hold their locks."""
    data = text.encode()
    while data:
        data = data[os.write(2, data) :]
    time.sleep(FORWARDING)
