"""Halos between ranks of one node, without MPI: a rank packs into memory that its neighbour unpacks from.

Every rank writes to memory of its own only, a mailbox, which its neighbours can read. A mailbox has two buffers for
each neighbour, used in turn, so that a rank may pack its next message while the neighbour still reads the one before.
Two numbers for each neighbour say how many messages were sent to it, and how many of its own were taken.

The memory is a file without a name (Linux memfd), which goes when nobody maps it any more: nothing is left behind by a
rank that is killed, no limit of /dev/shm applies, and nobody has to agree on the end of its use, as on that of a window
of MPI. docs/performance.md compares memory that both see with messages.
"""

from __future__ import annotations

import ctypes
import inspect
import mmap
import os
import secrets
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.compilation import compile_once_a_node, source_of
from hpcframe.grid import flags
from hpcframe.grid.communicator import Communicator
from hpcframe.grid.copying import COLUMNS, COPYING, copy_all
from hpcframe.grid.flags import APART, all_reached, set_all

VARIABLE = "HPCFRAME_SHARED_HALOS"  # 0: messages of MPI between ranks of a node, too
LOOKS = 20_000  # before MPI gets the chance to go on with other messages, and Python to handle a signal
TOKEN = 16  # bytes that prove that what was opened is what was meant
HEADER = APART  # bytes before the numbers
NOTHING = np.zeros((0, COLUMNS), np.int64)  # to copy
NOBODY = np.zeros(0, np.int64)  # to tell
SIGNATURE = "boolean(int64[::1], int64, int64, int64[:, ::1], int64[::1], int64)"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
FAILED = ctypes.c_void_p(-1).value  # what mmap returns then

Bytes = npt.NDArray[np.uint8]
Table = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Place:
    """Where a mailbox is, and what is where in it: the same on every rank that hears of it.

    Attributes:
        path: how another process opens it.
        token: that it begins with.
        slots: for each neighbour, by rank, the number of its slot.
        buffers: for each neighbour where its two buffers begin, and their bytes.
    """

    path: str
    token: bytes
    slots: dict[int, int]
    buffers: dict[int, tuple[int, int]]

    def sent(self, rank: int) -> int:
        """Where the number of messages to a neighbour is."""
        return HEADER + 2 * self.slots[rank] * APART

    def taken(self, rank: int) -> int:
        """Where the number of messages taken from a neighbour is."""
        return self.sent(rank) + APART


class Mailboxes:
    """Those of this rank and of its neighbours on the node. Made anew for each plan of an exchange.

    Attributes:
        neighbours: the ranks that it serves; none where ranks of this node cannot map each other's memory.
    """

    def __init__(self, shared: Communicator, sizes: Mapping[int, int]) -> None:
        """Collective.

        Args:
            sizes: for each neighbour on this node the bytes that it is sent.
        """
        self.neighbours = sorted(sizes)
        if shared.node.size == 1:
            return
        place = _laid_out({rank: sizes[rank] for rank in self.neighbours})
        file = -1
        try:
            self._own, file = _make(place)
            self._places = dict(shared.node.allgather((shared.comm.rank, _reachable(place, file))))
            self._theirs = {rank: _open(self._places[rank]) for rank in self.neighbours}
            fine = self._own is not None and all(memory is not None for memory in self._theirs.values())
            fine = shared.node.allreduce(fine, MPI.LAND)  # nobody closes its file before all have opened it
        finally:
            if file >= 0:
                os.close(file)
        if fine:
            self._connect(shared)
        else:
            self.neighbours = []

    def _connect(self, shared: Communicator) -> None:
        own, me = self._places[shared.comm.rank], shared.comm.rank
        here = _addresses(self._own)
        self._sent = np.array([here + own.sent(rank) for rank in self.neighbours], np.int64)
        self._taken = np.array([here + own.taken(rank) for rank in self.neighbours], np.int64)
        there = {rank: _addresses(self._theirs[rank]) for rank in self.neighbours}
        self._arrived = np.array([there[rank] + self._places[rank].sent(me) for rank in self.neighbours], np.int64)
        self._free = np.array([there[rank] + self._places[rank].taken(me) for rank in self.neighbours], np.int64)
        self._transfer = compile_transfer(shared.node)
        self._me = me

    def outgoing(self, rank: int, turn: int) -> Bytes:
        """The buffer for messages to a neighbour, of the even (0) or odd (1) ones."""
        return _buffer(self._own, self._places[self._me].buffers[rank], turn)

    def incoming(self, rank: int, turn: int) -> Bytes:
        """The buffer of messages from a neighbour."""
        return _buffer(self._theirs[rank], self._places[rank].buffers[self._me], turn)

    def send(self, number: int, copies: Table, meanwhile: Callable[[], None]) -> None:
        """Pack a message, when the one before the last was taken. Messages are numbered from 1.

        Args:
            copies: into the buffers of its turn, as `copy_table` makes them.
            meanwhile: called now and then while waiting.
        """
        while not self._transfer(self._free, number - 2, LOOKS, copies, self._sent, number):
            meanwhile()

    def wait(self, number: int, meanwhile: Callable[[], None]) -> None:
        """Until this message of every neighbour is there."""
        while not self._transfer(self._arrived, number, LOOKS, NOTHING, NOBODY, number):
            meanwhile()

    def receive(self, number: int, copies: Table) -> None:
        """Unpack a message that is there."""
        self._transfer(self._arrived, number, LOOKS, copies, self._taken, number)


