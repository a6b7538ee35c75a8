"""A folder of checkpoints in use by a run: taken over, put in order, and laid out once."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcframe.checkpoint import crc32c
from hpcframe.checkpoint.container import Layout, lay_out_tiles
from hpcframe.checkpoint.folder import clean, set_aside, steps_in, sync
from hpcframe.checkpoint.lease import Lease
from hpcframe.checkpoint.options import Options
from hpcframe.checkpoint.striping import stripe
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field

if TYPE_CHECKING:
    from hpcframe.checkpoint.restart import Restored
    from hpcframe.grid.cartesian import CartesianGrid


class Session:
    """What all ranks know of the folder.

    Attributes:
        token: names of partial folders of this incarnation end in it.
        run: the same for all incarnations of a run.
        lease: on rank 0 the right to write here; None elsewhere.
        driver: the one that writes; `driver_choice` says why.
        notices: lines on what was set up, on rank 0.
        counted: whether this incarnation's restart is among the attempts; known on rank 0.
        verified: the step that it went on from, where all of its tiles were read and right.
        held: the steps that are not to be removed yet; for rank 0.
        restored: the step in the folder that this run goes on from; None where it goes on from none.
    """

    def __init__(
        self,
        folder: Path,
        options: Options,
        grid: CartesianGrid,
        progress: Callable[[], None],
        held: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """Collective; touches nothing. Raises InputError, on every rank, for a driver that is not there."""
        self.folder, self.options, self.grid, self.progress, self.held = folder, options, grid, progress, held
        self.lease: Lease | None = None
        self.notices: list[str] = []
        self.restored: int | None = None
        self.verified: set[int] = set()
        self.counted = False
        self._begun = False
        self._layouts: dict[tuple[object, ...], Layout] = {}
        crc32c.ready(grid.shared.node)
        self.driver, reason = options.choose_driver()
        self.driver_choice = f"{self.driver}: {reason}"
        self.token = self.run = ""

    def take(self) -> None:
        """Take the folder over, to continue from what is there or to write; once. Collective.

        Raises InputError or HpcframeError, on every rank, where the folder cannot be used.
        """
        if self.token:
            return
        with collectively(self.grid.comm, f"taking {self.folder} over"), explained(self.folder):
            if self.grid.rank == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.lease = Lease.take(self.folder, os.environ)
                self.notices += clean(self.folder)
                sync(self.folder.parent)
        self.token = self.grid.comm.bcast(secrets.token_hex(6))
        self.run = self.run or self.token

    def layout(self, arrays: Mapping[str, Field]) -> Layout:
        """How these fields lie in the files; found once. Collective."""
        key = tuple((name, f.shape, f.components, f.staggered, f.dtype.str) for name, f in arrays.items())
        if key not in self._layouts:
            layout = None
            with collectively(self.grid.comm, "laying out the checkpoint"):
                if self.grid.rank == 0:
                    layout, contents = lay_out_tiles(arrays, 0, 0.0, self.options.files)
                    self._stripe(max(content.size for content in contents))
            self._layouts[key] = self.grid.comm.bcast(layout)
        return self._layouts[key]

    def _stripe(self, size: int) -> None:
        """New folders of Lustre take after the one they are in."""
        said = stripe(self.folder, size, self.options.stripe_count, self.options.stripe_size)
        if said:
            self.notices.append(said)

    def continue_from(self, restored: Restored) -> None:
        """This run is the one that wrote a checkpoint. Not collective; the same on every rank."""
        here = restored.path.resolve().parent == self.folder.resolve()
        self.run = restored.run if here else self.token
        self.restored = restored.step if here else None
        self.verified = {restored.step} if here and restored.whole else set()
        self._begun = False

    def continue_from_none(self) -> None:
        """This run is another one than that which wrote what is here. Not collective; the same on every rank."""
        self.run, self.restored, self.verified, self._begun = self.token, None, set(), False

    def begin(self) -> None:
        """Before the first checkpoint: what is in the folder and no past of this run makes place. For rank 0; not
        collective. Raises OSError."""
        if self._begun:
            return
        former = {step: path for step, path in steps_in(self.folder).items() if not self._is_past(step)}
        if self.restored is None:
            self._move_away(former)
        else:
            for path in former.values():
                set_aside(path, f"the run went on from step {self.restored}")
        self._begun = True

    def _is_past(self, step: int) -> bool:
        return self.restored is not None and step <= self.restored

    def _move_away(self, former: Mapping[int, Path]) -> None:
        if not former:
            return
        place = self.folder / f"before-{time.strftime('%Y%m%d-%H%M%S')}-{self.token[:4]}"
        place.mkdir()
        for path in former.values():
            path.rename(place / path.name)
        self.notices.append(f"{len(former)} checkpoint(s) of an earlier run are now in {place}")
