"""Between blocks and whole arrays: MPI reads and writes the pieces in place, so nothing is copied or held twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from mpi4py.util.dtlib import from_numpy_dtype

if TYPE_CHECKING:
    from hpcframe.grid.field import Field

Block = tuple[slice, ...]


@contextmanager
def _piece(dtype: np.dtype, shape: tuple[int, ...], block: Block) -> Iterator[MPI.Datatype]:
    """The MPI datatype of a block of a contiguous array."""
    sizes = [part.stop - part.start for part in block]
    kind = from_numpy_dtype(dtype).Create_subarray(shape, sizes, [part.start for part in block]).Commit()
    try:
        yield kind
    finally:
        kind.Free()


def _in_global(field: Field, rank: int) -> Block:
    return tuple(map(slice, (0,) * len(field.components), field.components)) + field.grid.decomposition.block(
        rank, field.staggered
    )


def _in_local(field: Field) -> Block:
    return tuple(map(slice, (0,) * len(field.components), field.components)) + field.local.interior()


def gather(field: Field, whole: npt.NDArray | None, root: int) -> None:
    """Every block into its place in `whole` on root. Collective."""
    comm = field.grid.comm
    storage = field.padded
    requests = []
    if whole is not None:
        for rank in range(comm.size):
            with _piece(field.dtype, whole.shape, _in_global(field, rank)) as kind:
                requests.append(comm.Irecv([whole, 1, kind], rank))
    with _piece(field.dtype, storage.shape, _in_local(field)) as kind:
        comm.Send([storage, 1, kind], root)
    MPI.Request.Waitall(requests)


def scatter(field: Field, whole: npt.NDArray | None, root: int) -> None:
    """Every rank its block of `whole`, which root holds. Collective."""
    comm = field.grid.comm
    storage = field.padded
    requests = []
    if whole is not None:
        for rank in range(comm.size):
            with _piece(field.dtype, whole.shape, _in_global(field, rank)) as kind:
                requests.append(comm.Isend([whole, 1, kind], rank))
    with _piece(field.dtype, storage.shape, _in_local(field)) as kind:
        comm.Recv([storage, 1, kind], root)
    MPI.Request.Waitall(requests)
