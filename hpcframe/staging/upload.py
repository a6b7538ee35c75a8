"""One file to one object: in parts, by several nodes, again from where an interruption left it.

What is known of an upload under way is a record in `<run>/staging/uploads`, on the file system that all nodes see: each
node sends its share of the parts. What has arrived S3 itself says, so nothing else has to be agreed on, and whoever
comes after an interruption sends what is missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from hpcframe.aws import AwsError, DamagedError
from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.record import BrokenRecordError, read_record, write_record
from hpcframe.errors import HpcframeError
from hpcframe.files import explained, read_at
from hpcframe.staging.pieces import Piece, checksum_of, shared_out
from hpcframe.staging.store import SentPart, Store

UPLOADS = "uploads"  # the folder of the records
LOOK_EVERY = 1.0  # s between two looks at what other nodes have sent
TAKE_OVER = 30.0  # s without a part from other nodes until the first one sends theirs
DAMAGED_AT_MOST = 3  # times that a part may arrive damaged: by then it is no accident of the network


class StoppedError(HpcframeError):
    """The upload was asked to stop; what was sent stays in S3, and is not sent again."""


class DamagedFileError(HpcframeError):
    """The file is not what was written: it does not have the checksums of its manifest."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An upload under way."""

    name: str  # of the object
    upload: str  # the id that S3 gave
    path: str  # of the file
    size: int  # bytes of it
    modified: int  # ns since 1970
    pieces: list[tuple[int, int, int | None]]  # offset, length, checksum
    nodes: int  # that share the parts
    token: str  # of those who do

    def is_of(self, cut: list[tuple[int, int, int | None]], status: os.stat_result) -> bool:
        """Whether it sends these bytes: by their checksums, or else the time of the file's last change."""
        known = all(checksum is not None for _, _, checksum in cut)
        return self.pieces == cut and self.size == status.st_size and (known or self.modified == status.st_mtime_ns)

    def cut(self) -> list[Piece]:
        return [Piece(number, *piece) for number, piece in enumerate(self.pieces, 1)]


class Pace:
    """At most so many bytes a second, of all threads together; 0: no limit."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def delay(self, count: int) -> float:
        """Seconds to wait before these bytes may go."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free)
            self._free = begin + count / self._rate
        return begin - now


class Traffic:
    """What the threads of one process share while they send.

    Attributes:
        stop: set where they are to end soon.
        sent: bytes that arrived.
        progress: called with the bytes of each part that S3 has, when it arrived or was found there; from any thread.
    """

    def __init__(self, streams: int, bandwidth: float = 0.0, progress: Callable[[int], None] = lambda _: None) -> None:
        self.streams = streams
        self.stop = threading.Event()
        self.sent = 0
        self.progress = progress
        self._pace, self._lock = Pace(bandwidth), threading.Lock()

    def wait_for(self, count: int) -> None:
        """Until so many bytes may go. Raises StoppedError."""
        if self.stop.wait(self._pace.delay(count)) or self.stop.is_set():
            raise StoppedError("stopped")

    def pause(self, seconds: float) -> None:
        """Raises StoppedError."""
        if self.stop.wait(seconds):
            raise StoppedError("stopped")

    def arrived(self, count: int) -> None:
        with self._lock:
            self.sent += count
        self.progress(count)

    def was_there(self, count: int) -> None:
        """S3 had these bytes already."""
        self.progress(count)


def send(store: Store, record: Record, pieces: Sequence[Piece], traffic: Traffic) -> None:
    """Send some parts of an upload, several at a time. Not collective.

    Raises:
        StoppedError: asked to.
        DamagedFileError: the file is not what its checksums say.
        AwsError: what S3 or the way to it said; parts that were sent stay.
        OSError: the file cannot be read.
    """
    file = os.open(record.path, os.O_RDONLY)
    failed = threading.Event()

    def send_one(piece: Piece) -> None:
        if failed.is_set():
            return
        try:
            traffic.wait_for(piece.length)
            _send_piece(store, record, piece, file)
            traffic.arrived(piece.length)
        except BaseException:
            failed.set()
            raise

    try:
        with ThreadPoolExecutor(traffic.streams) as pool:
            for sent in [pool.submit(send_one, piece) for piece in pieces]:
                sent.result()
    finally:
        os.close(file)


