"""Partial results of all ranks combined by one MPI call.

A message is a row of integers: how many are to be added, those, then pairs of which the greatest is kept. Integers
make both operations independent of order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Integers = npt.NDArray[np.int64]


def combine(comm: MPI.Intracomm, partials: Sequence[tuple[Integers, Integers]]) -> list[tuple[Integers, Integers]]:
    """The totals over all ranks, on every rank. Collective.

    Args:
        partials: for each term the integers to add, and the pair (key, index) of which the greatest is wanted;
            either is empty where a term does not use it.
    """
    sums = np.concatenate([added for added, _ in partials])
    pairs = np.concatenate([pair for _, pair in partials])
    message = np.concatenate([np.array([len(sums)], np.int64), sums, pairs])
    if comm.size > 1:
        # One element of a derived type: MPI may cut a row of plain integers into segments, but not an element.
        row = _row_type(len(message))
        comm.Allreduce(MPI.IN_PLACE, [message, 1, row], _operation())
    added = np.split(message[1 : 1 + len(sums)], np.cumsum([len(one) for one, _ in partials])[:-1])
    greatest = np.split(message[1 + len(sums) :], np.cumsum([len(two) for _, two in partials])[:-1])
    return list(zip(added, greatest, strict=True))


@functools.cache
def _row_type(length: int) -> MPI.Datatype:
    return MPI.INT64_T.Create_contiguous(length).Commit()


@functools.cache
def _operation() -> MPI.Op:
    return MPI.Op.Create(_combine_rows, commute=True)


def _combine_rows(incoming: Any, kept: Any, datatype: Any) -> None:
    one, other = np.frombuffer(incoming, np.int64), np.frombuffer(kept, np.int64)
    sums = 1 + int(one[0])
    other[1:sums] += one[1:sums]
    keys, indices = one[sums::2], one[sums + 1 :: 2]
    better = (keys > other[sums::2]) | ((keys == other[sums::2]) & (indices > other[sums + 1 :: 2]))
    other[sums::2][better] = keys[better]
    other[sums + 1 :: 2][better] = indices[better]
