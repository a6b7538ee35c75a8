"""Errors on every rank or on none: what one rank finds wrong, all learn at the next collective point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py import MPI

from hpcframe.errors import FruitlessRestartsError, HpcframeError, InputError, NoCheckpointError, RemoteError


@contextmanager
def collectively(comm: MPI.Intracomm, phase: str) -> Iterator[None]:
    """Run a block that may fail on some ranks; leave it with an error on all ranks or on none. Collective.

    A rank that failed raises its own error. The others raise the error of the lowest rank that failed: an
    `InputError` or a `NoCheckpointError` stays one, anything else becomes a `RemoteError`. So does a rank whose own
    error is a `RemoteError`, where there is another. The block must not communicate on `comm` after
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
    first = comm.allreduce(_precedence(comm, error), MPI.MIN) % comm.size
    kind, text = comm.bcast((_kind(error), _describe(error, phase)) if comm.rank == first else None, first)
    if error and (comm.rank == first or not isinstance(error, RemoteError)):
        raise error
    others = f" (and {failed - 1} more)" if failed > 1 else ""
    raise kind(f"rank {first}{others} failed: {text}")


def _precedence(comm: MPI.Intracomm, error: Exception | None) -> int:
    """The least is told to all: the lowest rank with an error of its own, before ranks that failed for another."""
    if error is None:
        return 3 * comm.size
    return comm.rank + comm.size * isinstance(error, RemoteError)


def _kind(error: Exception | None) -> type[HpcframeError]:
    """What ranks that did not fail raise."""
    kinds = (InputError, FruitlessRestartsError, NoCheckpointError)
    return next((kind for kind in kinds if isinstance(error, kind)), RemoteError)


def _describe(error: Exception | None, phase: str) -> str:
    """An error that hpcframe raises says itself where it happened; any other is told by its type."""
    return str(error) if isinstance(error, HpcframeError) else f"{phase}: {type(error).__name__}: {error}"
