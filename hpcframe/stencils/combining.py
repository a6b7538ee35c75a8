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


_under_way: set[Combination] = set()


class Combination:
    """The totals of some partial results over all ranks: on their way from the start."""

    def __init__(
        self, comm: MPI.Intracomm, partials: Sequence[tuple[Integers, Integers]], blocking: bool = True
    ) -> None:
        """Collective.

        Args:
            partials: for each term the integers to add, and the pair (key, index) of which the greatest is wanted;
                either is empty where a term does not use it.
            blocking: wait here, which is a little quicker than to wait later.
        """
        sums = np.concatenate([added for added, _ in partials])
        pairs = np.concatenate([pair for _, pair in partials])
        self._partials = partials
        self._message = message = np.concatenate([np.array([len(sums)], np.int64), sums, pairs])
        self._request: MPI.Request | None = None
        if comm.size > 1:
            # One element of a derived type: MPI may cut a row of plain integers into segments, but not an element.
            row = [message, 1, _row_type(len(message))]
            if blocking:
                comm.Allreduce(MPI.IN_PLACE, row, _operation())
            else:
                self._request = comm.Iallreduce(MPI.IN_PLACE, row, _operation())
                _under_way.add(self)  # MPI writes to the message, whether or not anybody still wants it

    def totals(self) -> list[tuple[Integers, Integers]]:
        """For each term, as `partials`. Collective: waits."""
        if self._request:
            self._request.Wait()
            self._request = None
            _under_way.discard(self)
        added, pairs = self._message[1:], self._message[1 + int(self._message[0]) :]
        sums = np.split(added[: int(self._message[0])], np.cumsum([len(one) for one, _ in self._partials])[:-1])
        greatest = np.split(pairs, np.cumsum([len(two) for _, two in self._partials])[:-1])
        return list(zip(sums, greatest, strict=True))


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
