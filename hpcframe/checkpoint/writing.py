"""Writing checkpoints: one at a time, at once or behind the program."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcframe.checkpoint import attempts, mpio
from hpcframe.checkpoint.background import PARTS, BackgroundWriter
from hpcframe.checkpoint.container import Places
from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.cutting import OwnTiles, bytes_of_copy
from hpcframe.checkpoint.direct import Checksums, TileFiles, write_fields
from hpcframe.checkpoint.draft import Draft, Part, compose, create_files, names_of, write_container
from hpcframe.checkpoint.folder import discard, publish, remove, set_aside, steps_in
from hpcframe.checkpoint.manifest import Extent, FileRecord, encode, plain_attributes
from hpcframe.checkpoint.mpio import PlacedTiles
from hpcframe.checkpoint.retention import to_remove
from hpcframe.checkpoint.session import Session
from hpcframe.checkpoint.tiles import Chosen
from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field
from hpcframe.grid.memory import available_bytes

Container = tuple[list[FileRecord], list[Extent]]  # records of the files, and of all in them that is no tile
SPARE = 1.1  # memory to have, over what a second copy takes


class NotAsWrittenError(HpcframeError):
    """What was read back is not what had been written."""


class Writer:
    """Writes the checkpoints of a session.

    Attributes:
        durable: seconds from the call of `write` until the latest checkpoint was durable.
        saved: step of the latest that is complete.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.durable = 0.0
        self.saved: int | None = None
        self._background: BackgroundWriter | None = None
        self._copies: dict[str, OwnTiles] = {}  # for asynchronous writing, kept for the next time
        self._verified: tuple[int, ...] = ()  # latest steps whose tiles of this rank were read back and found right
        self._verified_everywhere: set[int] = set()  # known on rank 0

    @property
    def failed(self) -> bool:
        return self._background is not None and self._background.error is not None

    def write(self, step: int, arrays: Mapping[str, Field], attributes: Mapping[str, Any], time: float | None) -> None:
        """Collective."""
        begun = clock.perf_counter()
        self.wait()
        self.session.take()
        _check_step(step)
        self._verified = tuple(known for known in self._verified if known != step)
        self._verified_everywhere.discard(int(step))  # it will be another checkpoint
        background = self.session.options.asynchronous and self._has_memory(arrays)
        draft = self._draft(int(step), arrays, attributes, time)
        try:
            self._begin(draft, background)
            if background:
                self._write_behind(draft)
            else:
                self._write_now(draft, begun)
        except Exception as error:
            self._give_up(draft, error)
            raise

    def wait(self) -> None:
        """Collective. Raises on every rank what failed on any."""
        worker, self._background = self._background, None
        if worker is None:
            return
        comm = self.session.grid.comm
        if comm.rank:
            worker.settle()
        if comm.allreduce(int(worker.error is not None)):
            worker.abandon()
        worker.settle()
        try:
            with collectively(comm, f"writing {worker.draft.final}"), explained(worker.draft.final):
                if worker.error:
                    raise worker.error
        except Exception:
            self._give_up(worker.draft, worker.error)
            raise
        self.saved, self.durable = worker.draft.step, worker.seconds

    # -- the beginning ------------------------------------------------------------------------------------------

    def _draft(
        self, step: int, arrays: Mapping[str, Field], attributes: Mapping[str, Any], time: float | None
    ) -> Draft:
        """Collective. Raises InputError, on every rank, for attributes or a time that cannot be kept."""
        session = self.session
        layout = session.layout(arrays)
        final, partial = names_of(session.folder, step, session.token)
        written = {"ranks": session.grid.size, "layout": list(session.grid.layout), "driver": session.driver}
        with collectively(session.grid.comm, f"beginning {final}"):
            plain = plain_attributes(attributes)
            try:
                when = float(session.grid.time if time is None else time)
            except (TypeError, ValueError) as error:
                raise InputError(f"time {time!r} of a checkpoint: expected a number of seconds") from error
        return Draft(step, when, final, partial, layout, dict(arrays), plain, written)

    def _begin(self, draft: Draft, parts: bool) -> None:
        """Make the folder and its empty files. Collective."""
        session = self.session
        with collectively(session.grid.comm, f"beginning {draft.final}"), explained(draft.final):
            if session.grid.rank == 0:
                session.begin()
                create_files(draft)
                if parts:
                    (draft.partial / PARTS).mkdir()

    def _has_memory(self, arrays: Mapping[str, Field]) -> bool:
        """Whether all nodes have room for a second copy of their fields. Collective."""
        grid, copies = self.session.grid, self._copies
        new = [field for name, field in arrays.items() if name not in copies or not copies[name].fits(field)]
        needed = grid.shared.node.allreduce(sum(map(bytes_of_copy, new)))
        short = grid.comm.allreduce(int(needed * SPARE > available_bytes()))
        if short:
            self.session.notices.append(
                f"the nodes of {short} rank(s) lack memory for a second copy of the fields, {needed / 1e9:.3g} GB a "
                f"node: this checkpoint was written at once"
            )
        return not short

    def _give_up(self, draft: Draft, error: Exception | None) -> None:
        """What is left of a checkpoint that failed is of no use. Where it cannot be removed now, the next run does.
        Collective.

        Raises:
            HpcframeError: on every rank, where it failed because somebody else has the folder now, and cleaned it.
        """
        comm = self.session.grid.comm
        wrong = comm.allreduce(int(isinstance(error, NotAsWrittenError)))
        if comm.rank == 0:
            discard(draft.partial)
        with collectively(comm, f"giving {draft.final} up"), explained(self.session.folder):
            if self.session.lease:
                self.session.lease.check()
        if comm.rank == 0 and wrong and draft.final.exists():
            set_aside(draft.final, "what was read back is not what had been written")

    # -- at once ------------------------------------------------------------------------------------------------

    def _write_now(self, draft: Draft, begun: float) -> None:
        """Collective."""
        comm, container = self.session.grid.comm, None
        files = TileFiles(draft.partial, draft.layout, self.session.progress)
        try:
            if self.session.driver == "mpio":
                checksums = self._write_by_mpio(draft)
            else:
                write_fields(files, draft.arrays)
            with collectively(comm, f"writing {draft.final}"), explained(draft.final):
                if self.session.driver == "mpio":
                    files.adopt(checksums)
                if comm.rank == 0:
                    container = write_container(draft, self.session.options.files)
                    files.also(container[1])
                files.sync()
            parts = comm.gather(self._part(files.checksums))
            with collectively(comm, f"completing {draft.final}"), explained(draft.final):
                if comm.rank == 0:
                    self._commit(draft, parts or [], container)
            self.saved, self.durable = draft.step, clock.perf_counter() - begun
            with collectively(comm, f"reading {draft.final} back"):
                self._read_back(draft, files)
            with collectively(comm, "letting old checkpoints go"), explained(self.session.folder):
                if comm.rank == 0:
                    self._verified_everywhere.add(draft.step)
                    self._retain(draft.step)
        finally:
            files.close()

    def _write_by_mpio(self, draft: Draft) -> Checksums:
        """Collective."""
        options, comm = self.session.options, self.session.grid.comm
        with collectively(comm, f"laying out {draft.final}"), explained(draft.final):
            if comm.rank == 0:
                write_container(draft, options.files)
        tiles = self._started(draft.arrays, {}, copied=False)
        checksums = {name: dict(zip(own.places, map(crc32c, own), strict=True)) for name, own in tiles.items()}
        for index, name in enumerate(draft.layout.names[: options.files]):
            path = draft.partial / name
            with collectively(comm, f"writing {draft.final}"), explained(draft.final):
                placed = [_of_file(draft.layout.places[name], own, index) for name, own in tiles.items()]
                ignored = mpio.write(comm, path, placed, dict(options.hints), options.collective)
            if ignored and comm.rank == 0:
                self.session.notices.append(f"MPI-IO ignores the hints {ignored}")
        return checksums

    def _started(self, arrays: Mapping[str, Field], known: Mapping[str, OwnTiles], copied: bool) -> dict[str, OwnTiles]:
        """The tiles of all fields at once, ready to be cut, in buffers that are known where they fit. Collective."""
        comm, tiles = self.session.grid.comm, dict[str, OwnTiles]()
        with collectively(comm, "making room for a checkpoint"):
            for name, field in arrays.items():
                fits = name in known and known[name].fits(field)
                tiles[name] = known[name] if fits else OwnTiles(field, copied)
        MPI.Request.Waitall([request for name, own in tiles.items() for request in own.start(arrays[name])])
        return tiles

    # -- behind the program -------------------------------------------------------------------------------------

    def _write_behind(self, draft: Draft) -> None:
        """Collective until the copies are made."""
        self._copies = self._started(draft.arrays, self._copies, copied=True)
        self._background = BackgroundWriter(draft, lambda worker: self._write_copies(draft, worker))
        self._background.start()

    def _write_copies(self, draft: Draft, worker: BackgroundWriter) -> None:
        """What the thread of a rank does. Not collective."""
        rank, size, container = self.session.grid.rank, self.session.grid.size, None
        files = TileFiles(draft.partial, draft.layout, lambda: None)  # the steps go on meanwhile
        try:
            for name, tiles in self._copies.items():
                files.write_all(name, tiles, range(len(tiles)))
            if rank == 0:
                container = write_container(draft, self.session.options.files)
                files.also(container[1])
            files.sync()
            parts = [self._part(files.checksums)]
            if rank == 0:
                parts += worker.wait_for_parts(draft.partial, size)
                self._commit(draft, parts, container)
            else:
                worker.leave(draft.partial, rank, parts[0])
            worker.done()
            if rank == 0:
                self._verified_everywhere |= set.intersection(*(set(part.verified) for part in parts))
                self._retain(draft.step)
            self._read_back(draft, files)
        finally:
            files.close()

    # -- the end ------------------------------------------------------------------------------------------------

    def _part(self, checksums: Checksums) -> Part:
        return Part(checksums, self._verified)

    def _read_back(self, draft: Draft, files: TileFiles) -> None:
        """Compare what lies on the disk with what was written: only then may it take the place of older ones. Not
        collective.

        Raises:
            NotAsWrittenError: it differs.
        """
        if not files.is_right():
            raise NotAsWrittenError(
                f"{draft.final}: what was read back is not what had been written, so it is set aside: the disk, or the "
                f"way to it, is faulty. Earlier checkpoints are as they were"
            )
        self._verified = (*self._verified[-2:], draft.step)

    def _commit(self, draft: Draft, parts: list[Part], container: Container | None) -> None:
        """Complete the checkpoint. For rank 0; not collective."""
        session = self.session
        assert session.lease is not None and container is not None
        manifest = encode(compose(draft, session.run, parts, *container))
        session.lease.check()
        session.notices += publish(draft.partial, draft.final, manifest)
        attempts.clear(session.folder)

    def _retain(self, step: int) -> None:
        """Let go of what the checkpoint of a step makes superfluous. For rank 0; not collective."""
        session, folder, options = self.session, self.session.folder, self.session.options
        assert session.lease is not None
        session.lease.check()  # who has lost the folder removes nothing
        present = steps_in(folder)
        verified = (self._verified_everywhere | session.verified) & present.keys()
        stay = {*options.pinned, *session.held()}
        for old in to_remove(list(present), options.keep, options.keep_every, stay, verified):
            try:
                remove(present[old])
            except OSError as error:  # the new one is safe all the same
                session.notices.append(f"{present[old]} could not be removed: {error}; remove it by hand")


def _check_step(step: Any) -> None:
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
        raise InputError(f"step {step!r} of a checkpoint: expected a whole number of at least 0")


def _of_file(places: Places, own: OwnTiles, index: int) -> PlacedTiles:
    """The tiles of an array that lie in one data file."""
    inside = [k for k, place in enumerate(own.places) if places.file_of(place) == index]
    return PlacedTiles([int(places.offsets[own.places[k]]) for k in inside], Chosen(own, inside))
