"""Threads of one rank that compute together, for runs with fewer ranks than cores.

They are started once and then wait for work without using a core: a sweep costs them a wake-up of some microseconds.
What they compute they are given beforehand, so results do not depend on their number.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from hpcframe.errors import InputError

VARIABLE = "NUMBA_NUM_THREADS"

Work = Callable[[int], None]


def threads_wanted(text: str | None) -> int:
    """Threads a rank, from the text of `VARIABLE`; one where there is none. Not collective.

    Raises:
        InputError: it is no such number.
    """
    if not text:
        return 1
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{VARIABLE}={text}: expected how many threads each rank computes on, at least 1")
    return int(text)


@functools.cache
def team() -> Threads:
    """The threads of this process."""
    return Threads()


os.register_at_fork(after_in_child=team.cache_clear)  # a child has none of its parent's threads


class Threads:
    """Threads that each do a part of some work. They are started when they are needed for the first time."""

    def __init__(self) -> None:
        self._one_at_a_time = Lock()
        self._work: Work | None = None
        self._number = 0  # of the latest work
        self._begin: list[Event] = []  # for each thread but the caller's
        self._end: list[Event] = []
        self._errors: list[BaseException] = []
        self._cores: list[int] = []  # of each thread, where each has one; the caller's first

    def run(self, work: Work, count: int) -> None:
        """Call work(0), ..., work(count - 1), each in a thread of its own, the first in this one. Not collective.

        Raises:
            The first error of any of them, or an interruption, when all are done.
        """
        with self._one_at_a_time:
            self._start(count - 1)
            self._work, self._number = work, self._number + 1
            for end in self._end:
                end.clear()
            _stay_on(self._cores[:1])
            self._insist(Event.set, self._begin[: count - 1])
            self._do(work, 0)
            self._insist(Event.wait, self._end[: count - 1])
            _stay_on(self._cores)  # the caller may start threads of other purposes, which inherit where it may be
            self._work = None
            errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    def _insist(self, action: Callable[[Event], object], events: Sequence[Event]) -> None:
        """Do what may be done twice, until it is done: Ctrl-C must not leave a thread that writes to fields."""
        while True:
            try:
                for event in events:
                    action(event)
                return
            except BaseException as error:  # raised by run(), once all are done
                self._errors.append(error)

    def _start(self, others: int) -> None:
        if len(self._begin) < others:
            self._cores = _own_cores(others + 1)
        while len(self._begin) < others:
            self._begin.append(Event())
            self._end.append(Event())
            member = len(self._begin)
            arguments = (member, self._number, self._cores[member : member + 1])
            Thread(target=self._serve, args=arguments, daemon=True, name=f"hpcframe-{member}").start()

    def _serve(self, member: int, done: int, core: list[int]) -> None:
        _stay_on(core)
        while True:
            self._begin[member - 1].wait()
            self._begin[member - 1].clear()
            if self._number > done and self._work:  # else told twice
                done = self._number
                self._do(self._work, member)
                self._end[member - 1].set()

    def _do(self, work: Work, member: int) -> None:
        try:
            work(member)
        except BaseException as error:  # raised by run(), in the thread that asked
            self._errors.append(error)


def _stay_on(cores: Sequence[int]) -> None:
    """Bind the calling thread to some cores; where they are not known, leave it to the system."""
    if cores:
        os.sched_setaffinity(0, cores)


def _own_cores(count: int) -> list[int]:
    """The cores of this rank, if its launcher has given it exactly one for each thread; else the system chooses."""
    if not hasattr(os, "sched_getaffinity"):  # not on macOS
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores if len(cores) == count else []
