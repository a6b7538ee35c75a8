"""How many steps are done at once, and how the wavefront is cut. Of no influence on results.

The first guess is the deepest front that a core's share of the cache holds: the more steps in one pass, the less is
moved from memory. Then the steps of the run itself are done in several ways, one after the other, and timed; the
fastest stays, and is remembered in the cache folder for this kind of CPU, stencil and block. No step is done twice for
it. All ranks decide from the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import llvmlite.binding
from mpi4py import MPI

from hpcframe.compilation import keep, kept
from hpcframe.errors import InputError
from hpcframe.stencils.caches import bytes_of_front, cache_of_a_core

if TYPE_CHECKING:
    from hpcframe.grid.field import Field

VARIABLE = "HPCFRAME_TIME_BLOCK"  # "depth,planes,rows", or 0: one step after another
SHARE = 4  # of the smallest block, at most, that is computed beyond it
LEAST_BYTES = 2**20  # of one field on each rank: below, all is in the cache anyway
PREFIX = "front-"  # of files that remember
TRIALS = 2  # of each way, of which the faster counts: the first one may be of cold memory


class Front(NamedTuple):
    """A wavefront: steps, planes of the first axis and rows of the second that are computed at once. One step: none."""

    depth: int
    planes: int
    rows: int


NONE = Front(1, 0, 0)
# By axes of the grid.
FRONTS = {
    2: (Front(8, 8, 1), Front(32, 8, 1), Front(16, 16, 1), Front(16, 32, 1), Front(8, 32, 1), Front(4, 8, 1)),
    3: (
        Front(8, 2, 64), Front(16, 2, 128), Front(16, 2, 64), Front(8, 4, 128), Front(8, 4, 64), Front(8, 2, 32),
        Front(4, 2, 64),
    ),
}  # fmt: skip
FAR_TOO_MUCH = 8  # times the cache: then it is not tried
BANDS_A_THREAD = 2  # at least: threads that do bands in turn wait little, and end at about the same time
LEAST_OF_BAND = 16
LONGEST = 32  # steps


def given_front(text: str | None) -> Front | None:
    """What the user says in `VARIABLE`. Not collective. Raises InputError where it is not understood."""
    if not text:
        return None
    if text == "0":
        return NONE
    numbers = text.split(",")
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
        raise InputError(f"{VARIABLE}={text}: expected depth,planes,rows, three numbers of at least 1, or 0")
    return Front(*map(int, numbers))


def candidates(evolving: Sequence[Field], levels: int, reach: int, threads: int = 1) -> list[Front]:
    """Ways that fit these blocks, the first guess first. Not collective; the same on all machines that are alike.

    Args:
        levels: time levels: depths are multiples, so that fields have the same roles in each pass.
        reach: how far the stencil reads along any axis.
        threads: that share the bands of a rank.
    """
    grid, size = evolving[0].grid, evolving[0].dtype.itemsize
    smallest = grid.decomposition.smallest
    if not grid.time_blocking or grid.ndim == 1 or math.prod(smallest) * size < LEAST_BYTES:
        return [NONE]
    cut = [count for axis, count in enumerate(smallest) if grid.periodic[axis] or grid.layout[axis] > 1]
    deepest = int(min((count // SHARE // max(reach, 1) for count in cut), default=LONGEST))
    widest = smallest[grid.ndim - 2] // (BANDS_A_THREAD * threads if threads > 1 else 1)
    thin = [_thin(front, grid.ndim, max(LEAST_OF_BAND, widest)) for front in FRONTS[grid.ndim]]
    fronts = {front._replace(depth=min(front.depth, deepest) // levels * levels) for front in thin}
    room, of_all = cache_of_a_core(), size * sum(math.prod(field.components) for field in evolving)
    cost = {front: bytes_of_front(*front, reach, smallest, of_all) for front in fronts if front.depth > 1}
    order = sorted(cost, key=lambda front: (cost[front] > room, -front.depth, cost[front]))
    return [*(front for front in order if cost[front] <= FAR_TOO_MUCH * room), NONE]


def _thin(front: Front, ndim: int, widest: int) -> Front:
    """With bands that are not wider: of rows in three dimensions, of planes in two."""
    if ndim == 3:
        return front._replace(rows=min(front.rows, widest))
    return front._replace(planes=min(front.planes, widest))


class Search:
    """Finds the fastest way to do the steps of one stencil on one grid, while they are done.

    Attributes:
        found: whether that is over; `front` is the best one then.
        when_found: called then. Collective.
    """

    current, under_way = True, False

    def __init__(
        self, comm: MPI.Intracomm, name: str, fronts: Sequence[Front], about: Mapping[str, Any] | None = None
    ) -> None:
        """Collective.

        Args:
            name: says which stencil on which blocks this is; `about` says so to people.
        """
        self._comm = comm
        self._fronts = fronts = comm.bcast(list(fronts))  # nodes may differ in their caches
        self._about = dict(about or {})
        self.when_found: Callable[[], None] = lambda: None
        self._seconds: dict[Front, list[float]] = {front: [] for front in fronts}
        self._file = f"{PREFIX}{_digest(name)}.json"
        known = comm.bcast(_remembered(self._file, fronts) if comm.rank == 0 else None)
        self.front = known or self._fronts[0]
        self.found = known is not None or len(fronts) == 1

    def free(self) -> None:
        """Nothing is held but memory."""

    def depth(self, left: int, levels: int) -> int:
        """Steps to do at once where so many are left: whole turns of the levels, at least one step. Not collective."""
        return max(1, min(self.front.depth, left // levels * levels))

    def record(self, seconds: float) -> None:
        """What a step took in the way that `front` says; choose the next way. Collective until it is found."""
        if self.found:
            return
        slowest = self._comm.allreduce(seconds, MPI.MAX)
        self._seconds[self.front].append(slowest)
        waiting = [front for front in self._fronts if len(self._seconds[front]) < TRIALS]
        if waiting:
            self.front = self.front if self.front in waiting else waiting[0]
            return
        self.found, self.front = True, min(self._fronts, key=lambda front: min(self._seconds[front]))
        if self._comm.rank == 0:
            self._remember()
        self.when_found()

    def _remember(self) -> None:
        gain = min(self._seconds[NONE]) / min(self._seconds[self.front])
        content = json.dumps({**self._about, "front": self.front, "over_one_by_one": round(gain, 2)})
        with suppress(OSError):  # the next run searches again; compiling has said already why nothing is kept
            keep(self._file, content.encode())


def _digest(name: str) -> str:
    return sha256(f"{llvmlite.binding.get_host_cpu_name()}\n{name}".encode()).hexdigest()[:32]


def _remembered(file: str, fronts: Sequence[Front]) -> Front | None:
    """What an earlier run found, if it is one of the ways that are possible here."""
    try:
        front = Front(*json.loads(kept(file) or b"{}")["front"])
    except (ValueError, KeyError, TypeError):  # not there, or not whole: it is searched again
        return None
    return front if front in fronts else None
