"""`hf.Checkpoints`: a folder of checkpoints that a run writes to and continues from."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcframe.checkpoint.layout import check_names
from hpcframe.checkpoint.options import Options
from hpcframe.errors import InputError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field

if TYPE_CHECKING:  # loaded where a checkpoint is written or read: many runs end before that, and all start faster
    from hpcframe.checkpoint.restart import Restored
    from hpcframe.checkpoint.session import Session
    from hpcframe.checkpoint.writing import Writer


@dataclass
class Seconds:
    """What the latest checkpoint took on this rank (s): how long the program waited, and until it was durable."""

    blocking: float = 0.0
    durable: float = 0.0


class Checkpoints:
    """Checkpoints of one run in one folder. All calls are collective over the communicator of the fields' grid.

        checkpoints = hf.Checkpoints("runs/mine/checkpoints")
        restored = checkpoints.restore(u, v)          # None: there is nothing to continue from
        ...
        checkpoints.save(step, u, v, attributes={"random": generator.bit_generator.state})

    A checkpoint is complete or not there, whatever interrupts it, and carries a checksum for each of its tiles. It can
    be restored on any number of ranks.

    Attributes:
        directory: the folder.
        options: as given, with the defaults.
        seconds: what the latest checkpoint took.
        progress: called on this rank for each of its tiles that is read, or written at once: for a watchdog.
        held: called on rank 0, maybe in another thread; the steps whose checkpoints are not to be removed yet.
    """

    def __init__(self, directory: str | os.PathLike[str], **options: Any) -> None:
        """Not collective; nothing is touched before the first save or restore.

        Args:
            directory: the folder, on a file system that all ranks see. It belongs to one run at a time: a run that
                starts to use it takes it over from another, which then stops at its next checkpoint.
            keep: how many of the latest to keep (3).
            keep_every: keep those whose step is a multiple of this, too (0: none).
            pinned: steps to keep whatever comes.
            driver: "direct", "mpio" or "auto" ("auto").
            asynchronous: write behind the program, which needs memory for a second copy of the fields (False).
            files: HDF5 data files of a checkpoint (1).
            stripe_count, stripe_size: on Lustre, storage targets (0: chosen) and bytes (0: 16 MiB) of a stripe.
            hints: MPI-IO hints for "mpio".
            collective: whether "mpio" writes collectively (False).

        Raises:
            InputError: an option that cannot be.
        """
        self.directory = Path(directory)
        self.options = Options.checked(options)
        self.seconds = Seconds()
        self.progress: Callable[[], None] = _nothing
        self.held: Callable[[], Collection[int]] = tuple
        self._session: Session | None = None
        self._writer: Writer | None = None

    # -- writing ------------------------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        *fields: Field | Mapping[str, Field],
        attributes: Mapping[str, Any] | None = None,
        time: float | None = None,
    ) -> None:
        """Write a checkpoint. Collective.

        Returns when it is durable; where it is written asynchronously, when the fields may be changed again. One at
        a time is being written: a second waits for the first.

        Args:
            step: its number, of at least 0; a checkpoint of the same step is replaced.
            fields: fields of one grid under their names, or mappings from names of your own to fields. Halos are not
                kept: the next exchange makes them again.
            attributes: what else a restart needs: numbers, texts, bytes, arrays, lists and dictionaries of them. Those
                of rank 0 count.
            time: simulated time (s); the grid's if not given.

        Raises:
            InputError: fields or attributes that cannot be kept.
            HpcframeError: on every rank, where any of them could not write, or the one before was not completed.
                Earlier checkpoints stay as they are.
        """
        arrays = named(fields)
        writer = self._opened(arrays)
        begun = clock.perf_counter()
        writer.write(step, arrays, attributes or {}, time)
        self.seconds.blocking = clock.perf_counter() - begun
        self.seconds.durable = writer.durable

    def wait(self) -> None:
        """Wait until what is being written is durable. Collective.

        Raises:
            HpcframeError: on every rank, where any could not write.
        """
        if self._writer:
            self._writer.wait()
            self.seconds.durable = self._writer.durable

    @property
    def failed(self) -> bool:
        """Whether this rank knows that what is being written fails: `wait` then raises. Not collective."""
        return self._writer is not None and self._writer.failed

    @property
    def saved(self) -> int | None:
        """The step of the latest checkpoint that this object completed, as far as this rank knows. Not collective."""
        return self._writer.saved if self._writer else None

    @property
    def driver(self) -> str:
        """Which driver writes, and why. Not collective; known once the folder is in use."""
        return self._session.driver_choice if self._session else ""

    @property
    def notices(self) -> list[str]:
        """Lines on what was set up or done differently than asked; on rank 0. Not collective."""
        return self._session.notices if self._session else []

    # -- reading ------------------------------------------------------------------------------------------------

    def restore(
        self,
        *fields: Field | Mapping[str, Field],
        path: str | os.PathLike[str] | None = None,
        check: Callable[[dict[str, Any]], None] = lambda attributes: None,
    ) -> Restored | None:
        """Set fields, and the grid's time, from the newest checkpoint that verifies. Collective.

        One that does not verify is set aside (`step-<n>.bad`, with the reason) and the next older one is taken. The
        third restart without a new checkpoint between them takes the next older one, too; the fourth is refused.

        Args:
            fields: as they were saved; not all of them need to be named.
            path: one checkpoint to take, or a folder of which to take the newest that verifies. It is read and left as
                it is, so that also somebody else's can be named.
            check: looks at the attributes before anything is loaded, and raises an error, the same on every rank, to
                refuse the checkpoint.

        Returns:
            What was restored; None where the folder has no checkpoints. The fields are unchanged then.

        Raises:
            NoCheckpointError: on every rank, where there are checkpoints, but none can be used. The fields' values
                are not to be used then.
            InputError: the checkpoint is of other fields or of another grid.
        """
        arrays = named(fields)
        self._opened(arrays)
        assert self._session is not None
        self.wait()
        if path is None:
            self._session.take()
        from hpcframe.checkpoint.restart import choose_and_read

        restored = choose_and_read(self._session, arrays, None if path is None else Path(path), check)
        if restored:
            self._session.continue_from(restored)
        return restored

    def begin_anew(self, *fields: Field | Mapping[str, Field]) -> None:
        """Move the checkpoints that are there into a folder of their own beside: this run is another one. Collective.

        Without it that happens at the first save of a run that restored nothing.

        Args:
            fields: some that will be saved.
        """
        self._opened(named(fields))
        assert self._session is not None
        self._session.take()
        self._session.continue_from_none()
        with collectively(self._session.grid.comm, "setting former checkpoints aside"), explained(self.directory):
            if self._session.grid.rank == 0:
                self._session.begin()

    def complete(self) -> None:
        """Say that the run has reached its end, so that its restarts do not count as failed attempts. Collective."""
        self.wait()
        if self._session and self._session.token:
            with collectively(self._session.grid.comm, "completing the run"), explained(self.directory):
                if self._session.lease:
                    self._session.lease.check()
                    from hpcframe.checkpoint import attempts

                    attempts.clear(self.directory)

    def _opened(self, arrays: Mapping[str, Field]) -> Writer:
        grid = next(iter(arrays.values())).grid
        if self._session is None or self._writer is None:
            from hpcframe.checkpoint.session import Session
            from hpcframe.checkpoint.writing import Writer

            self._session = Session(self.directory, self.options, grid, self.progress, lambda: self.held())
            self._writer = Writer(self._session)
        if self._session.grid is not grid:
            raise InputError("these fields live on another grid than those before; use other Checkpoints for them")
        return self._writer


def _nothing() -> None:
    """Nobody watches."""


def named(fields: Sequence[Field | Mapping[str, Field]]) -> dict[str, Field]:
    """Fields by the names of their datasets. The same on every rank.

    Raises:
        InputError: no fields, a name that is there twice or cannot be, fields of several grids.
    """
    arrays: dict[str, Field] = {}
    for given in fields:
        for name, field in given.items() if isinstance(given, Mapping) else [(getattr(given, "name", ""), given)]:
            if not isinstance(field, Field):
                raise InputError(f"give fields, or a dictionary of names and fields, not a {type(field).__name__}")
            if name in arrays:
                raise InputError(f"two fields are named '{name}'; give them names of their own: {{'name': field}}")
            arrays[name] = field
    if not arrays:
        raise InputError("give the fields, as in `checkpoints.save(step, u, v)`")
    check_names(arrays)
    return arrays
