"""Between blocks and whole arrays: MPI reads and writes the pieces in place, so nothing is copied or held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
    _move(field, whole, lambda piece, rank: comm.Irecv(piece, rank), lambda own: comm.Isend(own, root))


def scatter(field: Field, whole: npt.NDArray | None, root: int) -> None:
    """Every rank its block of `whole`, which root holds. Collective."""
    comm = field.grid.comm
    _move(field, whole, lambda piece, rank: comm.Isend(piece, rank), lambda own: comm.Irecv(own, root))


def _move(
    field: Field,
    whole: npt.NDArray | None,
    of_rank: Callable[[Any, int], MPI.Request],
    own: Callable[[Any], MPI.Request],
) -> None:
    """Root deals with the piece of every rank, and every rank, root too, with its own."""
    requests = []
    if whole is not None:
        for rank in range(field.grid.size):
            with _piece(field.dtype, whole.shape, _in_global(field, rank)) as kind:
                requests.append(of_rank([whole, 1, kind], rank))
    with _piece(field.dtype, field.padded.shape, _in_local(field)) as kind:
        requests.append(own([field.padded, 1, kind]))
    MPI.Request.Waitall(requests)