def read_piece(file: int, path: str, piece: Piece) -> tuple[bytearray, int]:
    """The bytes of a piece, and the checksum that they should have.

    Raises:
        DamagedFileError: the file is shorter than when it was complete.
        HpcframeError: it is shorter than it was.
        OSError: it cannot be read.
    """
    content = bytearray(piece.length)
    try:
        count = read_at(file, np.frombuffer(content, np.uint8), piece.offset) if content else 0
    except OSError as error:
        error.filename = path  # which a descriptor does not tell
        raise
    if count != piece.length and piece.checksum is not None:
        raise DamagedFileError(f"{path} ends at byte {piece.offset + count}, so it is not what was written")
    if count != piece.length:
        raise HpcframeError(f"{path} became shorter while it was sent; it is sent again when it is complete")
    return content, crc32c(content) if piece.checksum is None else piece.checksum


def _send_piece(store: Store, record: Record, piece: Piece, file: int) -> None:
    for attempt in range(DAMAGED_AT_MOST):
        content, checksum = read_piece(file, record.path, piece)
        try:
            store.send(record.name, record.upload, piece.number, content, checksum)
            return
        except DamagedError:
            _refuse_damaged(record.path, piece, content)
            if attempt == DAMAGED_AT_MOST - 1:
                raise


def _refuse_damaged(path: str, piece: Piece, content: bytearray) -> None:
    """Whether it was the disk, or the way to S3, that changed bytes."""
    if piece.checksum is not None and crc32c(content) != piece.checksum:
        raise DamagedFileError(
            f"{path}, bytes {piece.offset} to {piece.offset + piece.length}, is not what was written; it was not sent. "
            f"`hpcframe checkpoint verify` says what else is wrong"
        )


def send_small(store: Store, name: str, path: Path, piece: Piece, traffic: Traffic) -> None:
    """Send a file in one request. Raises as `send` does."""
    file = os.open(path, os.O_RDONLY)
    try:
        for attempt in range(DAMAGED_AT_MOST):
            traffic.wait_for(piece.length)
            content, checksum = read_piece(file, str(path), piece)
            try:
                store.put(name, bytes(content), checksum)
                break
            except DamagedError:
                _refuse_damaged(str(path), piece, content)
                if attempt == DAMAGED_AT_MOST - 1:
                    raise
    finally:
        os.close(file)
    traffic.arrived(piece.length)


