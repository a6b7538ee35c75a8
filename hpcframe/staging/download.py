"""A checkpoint from S3 into a folder, complete once it is there, as one that a run wrote; and the output. No MPI."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
import numpy.typing as npt

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.folder import hidden, publish, step_folder
from hpcframe.checkpoint.manifest import Extent, Manifest
from hpcframe.checkpoint.record import BrokenRecordError, read_record, write_record
from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import close_all, explained, partial_name, write_at
from hpcframe.staging.local import OUTPUT
from hpcframe.staging.location import RemoteCheckpoint, StoredObject
from hpcframe.staging.pieces import Piece, checksum_of, cut
from hpcframe.staging.pushed import NAME as PUSHED
from hpcframe.staging.pushed import Pushed
from hpcframe.staging.remote import READ_SIZE, READ_TWICE, FilePiece, fetch, read_manifest, to_read
from hpcframe.staging.state import FOLDER as STAGING
from hpcframe.staging.store import ObjectState, ReplacedError, Store

ANEW = 5  # times that an object is begun anew which is replaced while it is read


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


# -- the output -------------------------------------------------------------------------------------------------


def is_output(name: str) -> bool:
    """Whether a run pushes a file of that name, in its folder, as output."""
    return any(PurePosixPath(name).match(each) and name.count("/") == each.count("/") for each in OUTPUT)


def output_in(store: Store) -> list[StoredObject]:
    """The output at a location: what a run pushes as that, and nothing else that is there. Not collective.

    Raises:
        AwsError.
    """
    beginnings = dict.fromkeys(pattern.partition("*")[0] for pattern in OUTPUT)
    found = {each.name: each for beginning in beginnings for each in store.list(beginning)}
    return [each for each in found.values() if is_output(each.name)]


def pull_file(store: Store, each: StoredObject, folder: Path, streams: int) -> None:
    """Bring an object into a folder, under its name, whole and as S3 has it, or not at all. Not collective.

    The file has the time of the object, so that what is noted of it beforehand is true as soon as it is there.

    Raises:
        InputError: its name leads out of the folder, or it is archived.
        AwsError, HpcframeError.
    """
    if PurePosixPath(each.name).is_absolute() or ".." in PurePosixPath(each.name).parts:
        raise InputError(f"{store.location.url(each.name)}: this name leads out of {folder}; rename the object")
    final = folder / each.name
    partial = partial_name(final)
    with explained(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                came = _fetch_whole(store, each.name, file.fileno(), streams)
                os.fsync(file.fileno())
                os.utime(file.fileno(), ns=(came, came))
            partial.replace(final)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _fetch_whole(store: Store, name: str, file: int, streams: int) -> int:
    """An object of one time, which comes back (ns): diagnostics of a run that goes on are replaced now and then."""
    for _ in range(ANEW - 1):
        with suppress(ReplacedError):
            return _fetch_now(store, name, file, streams)
    return _fetch_now(store, name, file, streams)


def _fetch_now(store: Store, name: str, file: int, streams: int) -> int:
    """An object as it is now, with the checksum that S3 keeps of it, if it does. Raises ReplacedError."""
    url, state = store.location.url(name), store.state(name)
    if state is None:
        raise HpcframeError(f"{url} is gone; `aws s3 ls` shows what is there")
    os.ftruncate(file, state.size)
    for _ in range(READ_TWICE):
        if state.checksum in (None, _fetch_state(store, name, state, file, streams)):
            return nanoseconds(state.modified)
    raise HpcframeError(
        f"{url} arrives with another checksum than S3 keeps of it; try again on another machine, and replace the "
        f"object if that helps no more"
    )


def _fetch_state(store: Store, name: str, state: ObjectState, file: int, streams: int) -> int:
    """The CRC32C of what came. Raises ReplacedError where it is not that object any more."""

    def fetch_one(piece: Piece) -> tuple[int, int]:
        content = np.empty(piece.length, np.uint8)
        store.read(name, piece.offset, content, state.tag)
        write_at(file, content.data, piece.offset)
        return piece.length, crc32c(content)

    with ThreadPoolExecutor(streams) as pool:
        return checksum_of(pool.map(fetch_one, cut(state.size, READ_SIZE)))


def holds(store: Store, name: str, path: Path) -> bool | None:
    """Whether a file is the same as an object; None: it has its size, and S3 knows no checksum. Not collective.

    Raises:
        AwsError, HpcframeError.
    """
    with explained(path):
        state, size = store.state(name), path.stat().st_size
        if state is None or state.size != size:
            return False
        return None if state.checksum is None else _checksum_of_file(path) == state.checksum


def _checksum_of_file(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while content := file.read(READ_SIZE):
            checksum = crc32c(content, checksum)
    return checksum


def nanoseconds(moment: datetime) -> int:
    """A moment in S3, which counts in whole seconds, as files count."""
    return int(moment.timestamp()) * 10**9


def version_of(path: Path) -> tuple[int, int]:
    """Size (bytes) and time of change (ns) of a file. Raises HpcframeError."""
    with explained(path):
        status = path.stat()
        return status.st_size, status.st_mtime_ns


def note_to_come(store: Store, run: Path, objects: Iterable[StoredObject]) -> None:
    """Note files before they are pulled: an uploader of the run may look as soon as they are there."""
    note(store, run, {each.name: (each.size, nanoseconds(each.modified)) for each in objects})


def note(store: Store, run: Path, versions: Mapping[str, tuple[int, int]]) -> None:
    """Record that files of a run's output are in S3 as they are here, so that the run does not push them again.

    Where another location is on record it stays so: the run pushes there. Not collective. Raises HpcframeError.

    Args:
        versions: size (bytes) and time of change (ns), by name.
    """
    place, url = run / STAGING / PUSHED, store.location.url()
    with explained(place):
        try:
            pushed = read_record(place, Pushed) or Pushed(url=url, files={})
        except BrokenRecordError:
            pushed = Pushed(url=url, files={})
        if pushed.url == url:
            pushed.files.update(versions)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_record(place, msgspec.to_builtins(pushed))
