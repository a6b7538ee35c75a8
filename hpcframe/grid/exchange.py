"""Halo exchange: planned once, then two calls a step. One message a neighbour carries all fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.errors import HpcframeError
from hpcframe.grid.agreement import collectively
from hpcframe.grid.copying import Copies, Pair, compile_mirror, copy_table
from hpcframe.grid.decomposition import Axes, Block
from hpcframe.grid.halo import Direction, Reads, Transfers, halo_of, plan_transfers, widths
from hpcframe.grid.mailboxes import Mailboxes
from hpcframe.grid.memory import CACHE_LINE
from hpcframe.grid.walls import Walls

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid
    from hpcframe.grid.field import Field

Action = Callable[[], None]


class HaloExchange:
    """Fills the halo of some fields where `reads` reach: `start()`, work that reads no halo, `finish()`.

    Messages of successive exchanges cannot be mistaken for each other: ranks start them in the same order, and
    MPI delivers messages between two ranks in the order in which they were sent.
    """

    def __init__(self, grid: CartesianGrid, reads: Mapping[Field, Reads]) -> None:
        """Collective. Widens halos where they are too narrow.

        Raises:
            InputError: on every rank, where a halo does not fit into the smallest block.
        """
        for field, offsets in reads.items():
            field.widen(halo_of(offsets, grid.ndim))
        self.fields = tuple(reads)
        self._sent: list[int] = []
        self._comm = grid.comm
        self._seconds = grid.seconds
        self._error: Exception | None = None
        # Functions of the user's run on the ranks at the wall only; the cost of asking all is theirs alone.
        self._may_fail = not all(field.boundary.steady for field in self.fields)
        self._state = [(field, field.generation, field.boundary.changes) for field in self.fields]
        self._under_way = self._freed = False
        needed = {field: widths(offsets) for field, offsets in reads.items()}
        self._needed = needed
        plans = {
            field: plan_transfers(grid.decomposition, grid.rank, field.local, needed[field]) for field in self.fields
        }
        self.neighbours = sorted({rank for plan in plans.values() for rank in (*plan.sends, *plan.receives)})
        self._connect(grid, plans)
        self._plan_walls(grid, plans, needed)

    def _connect(self, grid: CartesianGrid, plans: Mapping[Field, Transfers]) -> None:
        incoming = {rank: _Message(plans, rank, sent=False) for rank in self.neighbours}
        outgoing = {rank: _Message(plans, rank, sent=True) for rank in self.neighbours}
        node = grid.shared.node_of_rank
        near = {rank: outgoing[rank].size for rank in self.neighbours if node[rank] == node[grid.rank]}
        self._mailboxes = mailboxes = Mailboxes(grid.shared, near)
        packs: list[list[Pair]] = [[], []]
        unpacks: list[list[Pair]] = [[], []]
        for rank in mailboxes.neighbours:
            for turn in (0, 1):
                packs[turn] += outgoing[rank].pairs(mailboxes.outgoing(rank, turn))
                unpacks[turn] += [(to, at) for at, to in incoming[rank].pairs(mailboxes.incoming(rank, turn))]
        self._requests = []
        far: list[list[Pair]] = [[], []]
        for rank in sorted({*self.neighbours} - {*mailboxes.neighbours}):
            arriving, leaving = incoming[rank].buffer(), outgoing[rank].buffer()
            self._requests += [grid.comm.Recv_init(arriving, rank), grid.comm.Send_init(leaving, rank)]
            far[0] += outgoing[rank].pairs(leaving)
            far[1] += [(to, at) for at, to in incoming[rank].pairs(arriving)]
        copies = [(_region(f, to), _region(f, at)) for f, plan in plans.items() for to, at in plan.copies]
        self._packs = [copy_table(pairs) for pairs in packs]
        self._unpacks = [copy_table(pairs) for pairs in unpacks]
        self._pack, self._unpack = (Copies(pairs, grid.shared) for pairs in far)
        self._copy = Copies(copies, grid.shared)
        self._number = 0  # of the latest exchange

    def _plan_walls(
        self,
        grid: CartesianGrid,
        plans: Mapping[Field, Transfers],
        needed: Mapping[Field, Mapping[Direction, Axes]],
    ) -> None:
        """Regions beyond walls are filled at once, except corners that mirror what a neighbour sends."""
        self._pins: list[Action] = []
        self._early: list[Action] = []
        self._late: list[Action] = []
        for field, plan in plans.items():
            compiled = compile_mirror(field.dtype, grid.shared)
            regions = [(direction, needed[field][direction]) for direction in plan.edges]
            late = [region for region in regions if _beside_neighbour(grid, region[0])]
            early = [region for region in regions if region not in late]
            for chosen, filled in ((early, self._early), (late, self._late)):
                walls = Walls(field, chosen, compiled)
                filled += [walls.fill] if chosen else []
                self._pins += [walls.pin] if walls.has_pins and filled is self._early else []

    @property
    def under_way(self) -> bool:
        """Started and not finished."""
        return self._under_way

    @property
    def current(self) -> bool:
        """Whether it can be used: the fields have the memory and the boundaries this was planned for."""
        if self._freed:
            return False
        for field, generation, changes in self._state:  # in every step: quicker than all(...)
            if field.generation != generation or field.boundary.changes != changes:
                return False
        return True

    def start(self) -> None:
        """Send, and fill what needs no message. Collective. Raises HpcframeError if started already."""
        if self._under_way:
            raise HpcframeError(f"{self} was started twice: call finish() before it is started again")
        if not self.current:
            raise HpcframeError(f"{self}: a halo grew or a boundary changed since it was planned; plan it again")
        self._under_way = True
        begin = perf_counter()
        self._sent = [field.sent() for field in self.fields]
        if self._pins:
            self._guarded(self._pins)
        self._send()
        self._copy()
        if self._early:
            self._guarded(self._early)
        self._seconds["pack"] += perf_counter() - begin

    def _send(self) -> None:
        self._number += 1
        if self._mailboxes.neighbours:
            self._mailboxes.send(self._number, self._packs[self._number % 2], self.progress)
        if self._requests:
            self._pack()
            MPI.Prequest.Startall(self._requests)

    def progress(self) -> None:
        """Let MPI go on with the messages, while there is something else to do. Not collective."""
        if self._requests:
            MPI.Prequest.Testall(self._requests)
        else:  # there may be others, of the user's own
            self._comm.Iprobe()

    def finish(self) -> None:
        """Wait for the messages and fill the rest. Collective. Raises HpcframeError if it was not started."""
        if not self._under_way:
            raise HpcframeError(f"{self} was not started: call start() before finish()")
        self._under_way = False
        begin = perf_counter()
        if self._mailboxes.neighbours:
            self._mailboxes.wait(self._number, self.progress)
        if self._requests:
            MPI.Prequest.Waitall(self._requests)
        arrived = perf_counter()
        if not self.current:
            raise HpcframeError(
                f"{self}: a halo grew, a boundary changed or it was freed while messages were under way"
            )
        self._receive()
        if self._late:
            self._guarded(self._late)
        if self._may_fail:
            with collectively(self._comm, f"filling the halo beyond a wall in {self}"):
                self._raise_kept()
        for field, sent in zip(self.fields, self._sent, strict=True):
            field.exchanged(self._needed[field], sent)
        self._seconds["wait"] += arrived - begin
        self._seconds["pack"] += perf_counter() - arrived

    def _receive(self) -> None:
        if self._mailboxes.neighbours:
            self._mailboxes.receive(self._number, self._unpacks[self._number % 2])
        if self._requests:
            self._unpack()

    def _guarded(self, actions: Sequence[Action]) -> None:
        """Do what may call functions of the user's; the first error is kept until all ranks can learn of it."""
        try:
            for action in actions:
                action()
        except Exception as error:  # raised by finish(), on every rank
            self._error = self._error or error

    def _raise_kept(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error

    def free(self) -> None:
        """Release the requests; it can be used no more. Not collective."""
        for request in self._requests:
            request.Free()
        self._requests = []
        self._freed = True

    def __str__(self) -> str:
        return f"the halo exchange of {', '.join(repr(field.name) for field in self.fields)}"


class _Message:
    """All that goes to, or comes from, a rank in one exchange.

    Attributes:
        size: bytes.
    """

    def __init__(self, plans: Mapping[Field, Transfers], rank: int, sent: bool) -> None:
        blocks = [(f, block) for f, p in plans.items() for block in (p.sends if sent else p.receives).get(rank, [])]
        self._regions = [_region(field, block) for field, block in blocks]
        # Whole cache lines a part: every part is aligned, whatever the dtype of the one before.
        self._sizes = [-(-region.nbytes // CACHE_LINE) * CACHE_LINE for region in self._regions]
        self.size = sum(self._sizes)

    def buffer(self) -> npt.NDArray[np.uint8]:
        """Memory for it."""
        return np.zeros(self.size, np.uint8)

    def pairs(self, buffer: npt.NDArray[np.uint8]) -> list[Pair]:
        """Each part: its place in a buffer, and the region of a field."""
        begins = accumulate(self._sizes, initial=0)
        parts = zip(self._regions, begins, strict=False)
        return [(buffer[at : at + r.nbytes].view(r.dtype).reshape(r.shape), r) for r, at in parts]


def _region(field: Field, block: Block) -> npt.NDArray:
    """A block of the local array as four axes: components, then axes, missing ones of length one."""
    missing = (slice(0, 1),) * (3 - field.grid.ndim)
    return field.four_axes[(slice(None), *missing, *block)]


def _beside_neighbour(grid: CartesianGrid, direction: Direction) -> bool:
    """Whether the region beyond a wall mirrors cells that a neighbour sends."""
    inside = [
        0 if not grid.periodic[axis] and not 0 <= grid.coordinates[axis] + sign < grid.layout[axis] else sign
        for axis, sign in enumerate(direction)
    ]
    return any(inside) and grid.decomposition.neighbour(grid.rank, inside) != grid.rank