class FileUpload:
    """The upload of one file, as the first node sees it through."""

    def __init__(
        self, store: Store, folder: Path, name: str, path: Path, pieces: Sequence[Piece], nodes: int, token: str
    ) -> None:
        """`folder` is that of the records. Not collective; nothing is sent yet."""
        self.store, self.name, self.path, self.pieces = store, name, path, list(pieces)
        self.place = record_of(folder, name)
        self._nodes, self._token = nodes, token

    def run(self, traffic: Traffic) -> None:
        """Send what is missing, wait for what other nodes send, and complete the object. Raises as `send` does."""
        if self._was_completed():
            traffic.was_there(self._size)
            return
        if len(self.pieces) == 1:
            send_small(self.store, self.name, self.path, self.pieces[0], traffic)
            return
        record = self._begun(traffic)
        try:
            self._complete(record, self._sent(record, traffic))
        except DamagedFileError:
            self.store.abort(self.name, record.upload)
            self.place.unlink(missing_ok=True)
            raise
        self.place.unlink(missing_ok=True)

    def _was_completed(self) -> bool:
        """Whether S3 has these very bytes, by the checksum of the whole; what is left of their upload goes then."""
        found = self.store.head(self.name)
        if found is None or found[0] != self._size or found[1] is None or found[1] != self._checksum():
            return False
        former = read(self.place)
        if former:
            self.store.abort(former.name, former.upload)
            self.place.unlink(missing_ok=True)
        return True

    @property
    def _size(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def _checksum(self) -> int:
        """Of the whole; where it is not known, as the file is now."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            return checksum_of(
                (piece.length, read_piece(file, str(self.path), piece)[1] if piece.checksum is None else piece.checksum)
                for piece in self.pieces
            )
        finally:
            os.close(file)

    def _begun(self, traffic: Traffic) -> Record:
        """The record of an upload: that of an earlier one, if it was of the same bytes and S3 still knows it."""
        status = self.path.stat()
        cut = [(piece.offset, piece.length, piece.checksum) for piece in self.pieces]
        former = read(self.place)
        if former and former.is_of(cut, status):
            there = self.store.parts(self.name, former.upload)
            if there is not None:
                traffic.was_there(sum(part.size for part in there.values()))
                record = msgspec.structs.replace(former, path=str(self.path), nodes=self._nodes, token=self._token)
                write_record(self.place, msgspec.to_builtins(record))
                return record
        elif former:
            self.store.abort(former.name, former.upload)
        record = Record(
            name=self.name, upload=self.store.begin(self.name), path=str(self.path), size=status.st_size,
            modified=status.st_mtime_ns, pieces=cut, nodes=self._nodes, token=self._token,
        )  # fmt: skip
        write_record(self.place, msgspec.to_builtins(record))
        return record

    def _sent(self, record: Record, traffic: Traffic) -> dict[int, SentPart]:
        """All parts, once they are there."""
        before, since = -1, time.monotonic()
        while True:
            there = self.store.parts(self.name, record.upload)
            if there is None:
                self.place.unlink(missing_ok=True)
                raise AwsError(f"S3 has let go of the upload of {self.store.location.url(self.name)}; it begins anew")
            missing = missing_of(self.pieces, there)
            if not missing:
                return there
            if len(there) != before:
                before, since = len(there), time.monotonic()
            mine = shared_out(missing, 0, self._nodes)
            if mine or time.monotonic() - since > TAKE_OVER:
                send(self.store, record, mine or missing, traffic)
            else:
                traffic.pause(LOOK_EVERY)

    def _complete(self, record: Record, there: dict[int, SentPart]) -> None:
        parts = [there[piece.number] for piece in self.pieces]
        checksums = [
            part.checksum if piece.checksum is None else piece.checksum
            for piece, part in zip(self.pieces, parts, strict=True)
        ]
        known = [(piece.length, each) for piece, each in zip(self.pieces, checksums, strict=True) if each is not None]
        whole = checksum_of(known) if len(known) == len(parts) else None
        try:
            self.store.complete(self.name, record.upload, parts, whole)
        except AwsError as error:
            if error.code != "NoSuchUpload" or not self._is_there(whole):  # an earlier answer may have been lost
                raise
            return
        if not self._is_there(whole):
            raise DamagedFileError(
                f"{self.store.location.url(self.name)} was completed, and is said to be something else than was sent: "
                f"this server does not keep the checksums that S3 does. It is not sent again"
            )

    def _is_there(self, checksum: int | None) -> bool:
        found = self.store.head(self.name)
        return found is not None and found[0] == self._size and (None in (found[1], checksum) or found[1] == checksum)


def missing_of(pieces: Sequence[Piece], there: dict[int, SentPart]) -> list[Piece]:
    """What S3 does not have yet, or not so."""

    def has(piece: Piece) -> bool:
        part = there.get(piece.number)
        if part is None or part.size != piece.length:
            return False
        return None in (part.checksum, piece.checksum) or part.checksum == piece.checksum

    return [piece for piece in pieces if not has(piece)]


def record_of(folder: Path, name: str) -> Path:
    """Where the record of an object's upload is."""
    return folder / f"{name.replace('/', '.')}.json"


def read(place: Path) -> Record | None:
    """A record; None where there is none, or it is not whole. Raises HpcframeError where it cannot be read."""
    with explained(place):
        try:
            return read_record(place, Record)
        except BrokenRecordError:
            return None


def help_with(store: Store, folder: Path, token: str, node: int, traffic: Traffic) -> bool:
    """Send this node's share of what is under way; whether there was anything. Raises as `send` does."""
    found = False
    for place in sorted(folder.glob("*.json")):
        record = read(place)
        if record is None or record.token != token:
            continue
        there = store.parts(record.name, record.upload)
        mine = shared_out(missing_of(record.cut(), there), node, record.nodes) if there is not None else []
        if mine:
            found = True
            send(store, record, mine, traffic)
    return found
