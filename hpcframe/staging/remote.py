"""Checkpoints in S3: which there are, and reading them by ranges; what comes out has the checksums of the manifest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError, Extent, Manifest, check_extents, decode
from hpcframe.errors import InputError
from hpcframe.staging.location import FOLDER, Choice, RemoteCheckpoint, candidates, checkpoints_in
from hpcframe.staging.options import MIB
from hpcframe.staging.pieces import Piece, checksum_of
from hpcframe.staging.pushing import pieces_of
from hpcframe.staging.store import Store
from hpcframe.staging.url import Location

READ_SIZE = 16 * MIB  # bytes of a request
READ_TWICE = 2  # times that a piece is read before it is bad: the network may have been at fault

Use = Callable[[int, Extent, npt.NDArray[np.uint8]], None]


@dataclass(frozen=True)
class FilePiece:
    """Bytes to read: of the file of that index."""

    file: int
    piece: Piece


def meant(url: str, streams: int = 16) -> tuple[Store, Choice, list[RemoteCheckpoint]]:
    """What a URL means: the location as it stands, where that has checkpoints, or else the run or checkpoint it names.

    So a run finds its own, whatever its prefix looks like.

    Returns:
        The store of the location, what is meant there, and the checkpoints that are, complete or not.

    Not collective. Raises InputError, AwsError.
    """
    for choice in dict.fromkeys((Choice(Location.parse(url)), Choice.parse(url))):
        store = Store(choice.location, streams=streams)
        found = checkpoints_in(store.list(choice.beginning or f"{FOLDER}/"))
        if found:
            break
    return store, choice, found


def chosen(url: str) -> tuple[Store, list[RemoteCheckpoint]]:
    """The checkpoints that a URL means, the best to go on from first. Not collective.

    Raises:
        InputError: it is no URL of S3, or there are none.
        AwsError.
    """
    store, choice, found = meant(url)
    best = candidates(found)
    if not best:
        raise InputError(
            f"{url}: no complete checkpoint is there; `hpcframe stage ls {choice.location.url()}` shows what is"
        )
    return store, best


def read_manifest(store: Store, remote: RemoteCheckpoint) -> tuple[Manifest, str]:
    """The manifest of a checkpoint in S3, and its text; the files are there and as long as it says. Not collective.

    Raises:
        BadCheckpointError: otherwise.
        AwsError.
    """
    try:
        text = store.read_whole(f"{remote.name}/{NAME}").decode()
    except UnicodeDecodeError as error:
        raise BadCheckpointError(f"{NAME} is not text: {error}") from error
    manifest = decode(text)
    check_extents(manifest)
    if manifest.step != remote.step:
        raise BadCheckpointError(f"its {NAME} is that of step {manifest.step}")
    for file in manifest.files:
        size = remote.sizes.get(file.name)
        if "/" in file.name or size != file.length:
            raise BadCheckpointError(f"{file.name} " + ("is not there" if size is None else f"has {size} bytes"))
    return manifest, text


def to_read(manifest: Manifest) -> list[FilePiece]:
    """All of a checkpoint that has checksums, in requests; holes are not read."""
    pieces = [(index, piece) for index in range(len(manifest.files)) for piece in pieces_of(manifest, index, READ_SIZE)]
    return [FilePiece(index, piece) for index, piece in pieces if piece.extents]


def fetch(
    store: Store,
    remote: RemoteCheckpoint,
    manifest: Manifest,
    pieces: Sequence[FilePiece],
    use: Use,
    streams: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Read pieces, several at a time. Not collective.

    Args:
        use: called with each extent and its bytes, once these are found right; from several threads.
        progress: told the bytes of each piece; from any thread.

    Raises:
        BadCheckpointError: what S3 has is not what was written.
        AwsError.
    """
    failed = threading.Event()

    def fetch_one(wanted: FilePiece) -> None:
        if failed.is_set():
            return
        try:
            _fetch_piece(store, f"{remote.name}/{manifest.files[wanted.file].name}", wanted, use)
            progress(wanted.piece.length)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(streams) as pool:
        for read in [pool.submit(fetch_one, wanted) for wanted in pieces]:
            read.result()


def _fetch_piece(store: Store, name: str, wanted: FilePiece, use: Use) -> None:
    """From the first extent to the last: what is around them are holes."""
    extents = wanted.piece.extents
    begin, end = extents[0].offset, extents[-1].offset + extents[-1].length
    content = np.empty(end - begin, np.uint8)
    for attempt in range(READ_TWICE):
        store.read(name, begin, content)
        parts = [content[one.offset - begin : one.offset - begin + one.length] for one in extents]
        wrong = next((o for o, part in zip(extents, parts, strict=True) if crc32c(part) != o.checksum), None)
        if wrong is None:
            break
        if attempt == READ_TWICE - 1:
            raise BadCheckpointError(
                f"{store.location.url(name)}, bytes {wrong.offset} to {wrong.offset + wrong.length}, is not what was "
                f"written: its checksum differs"
            )
    for extent, part in zip(extents, parts, strict=True):
        use(wanted.file, extent, part)


def faults(store: Store, remote: RemoteCheckpoint, streams: int, progress: Callable[[int], None]) -> str:
    """Read all of a checkpoint; "" or what is wrong with it. Not collective. Raises AwsError."""
    try:
        manifest, _ = read_manifest(store, remote)
        fetch(store, remote, manifest, to_read(manifest), lambda *_: None, streams, progress)
    except BadCheckpointError as error:
        return str(error)
    return ""


def faults_by_sums(store: Store, remote: RemoteCheckpoint) -> str:
    """Compare the checksums that S3 keeps of whole objects with the manifest, without reading: "" or what is wrong.
    Not collective. Raises AwsError."""
    try:
        manifest, _ = read_manifest(store, remote)
    except BadCheckpointError as error:
        return str(error)
    for index, file in enumerate(manifest.files):
        pieces = pieces_of(manifest, index, READ_SIZE)
        whole = checksum_of((piece.length, piece.checksum or 0) for piece in pieces)
        found = store.head(f"{remote.name}/{file.name}")
        if found != (file.length, whole):
            return f"{file.name} is not there with the length and the checksum of the manifest: S3 says {found}"
    return ""
