"""Errors on every rank or on none: what one rank finds wrong, all learn at the next collective point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py import MPI

from hpcframe.errors import HpcframeError, InputError, RemoteError


@contextmanager
def collectively(comm: MPI.Intracomm, phase: str) -> Iterator[None]:
    """Run a block that may fail on some ranks; leave it with an error on all ranks or on none. Collective.

    A rank that failed raises its own error. The others raise the error of the lowest rank that failed: an
    `InputError` stays one, anything else becomes a `RemoteError`. The block must not communicate on `comm` after
    the point where a rank may fail.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # kept, and raised below, on every rank
        error = caught
    failed = comm.allreduce(int(error is not None))
    if not failed:
        return
    first = comm.allreduce(comm.rank if error else comm.size, MPI.MIN)
    kind, text = comm.bcast(
        (isinstance(error, InputError), _describe(error, phase)) if comm.rank == first else None, first
    )
    if error:
        raise error
    others = f" (and {failed - 1} more)" if failed > 1 else ""
    message = f"rank {first}{others} failed: {text}"
    raise InputError(message) if kind else RemoteError(message)


def _describe(error: Exception | None, phase: str) -> str:
    """An error that hpcframe raises says itself where it happened; any other is told by its type."""
    return str(error) if isinstance(error, HpcframeError) else f"{phase}: {type(error).__name__}: {error}"
