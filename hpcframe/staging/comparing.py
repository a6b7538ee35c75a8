"""Whether an object in S3 holds what a file holds. No MPI."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError
from hpcframe.files import read_at
from hpcframe.staging.local import load
from hpcframe.staging.pieces import Piece, cut
from hpcframe.staging.pushing import pieces_of
from hpcframe.staging.remote import READ_SIZE
from hpcframe.staging.store import Store
from hpcframe.staging.url import Location


def differs(path: Path, url: str) -> str:
    """ "" or what of an object is not as it should be. Not collective.

    A file of a checkpoint is compared with its manifest, so that a damaged file does not count as right because its
    object is as damaged; any other one byte by byte.

    Raises:
        AwsError.
        OSError: the file cannot be read.
    """
    whole = Location.parse(url)
    folder, _, name = whole.prefix.rstrip("/").rpartition("/")
    store = Store(Location(whole.bucket, f"{folder}/" if folder else ""))
    found, size = store.head(name), path.stat().st_size
    if found is None:
        return f"{url} is not there"
    if found[0] != size:
        return f"{url} has {found[0]} bytes, the file {size}"
    pieces, wrong = _pieces(path)
    return wrong or next((fault for piece in pieces if (fault := _fault(store, name, path, piece))), "")


def _pieces(path: Path) -> tuple[list[Piece], str]:
    """The pieces of a file, with checksums where a manifest beside it has them."""
    if not (path.parent / NAME).is_file() or path.name == NAME:
        return cut(path.stat().st_size, READ_SIZE), ""
    try:
        manifest, _, _ = load(path.parent)
    except BadCheckpointError as error:
        return [], f"its checkpoint is bad: {error}"
    names = [file.name for file in manifest.files]
    if path.name not in names:
        return cut(path.stat().st_size, READ_SIZE), ""
    return pieces_of(manifest, names.index(path.name), READ_SIZE), ""


def _fault(store: Store, name: str, path: Path, piece: Piece) -> str:
    there = np.empty(piece.length, np.uint8)
    store.read(name, piece.offset, there)
    if piece.checksum is None:
        here, file = np.empty(piece.length, np.uint8), os.open(path, os.O_RDONLY)
        try:
            same = read_at(file, here, piece.offset) == piece.length and np.array_equal(here, there)
        finally:
            os.close(file)
    else:
        same = crc32c(there) == piece.checksum
    end = piece.offset + piece.length
    return "" if same else f"bytes {piece.offset} to {end} of {store.location.url(name)} are not those of the file"
