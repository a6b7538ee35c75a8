"""Threads of a rank: who computes what, and what happens when one of them fails."""

import math
import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpcframe as hf
from hpcframe.stencils import regions
from hpcframe.threads import VARIABLE, Threads, team, threads_wanted


def test_an_error_of_one_thread_is_raised_when_all_are_done_and_the_team_works_on():
    done = []

    def work(member):
        done.append(member)
        if member == 1:
            raise ValueError("thread 1")

    with pytest.raises(ValueError, match="thread 1"):
        team().run(work, 3)
    assert sorted(done) == [0, 1, 2]
    team().run(done.append, 3)
    assert sorted(done) == [0, 0, 1, 1, 2, 2]


def test_an_interruption_is_raised_when_nobody_computes_any_more():
    done = []

    def work(member):
        if member:
            time.sleep(0.5)
            done.append(member)

    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        team().run(work, 3)
    assert sorted(done) == [1, 2]
    team().run(done.append, 2)
    assert sorted(done) == [0, 1, 1, 2]


def test_a_child_process_has_threads_of_its_own():
    team().run(lambda member: None, 2)
    child = os.fork()
    if not child:
        done = []
        team().run(done.append, 2)
        os._exit(len(done))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux binds threads to cores")
def test_threads_stay_on_a_core_each_if_there_is_one_for_each_and_leave_the_caller_where_it_was():
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core: nothing to choose")
    held = {}

    def work(member):
        held[member] = os.sched_getaffinity(0)

    own = Threads()
    own.run(work, len(cores))
    assert [held[member] for member in range(len(cores))] == [{core} for core in sorted(cores)]
    assert os.sched_getaffinity(0) == cores
    other = Threads()
    other.run(work, len(cores) + 1)  # more threads than cores: the system chooses
    assert all(where == cores for where in held.values())


@pytest.mark.parametrize("wrong", ["0", "two", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(wrong):
    with pytest.raises(hf.InputError, match=f"{VARIABLE}={wrong}: expected how many threads"):
        threads_wanted(wrong)


sides = st.tuples(st.integers(0, 30), st.integers(1, 40)).map(lambda side: (side[0], side[0] + side[1]))
boxes = st.integers(1, 3).flatmap(lambda ndim: st.lists(st.tuples(*[sides] * ndim), max_size=3))


@given(boxes, st.integers(1, 5), st.booleans())
def test_every_point_is_in_one_piece_of_one_thread(boxes, threads, with_messages):
    least = regions.LEAST_OF_THREAD, regions.LEAST_OF_PIECE
    try:
        regions.LEAST_OF_THREAD, regions.LEAST_OF_PIECE = 100, 30  # so that boxes of a test are large
        held = regions.shares(boxes, threads, with_messages)
    finally:
        regions.LEAST_OF_THREAD, regions.LEAST_OF_PIECE = least
    points = sum(math.prod(end - begin for begin, end in box) for box in boxes)
    assert 1 <= len(held) <= max(1, min(threads, points // 100))
    pieces = [piece for share in held for piece in share]
    for box in boxes:
        count = np.zeros([70] * len(box), int)
        for piece in pieces:
            inside = all(b <= begin and end <= e for (begin, end), (b, e) in zip(piece, box, strict=True))
            count[tuple(slice(begin, end) for begin, end in piece)] += inside
        assert (count[tuple(slice(begin, end) for begin, end in box)] >= 1).all()
    assert sum(math.prod(end - begin for begin, end in piece) for piece in pieces) == points


@pytest.mark.mpi
def test_sweeps_have_the_same_bits_on_any_number_of_threads(comm, monkeypatch):
    @hf.stencil
    def smooth(v, u):
        v[0, 0, 0] = 0.1 * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0]) + u[0, 0, -1] / 3.0

    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv(VARIABLE, threads)
        grid = hf.Grid((64, 64, 50), comm=comm)
        u, v = grid.fields("u", "v")
        u.fill(lambda x, y, z: np.sin(20 * x) + y * np.cos(30 * z))
        smooth(v, u)
        reduced = grid.reduce(("sum", u), ("norm2", v), ("argmax", u), ("min", v))
        results.append((v.interior.copy(), reduced))
    for field, reduced in results[1:]:
        assert np.array_equal(results[0][0], field)
        assert results[0][1] == reduced
