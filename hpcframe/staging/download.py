"""A checkpoint from S3 into a folder: complete once it is there, as one that a run wrote. No MPI."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcframe.checkpoint.folder import hidden, publish, step_folder
from hpcframe.checkpoint.manifest import Extent, Manifest
from hpcframe.errors import InputError
from hpcframe.files import close_all, explained, partial_name, write_at
from hpcframe.staging.location import FOLDER, RemoteCheckpoint, StoredObject
from hpcframe.staging.pieces import Piece, cut
from hpcframe.staging.remote import READ_SIZE, FilePiece, fetch, read_manifest, to_read
from hpcframe.staging.store import Store


class Download:
    """A checkpoint on its way into a folder, by one process or by several on a shared file system."""

    def __init__(self, folder: Path, remote: RemoteCheckpoint, manifest: Manifest, token: str) -> None:
        """Not collective; nothing is made yet. `token` is the same for all processes."""
        self.remote, self.manifest = remote, manifest
        self.final = step_folder(folder, remote.step)
        self.partial = hidden(self.final, "partial", token)
        self._open: dict[int, int] = {}

    def begin(self) -> None:
        """Make the files, all holes. For one process. Raises HpcframeError."""
        with explained(self.partial):
            self.partial.mkdir(parents=True)
            for file in self.manifest.files:
                with open(self.partial / file.name, "xb") as made:
                    made.truncate(file.length)

    def fetch(self, store: Store, pieces: Sequence[FilePiece], streams: int, progress: Callable[[int], None]) -> None:
        """Bring pieces to the disk. Raises HpcframeError; BadCheckpointError where S3 has something else."""
        with explained(self.partial):
            for index in {wanted.file for wanted in pieces}:
                self._open[index] = os.open(self.partial / self.manifest.files[index].name, os.O_WRONLY)
            try:
                fetch(store, self.remote, self.manifest, pieces, self._write, streams, progress)
                for file in self._open.values():
                    os.fsync(file)
            finally:
                close_all(self._open)

    def _write(self, file: int, extent: Extent, content: npt.NDArray[np.uint8]) -> None:
        write_at(self._open[file], content.data, extent.offset)

    def publish(self, text: str) -> Path:
        """Complete it, once all is on the disk. For one process. Raises HpcframeError."""
        with explained(self.final):
            publish(self.partial, self.final, text)
        return self.final


def pull(store: Store, remote: RemoteCheckpoint, folder: Path, streams: int, progress: Callable[[int], None]) -> Path:
    """Bring a checkpoint into a folder; its new path. Not collective.

    Raises:
        BadCheckpointError: it is not what was written.
        AwsError, HpcframeError.
    """
    manifest, text = read_manifest(store, remote)
    download = Download(folder, remote, manifest, secrets.token_hex(4))
    download.begin()
    download.fetch(store, to_read(manifest), streams, progress)
    return download.publish(text)


def output_in(store: Store) -> list[StoredObject]:
    """The output at a location: all that is no checkpoint's. Not collective. Raises AwsError."""
    return [each for each in store.list() if not each.name.startswith(f"{FOLDER}/") and not each.name.endswith("/")]


def pull_file(store: Store, each: StoredObject, folder: Path, streams: int) -> None:
    """Bring an object into a folder, under its name, whole or not at all. Not collective.

    Raises:
        InputError: its name leads out of the folder.
        AwsError, HpcframeError.
    """
    final = folder / each.name
    if ".." in Path(each.name).parts:
        raise InputError(f"{store.location.url(each.name)}: this name leads out of {folder}; rename the object")
    partial = partial_name(final)
    with explained(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                _fetch_into(store, each, file.fileno(), streams)
                os.fsync(file.fileno())
            partial.replace(final)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _fetch_into(store: Store, each: StoredObject, file: int, streams: int) -> None:
    def fetch_one(piece: Piece) -> None:
        content = np.empty(piece.length, np.uint8)
        store.read(each.name, piece.offset, content)
        write_at(file, content.data, piece.offset)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(fetch_one, cut(each.size, READ_SIZE)))
