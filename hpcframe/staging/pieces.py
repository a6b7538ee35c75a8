"""A file cut into pieces that each travel in one request, with their checksums. Pure functions.

Pieces end where tiles do, so that the checksum of a piece follows from those of the tiles in the manifest: S3 compares
what arrives with what a rank computed when the data was still in its memory, and no disk between can change it
unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcframe.checkpoint.crc32c import combine, of_zeros
from hpcframe.checkpoint.manifest import Extent

PIECES_AT_MOST = 9000  # of 10,000 that S3 allows


@dataclass(frozen=True)
class Piece:
    """Bytes of a file.

    Attributes:
        number: from 1.
        offset, length: bytes.
        checksum: CRC32C; None: not known.
        extents: what of it has checksums, in order; between them are zeros.
    """

    number: int
    offset: int
    length: int
    checksum: int | None = None
    extents: tuple[Extent, ...] = ()


def cut(length: int, size: int) -> list[Piece]:
    """Pieces of about a size (bytes) of a file of which no checksums are known; one of an empty file."""
    size = _large_enough(length, size)
    begins = range(0, max(length, 1), size)
    return [Piece(number, begin, min(size, length - begin)) for number, begin in enumerate(begins, 1)]


def cut_at_extents(length: int, extents: Iterable[Extent], size: int) -> list[Piece]:
    """Pieces of at least a size (bytes), but the last, that end where extents do. Together they are the whole file."""
    size = _large_enough(length, size)
    pieces: list[Piece] = []
    held: list[Extent] = []
    begin = 0
    for extent in sorted(extents, key=lambda extent: extent.offset):
        held.append(extent)
        end = extent.offset + extent.length
        if end - begin >= size:
            pieces.append(_piece(len(pieces) + 1, begin, end, held))
            begin, held = end, []
    if begin < length or not pieces:
        pieces.append(_piece(len(pieces) + 1, begin, length, held))
    return pieces


def _large_enough(length: int, size: int) -> int:
    return max(size, -(-length // PIECES_AT_MOST))


def _piece(number: int, begin: int, end: int, extents: Sequence[Extent]) -> Piece:
    checksum, at = 0, begin
    for extent in extents:
        checksum = _after_zeros(checksum, extent.offset - at)
        checksum = combine(checksum, extent.checksum, extent.length)
        at = extent.offset + extent.length
    return Piece(number, begin, end - begin, _after_zeros(checksum, end - at), tuple(extents))


def _after_zeros(checksum: int, count: int) -> int:
    return combine(checksum, of_zeros(count), count) if count else checksum


def checksum_of(pieces: Iterable[tuple[int, int]]) -> int:
    """The checksum of a whole, from the lengths (bytes) and checksums of its pieces in order."""
    whole = 0
    for length, checksum in pieces:
        whole = combine(whole, checksum, length)
    return whole


def shared_out(pieces: Sequence[Piece], node: int, nodes: int) -> list[Piece]:
    """Those that a node sends."""
    return [piece for piece in pieces if piece.number % nodes == node]
