"""Is a checkpoint what it was when it was written? Without MPI, on a folder of any origin."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.folder import STEP
from hpcframe.checkpoint.manifest import (
    NAME,
    BadCheckpointError,
    Extent,
    Manifest,
    UnreadableError,
    check_extents,
    decode,
)
from hpcframe.files import close_all, read_at


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, found right in itself, and the files as long as it says. Not collective.

    Raises:
        BadCheckpointError: otherwise.
        PermissionError: it is not for this user to read.
    """
    try:
        manifest = decode((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpointError(f"there is no {NAME}") from None
    except OSError as error:
        if error.errno in (errno.EIO, errno.EISDIR, errno.ENOTDIR):
            raise BadCheckpointError(f"{NAME} cannot be read: {error}") from error
        raise  # it may well be right: a permission, too many open files
    except UnicodeDecodeError as error:
        raise BadCheckpointError(f"{NAME} is not text: {error}") from error
    check_extents(manifest)
    named = STEP.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        raise BadCheckpointError(f"its {NAME} is that of step {manifest.step}")
    for file in manifest.files:
        path = folder / file.name
        if "/" in file.name or not path.is_file():
            raise BadCheckpointError(f"there is no file {file.name}")
        if path.stat().st_size != file.length:
            raise BadCheckpointError(f"{file.name} has {path.stat().st_size} bytes, not {file.length}")
    return manifest


class VerifyingReader:
    """Reads extents of a checkpoint's files; what comes out has the checksum that the manifest names."""

    def __init__(self, folder: Path, manifest: Manifest, progress: Callable[[], None]) -> None:
        self.folder, self.manifest, self.progress = folder, manifest, progress
        self._open: dict[int, int] = {}

    def read(self, extent: Extent, into: npt.NDArray[np.uint8], what: str) -> None:
        """Read an extent into bytes. Not collective.

        Raises:
            BadCheckpointError: it is not what was written; `what` says what it is.
            UnreadableError: this process cannot read it, which says nothing about it.
        """
        name = self.manifest.files[extent.file].name
        try:
            count = read_at(self._descriptor(extent.file), into, extent.offset)
        except OSError as error:
            kind = BadCheckpointError if error.errno in (errno.EIO, errno.ENOENT) else UnreadableError
            raise kind(f"{what} in {name} cannot be read: {error}") from error
        if count != extent.length or crc32c(into) != extent.checksum:
            raise BadCheckpointError(
                f"{what} in {name}, bytes {extent.offset} to {extent.offset + extent.length}, is "
                f"not what was written: its checksum differs"
            )
        self.progress()

    def _descriptor(self, index: int) -> int:
        if index not in self._open:
            self._open[index] = os.open(self.folder / self.manifest.files[index].name, os.O_RDONLY)
        return self._open[index]

    def close(self) -> None:
        close_all(self._open)


@contextmanager
def reading(folder: Path, manifest: Manifest, progress: Callable[[], None] = lambda: None) -> Iterator[VerifyingReader]:
    """`progress` is called after each extent."""
    reader = VerifyingReader(folder, manifest, progress)
    try:
        yield reader
    finally:
        reader.close()


def extents_of(manifest: Manifest) -> list[tuple[str, Extent]]:
    """All that a manifest has checksums of, and what each is called."""
    tiles = [
        (f"tile {index} of '{record.name}'", extent)
        for record in manifest.arrays
        for index, extent in enumerate(record.tiles)
    ]
    return tiles + [("HDF5's own data", extent) for extent in manifest.rest]


def verify(folder: Path) -> Manifest:
    """Read all of a checkpoint and compare it with its manifest. Not collective.

    Raises:
        BadCheckpointError: what is wrong first.
        PermissionError: the manifest is not for this user to read.
    """
    manifest = read_manifest(folder)
    extents = extents_of(manifest)
    buffer = np.empty(max((extent.length for _, extent in extents), default=0), np.uint8)
    with reading(folder, manifest) as reader:
        for what, extent in extents:
            reader.read(extent, buffer[: extent.length], what)
    return manifest