def compile_transfer(node: MPI.Intracomm) -> Callable[..., bool]:
    """_transfer, to be called from Python. Collective over `node`."""
    identity = COPYING + inspect.getsource(flags) + source_of(_transfer)
    return compile_once_a_node(_transfer, SIGNATURE, node, identity)


def _transfer(after, reached, looks, table, then, number):  # type: ignore[no-untyped-def]  # compiled
    """Copy when all numbers at `after` have reached one, and set those at `then`; whether so many looks were enough."""
    if not all_reached(after, reached, looks):
        return False
    copy_all(table)
    set_all(then, number)
    return True


def _laid_out(sizes: Mapping[int, int]) -> _Place:
    """Slots and buffers of a mailbox; buffers on pages of their own, so that none is near to two ranks."""
    slots = {rank: number for number, rank in enumerate(sizes)}
    begin = -(-(HEADER + 2 * len(sizes) * APART) // mmap.PAGESIZE) * mmap.PAGESIZE
    buffers = {}
    for rank, size in sizes.items():
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        buffers[rank] = (begin, whole)
        begin += 2 * whole
    return _Place("", secrets.token_bytes(TOKEN), slots, buffers)


def _make(place: _Place) -> tuple[Bytes | None, int]:
    """Memory for a mailbox and the file that it is; None and -1 where that is not possible."""
    end = max((begin + 2 * size for begin, size in place.buffers.values()), default=mmap.PAGESIZE)
    if os.environ.get(VARIABLE) == "0" or not hasattr(os, "memfd_create"):
        return None, -1
    try:
        file = os.memfd_create("hpcframe-halos")
    except OSError:  # not on this kernel
        return None, -1
    try:
        os.posix_fallocate(file, 0, end)  # memory that is not there is noticed here, not by a signal later
        memory = _map(file, end)
    except OSError:
        os.close(file)
        return None, -1
    memory[:TOKEN] = np.frombuffer(place.token, np.uint8)
    return memory, file


def _reachable(place: _Place, file: int) -> _Place:
    path = f"/proc/{os.getpid()}/fd/{file}" if file >= 0 else ""
    return _Place(path, place.token, place.slots, place.buffers)


def _open(place: _Place) -> Bytes | None:
    """The mailbox of another rank; None where it cannot be opened, or is something else: of another container, say."""
    if not place.path:
        return None
    try:
        with open(place.path, "rb+") as file:
            memory = _map(file.fileno(), os.fstat(file.fileno()).st_size)
    except OSError:
        return None
    return memory if memory[:TOKEN].tobytes() == place.token else None


def _map(file: int, size: int) -> Bytes:
    """The memory of a file. Python's own mmap would keep the file open, and there may be thousands of mailboxes.

    Raises:
        OSError: it cannot be mapped.
    """
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file, 0)
    if address == FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False
    return np.ctypeslib.as_array(memory)


def _addresses(memory: Bytes | None) -> int:
    assert memory is not None
    return memory.ctypes.data


def _buffer(memory: Bytes | None, where: tuple[int, int], turn: int) -> Bytes:
    assert memory is not None
    begin, size = where
    return memory[begin + turn * size : begin + (turn + 1) * size]
