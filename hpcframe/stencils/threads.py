"""Threads of one rank that compute together, for runs with fewer ranks than cores.

They are started once and then wait for work without using a core: a sweep costs them a wake-up of some microseconds.
What they compute they are given beforehand, so results do not depend on their number.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from threading import Lock, Semaphore, Thread

from hpcframe.errors import InputError

VARIABLE = "NUMBA_NUM_THREADS"

Work = Callable[[int], None]


def threads_wanted() -> int:
    """Threads a rank, one unless the user says more. Not collective. Raises InputError where it is no number."""
    text = os.environ.get(VARIABLE, "1")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{VARIABLE}={text}: expected how many threads each rank computes on, at least 1")
    return int(text)


@functools.cache
def team(count: int) -> Threads:
    """The threads of this process, `count` with the one that calls."""
    return Threads(count)


class Threads:
    """Threads that each do a part of some work.

    Attributes:
        count: of threads, that of the caller included.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._work: Work = print
        self._one_at_a_time = Lock()
        self._begin = [Semaphore(0) for _ in range(count - 1)]
        self._end = Semaphore(0)
        self._errors: list[BaseException] = []
        cores = _own_cores(count)
        for member in range(1, count):
            arguments = (member, cores[member] if cores else None)
            Thread(target=self._serve, args=arguments, daemon=True, name=f"hpcframe-{member}").start()

    def _serve(self, member: int, core: int | None) -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})  # of this thread
        while True:
            self._begin[member - 1].acquire()
            self._do(member)
            self._end.release()

    def _do(self, member: int) -> None:
        try:
            self._work(member)
        except BaseException as error:  # raised by run(), in the thread that asked
            self._errors.append(error)

    def run(self, work: Work) -> None:
        """Call work(0), ..., work(count - 1), each in a thread of its own. Not collective.

        Raises:
            The first error of any of them, when all are done.
        """
        with self._one_at_a_time:
            self._work = work
            for begin in self._begin:
                begin.release()
            self._do(0)
            for _ in self._begin:
                self._end.acquire()
            errors, self._errors = self._errors, []
        if errors:
            raise errors[0]


def _own_cores(count: int) -> list[int]:
    """The cores of this rank, if its launcher has given it exactly one for each thread; else the system chooses."""
    if not hasattr(os, "sched_getaffinity"):  # not on macOS
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores if len(cores) == count else []
