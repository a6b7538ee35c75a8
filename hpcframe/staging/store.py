"""Objects in S3 below a location: what hpcframe asks of it, request by request."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from hpcframe.aws import AwsError, DamagedError, RefusedError, client, explaining
from hpcframe.staging.location import StoredObject
from hpcframe.staging.options import Options
from hpcframe.staging.url import Location

ABSENT = {"NoSuchKey", "NotFound"}
REPLACED = {"PreconditionFailed", "412"}
ARCHIVED = "InvalidObjectState"  # the code of what is in a class that cannot be read at once
DELETED_AT_ONCE = 1000  # objects that one request deletes
READ_ATTEMPTS, PAUSE = 6, 0.2  # of reading a range whose connection breaks; s, doubled each time

T = TypeVar("T")


@dataclass(frozen=True)
class SentPart:
    """A part of an upload, as S3 lists it. The checksum is CRC32C; None where S3 does not tell."""

    number: int
    size: int
    tag: str
    checksum: int | None
    arrived: datetime


@dataclass(frozen=True)
class ObjectState:
    """What S3 says of an object: bytes, and the CRC32C of all of it; None where S3 does not tell.

    Attributes:
        tag: S3's ETag, another one for another content.
        modified: when it came.
    """

    size: int
    checksum: int | None
    tag: str
    modified: datetime


class ReplacedError(AwsError):
    """The object is another one than when it was asked for, or gone: what was read of it is of no use."""


@dataclass(frozen=True)
class Unfinished:
    """A multipart upload that was begun and neither completed nor aborted: its parts are stored, and paid for."""

    name: str
    upload: str
    begun: datetime


class Store:
    """Objects below a location. Its methods may be called from several threads; none is collective.

    All raise `RefusedError` where somebody has to change something first, and `AwsError` where it may work later.
    """

    def __init__(self, location: Location, options: Options | None = None, streams: int = 16) -> None:
        """Nothing is asked of S3 yet. `options` say how objects are stored; None: this store only reads."""
        self.location = location
        self._streams = options.streams if options else streams
        self._stored = _stored(options) if options else {}
        self._client: Any = None
        self._process = 0

    @property
    def client(self) -> Any:
        """Made by the process that uses it: the connections of another one must not be used after a fork."""
        if self._process != os.getpid():
            self._client, self._process = client("s3", self._streams + 2), os.getpid()
        return self._client

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.key(name)}

    # -- looking ------------------------------------------------------------------------------------------------

    def list(self, beginning: str = "") -> Iterator[StoredObject]:
        """All objects whose names begin so."""
        with explaining(f"listing {self.location.url(beginning)}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.location.bucket, Prefix=self.location.key(beginning)
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    name = entry["Key"].removeprefix(self.location.prefix)
                    yield StoredObject(name, entry["Size"], entry["LastModified"])

    def head(self, name: str) -> tuple[int, int | None] | None:
        """Bytes and CRC32C of the whole object, None where S3 has none; None where there is no such object."""
        found = self.state(name)
        return (found.size, found.checksum) if found else None

    def state(self, name: str) -> ObjectState | None:
        """What an object is now; None where there is no such object."""
        try:
            with explaining(f"asking for {self.location.url(name)}"):
                found = self.client.head_object(**self._where(name), ChecksumMode="ENABLED")
        except AwsError as error:
            if error.code in ABSENT:
                return None
            raise
        whole = found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        checksum = _number(found.get("ChecksumCRC32C")) if whole else None
        return ObjectState(found["ContentLength"], checksum, found["ETag"], found["LastModified"])

    def read(self, name: str, offset: int, into: npt.NDArray[np.uint8], tag: str = "") -> None:
        """Fill `into` from a position (bytes) of an object. Connections that break are tried again.

        Args:
            tag: of the object as it was asked for; "": as it is.

        Raises:
            ReplacedError: it has another tag by now, or is gone.
        """
        if into.size:
            _insisting(lambda: self._read(name, offset, into, tag))

    def _read(self, name: str, offset: int, into: npt.NDArray[np.uint8], tag: str) -> None:
        what = f"reading bytes {offset} to {offset + into.size} of {self.location.url(name)}"
        condition = {"IfMatch": tag} if tag else {}
        with _noticing_replacement(tag), explaining(what):
            answer = self.client.get_object(
                **self._where(name), Range=f"bytes={offset}-{offset + into.size - 1}", **condition
            )
            view, body = into.data, answer["Body"]
            while view:
                count = body.readinto(view)
                if not count:
                    raise AwsError(f"{what}: the answer ends {len(view)} bytes early")
                view = view[count:]

    def read_whole(self, name: str) -> bytes:
        """A small object."""
        what = f"reading {self.location.url(name)}"

        def get() -> bytes:
            with explaining(what):
                content: bytes = self.client.get_object(**self._where(name))["Body"].read()
            return content

        return _insisting(get)

    # -- storing ------------------------------------------------------------------------------------------------

    def put(self, name: str, content: bytes, checksum: int, only_new: bool = False) -> bool:
        """Store a small object.

        Args:
            checksum: CRC32C, which S3 compares.
            only_new: leave an object of that name as it is.

        Returns:
            Whether it was stored: False where there is one already.

        Raises:
            DamagedError: what arrived has another checksum.
        """
        condition = {"IfNoneMatch": "*"} if only_new else {}
        try:
            with explaining(f"storing {self.location.url(name)}"):
                self.client.put_object(
                    **self._where(name), Body=content, ChecksumCRC32C=_text(checksum), **condition, **self._stored
                )
        except AwsError as error:
            if only_new and error.code in REPLACED:
                return False
            raise
        return True

    def begin(self, name: str) -> str:
        """Begin a multipart upload; its id."""
        with explaining(f"beginning to store {self.location.url(name)}"):
            begun = self.client.create_multipart_upload(
                **self._where(name), ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT", **self._stored
            )
        return str(begun["UploadId"])

    def parts(self, name: str, upload: str) -> dict[int, SentPart] | None:
        """The parts of an upload that S3 has, by number; None where there is no such upload any more."""
        try:
            with explaining(f"listing what S3 has of {self.location.url(name)}"):
                pages = self.client.get_paginator("list_parts").paginate(**self._where(name), UploadId=upload)
                found = [part for page in pages for part in page.get("Parts", ())]
        except AwsError as error:
            if error.code == "NoSuchUpload":
                return None
            raise
        return {
            part["PartNumber"]: SentPart(
                part["PartNumber"],
                part["Size"],
                part["ETag"],
                _number(part.get("ChecksumCRC32C")),
                part["LastModified"],
            )
            for part in found
        }

    def send(self, name: str, upload: str, number: int, content: bytearray, checksum: int) -> str:
        """Store a part of an upload; its tag. Raises DamagedError where what arrives has another CRC32C."""
        with explaining(f"storing part {number} of {self.location.url(name)}"):
            sent = self.client.upload_part(
                **self._where(name),
                UploadId=upload,
                PartNumber=number,
                Body=content,
                ChecksumAlgorithm="CRC32C",
                ChecksumCRC32C=_text(checksum),
            )
        return str(sent["ETag"])

    def complete(self, name: str, upload: str, parts: Sequence[SentPart], checksum: int | None) -> None:
        """Make an object of all parts of an upload. Raises DamagedError where it has another CRC32C."""
        listed = [
            {"PartNumber": part.number, "ETag": part.tag}
            | ({} if part.checksum is None else {"ChecksumCRC32C": _text(part.checksum)})
            for part in parts
        ]
        whole = {} if checksum is None else {"ChecksumCRC32C": _text(checksum), "ChecksumType": "FULL_OBJECT"}
        with explaining(f"completing {self.location.url(name)}"):
            self.client.complete_multipart_upload(
                **self._where(name), UploadId=upload, MultipartUpload={"Parts": listed}, **whole
            )

    # -- tidying up ---------------------------------------------------------------------------------------------

    def unfinished(self, beginning: str = "") -> Iterator[Unfinished]:
        """Uploads of objects whose names begin so that were begun and not ended."""
        with explaining(f"listing unfinished uploads in {self.location.url(beginning)}"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.location.bucket, Prefix=self.location.key(beginning)
            )
            for page in pages:
                for entry in page.get("Uploads", ()):
                    name = entry["Key"].removeprefix(self.location.prefix)
                    yield Unfinished(name, entry["UploadId"], entry["Initiated"])

    def abort(self, name: str, upload: str) -> None:
        """Let go of an upload and of its parts. A part that was under way meanwhile may stay: so look again."""
        try:
            with explaining(f"aborting the upload of {self.location.url(name)}"):
                self.client.abort_multipart_upload(**self._where(name), UploadId=upload)
        except AwsError as error:
            if error.code not in ("NoSuchUpload", "NotFound"):
                raise

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are none to delete."""
        keys = [{"Key": self.location.key(name)} for name in names]
        for first in range(0, len(keys), DELETED_AT_ONCE):
            with explaining(f"deleting objects in {self.location.url()}"):
                answer = self.client.delete_objects(
                    Bucket=self.location.bucket,
                    Delete={"Objects": keys[first : first + DELETED_AT_ONCE], "Quiet": True},
                )
            for error in answer.get("Errors", ()):
                why = f"{error['Code']}: {error.get('Message', '')}; the role needs s3:DeleteObject"
                raise RefusedError(f"deleting s3://{self.location.bucket}/{error['Key']}: {why}", error["Code"])


def _stored(options: Options) -> dict[str, Any]:
    """How objects are stored, as boto3 has it."""
    found: dict[str, Any] = {"StorageClass": options.storage_class}
    if options.kms_key:
        found |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": options.kms_key}
    if options.tags:
        found["Tagging"] = urlencode(options.tags)
    return found


def _text(checksum: int) -> str:
    """A CRC32C as S3 writes it."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def _number(text: str | None) -> int | None:
    return int.from_bytes(base64.b64decode(text), "big") if text and "-" not in text else None


@contextmanager
def _noticing_replacement(tag: str) -> Iterator[None]:
    try:
        yield
    except AwsError as error:
        if tag and error.code in {*ABSENT, *REPLACED}:
            raise ReplacedError(f"{error}; it was replaced or removed while it was read", error.code) from error
        raise


def _insisting(action: Callable[[], T]) -> T:
    """Try again what may work later, after pauses that grow and differ between those who ask at the same time."""
    for attempt in range(READ_ATTEMPTS - 1):
        try:
            return action()
        except (RefusedError, DamagedError, ReplacedError):
            raise
        except AwsError as error:
            if error.code in ABSENT:
                raise
            time.sleep(random.uniform(0.5, 1.0) * PAUSE * 2**attempt)
    return action()
