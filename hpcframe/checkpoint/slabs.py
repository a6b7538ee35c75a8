"""From blocks to slabs, which are contiguous in a file: a parallel write without a parallel file library.

Two phases, as in collective MPI-IO (Thakur, Gropp and Lusk, "Data sieving and collective I/O in ROMIO", 1999): the
ranks first exchange their blocks for slabs of whole planes of the first grid axis, and then each writes its slab at
its place. A plane belongs to one rank, so no two ranks write the same bytes; a slab is one run of bytes a component.
Large slabs go in several turns, so that the memory for them stays small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from mpi4py.util.dtlib import from_numpy_dtype

from hpcframe.files import write_at
from hpcframe.grid.decomposition import Axes, Block, cuts

if TYPE_CHECKING:
    from hpcframe.grid.field import Field

TURN = 1 << 22  # bytes of a rank's slab at once


class Slab(NamedTuple):
    """Planes of the first grid axis that a rank writes in one turn, components + planes + the other axes; where they
    begin."""

    values: npt.NDArray
    first: int


def turns(field: Field) -> int:
    """In how many turns the field is written. Not collective; the same on every rank."""
    most = max(planes(field, rank, 0, 1).stop - planes(field, rank, 0, 1).start for rank in range(field.grid.size))
    return max(1, min(most, -(-most * _plane_bytes(field) // TURN)))


def planes(field: Field, rank: int, turn: int, count: int) -> slice:
    """What a rank writes in one of so many turns: none, where there are more ranks and turns than planes."""
    own = cuts(field.shape[len(field.components)], field.grid.size)[rank : rank + 2]
    part = cuts(own[1] - own[0], count)
    return slice(own[0] + part[turn], own[0] + part[turn + 1])


def _plane_bytes(field: Field) -> int:
    points = math.prod(field.shape[len(field.components) + 1 :])
    return math.prod(field.components) * points * field.dtype.itemsize


def slab_bytes(field: Field) -> int:
    """Of this rank's largest slab."""
    own, count = planes(field, field.grid.rank, 0, 1), turns(field)
    return -(-(own.stop - own.start) // count) * _plane_bytes(field)


def to_slab(field: Field, buffer: npt.NDArray[np.uint8], turn: int, count: int) -> Slab:
    """This rank's slab of a turn, in `buffer`, of at least `slab_bytes(field)`. Collective."""
    comm = field.grid.comm
    parts = [planes(field, rank, turn, count) for rank in range(comm.size)]
    own = parts[comm.rank]
    shape = (*field.components, own.stop - own.start, *field.shape[len(field.components) + 1 :])
    slab = buffer[: math.prod(shape) * field.dtype.itemsize].view(field.dtype).reshape(shape)
    sent = [_in_block(field, part) for part in parts]
    received = [_in_slab(field, own, rank) for rank in range(comm.size)]
    with (
        _pieces(field.dtype, field.padded.shape, sent) as (sent_counts, sent_kinds),
        _pieces(field.dtype, slab.shape, received) as (counts, kinds),
    ):
        zeros = [0] * comm.size
        comm.Alltoallw([field.padded, sent_counts, zeros, sent_kinds], [slab, counts, zeros, kinds])
    return Slab(slab, own.start)


def write_slab(file: int, slab: Slab, field: Field, offset: int) -> None:
    """Write this rank's slab where the dataset begins at `offset` (bytes) of an open file. Not collective.

    Raises OSError.
    """
    if not slab.values.size:
        return
    count, rows = math.prod(field.components), field.shape[len(field.components)]
    row_bytes = math.prod(field.shape[len(field.components) + 1 :]) * field.dtype.itemsize
    for component, run in enumerate(slab.values.reshape(count, -1).view(np.uint8)):
        write_at(file, run.data, offset + (component * rows + slab.first) * row_bytes)


def _in_block(field: Field, rows: slice) -> Block:
    """Where this rank's part of some planes lies in its own storage."""
    own = field.block[0]
    shift = field.halo[0] - own.start
    common = slice(max(own.start, rows.start) + shift, min(own.stop, rows.stop) + shift)
    return (*_components(field), common, *field.local.interior()[1:])


def _in_slab(field: Field, own: slice, rank: int) -> Block:
    """Where another rank's part of this rank's planes lies in this rank's slab."""
    block = field.grid.decomposition.block(rank, field.staggered)
    common = slice(max(own.start, block[0].start) - own.start, min(own.stop, block[0].stop) - own.start)
    return (*_components(field), common, *block[1:])


def _components(field: Field) -> Block:
    return tuple(slice(0, count) for count in field.components)


@contextmanager
def _pieces(dtype: np.dtype, shape: Axes, blocks: list[Block]) -> Iterator[tuple[list[int], list[MPI.Datatype]]]:
    """For each block of a contiguous array 1 and its MPI datatype; 0 and any datatype where it is empty."""
    counts = [int(all(part.stop > part.start for part in block)) for block in blocks]
    kinds = [_piece(dtype, shape, block) if count else MPI.BYTE for block, count in zip(blocks, counts, strict=True)]
    try:
        yield counts, kinds
    finally:
        for kind, count in zip(kinds, counts, strict=True):
            if count:
                kind.Free()


def _piece(dtype: np.dtype, shape: Axes, block: Block) -> MPI.Datatype:
    sizes = [part.stop - part.start for part in block]
    return from_numpy_dtype(dtype).Create_subarray(shape, sizes, [part.start for part in block]).Commit()
