"""What S3 does with requests and moto does not: it compares checksums, remembers them, and lists uploads in full.

A checksum of a whole object is compared where it is CRC32C, as hpcframe's are; of a single body whichever it is.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from hpcframe.checkpoint.crc32c import combine, crc32c

PREFIX = "x-amz-checksum-"
AT_ONCE = 1000  # entries of a listing


def _crc64nvme(body: bytearray) -> bytes:
    from awscrt import checksums

    return checksums.crc64nvme(bytes(body)).to_bytes(8, "big")


ALGORITHMS: dict[str, Callable[[bytearray], bytes]] = {
    "crc32c": lambda body: crc32c(body).to_bytes(4, "big"),
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "sha1": lambda body: hashlib.sha1(body).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
} | ({"crc64nvme": _crc64nvme} if find_spec("awscrt") else {})


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def error(status: int, code: str, message: str = "as asked") -> Answer:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


def in_base64(checksum: int) -> str:
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


@dataclass
class Request:
    """Attributes:
    target: the path as it was sent, with its query.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytearray = field(default_factory=bytearray)

    @cached_property
    def query(self) -> dict[str, str]:
        found = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}

    @cached_property
    def object(self) -> tuple[str, str]:
        """Bucket and key; the key is empty where the bucket is meant."""
        bucket, _, key = unquote(urlsplit(self.target).path).removeprefix("/").partition("/")
        return bucket, key

    @cached_property
    def kind(self) -> str:
        """What it is, in a word or two."""
        if not self.object[1]:
            return self._kind_of_bucket()
        if self.method == "POST":
            return "begin" if "uploads" in self.query else "complete" if "uploadId" in self.query else "post"
        if self.method == "PUT":
            return "part" if "partNumber" in self.query else "put"
        if self.method == "DELETE":
            return "abort" if "uploadId" in self.query else "delete"
        return "list parts" if "uploadId" in self.query else self.method.lower()

    def _kind_of_bucket(self) -> str:
        if "delete" in self.query:
            return "delete"
        if self.method == "GET" and "uploads" in self.query:
            return "list uploads"
        return "list" if self.method == "GET" and "list-type" in self.query else "bucket"

    @property
    def checksums(self) -> dict[str, str]:
        """The headers that name a checksum."""
        names = {name.lower(): value for name, value in self.headers.items()}
        return {f"{PREFIX}{each}": names[f"{PREFIX}{each}"] for each in ALGORITHMS if f"{PREFIX}{each}" in names}


@dataclass
class Part:
    """Attributes:
    checksum: CRC32C, whether it was named or not.
    named: headers of checksums that came with it.
    """

    length: int
    checksum: int
    named: dict[str, str]
    tag: str = ""
    when: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Upload:
    """A multipart upload.

    Attributes:
        begun: tests may set it back.
        algorithm, type: as S3 names them, "" where none was asked for.
        over: it was completed.
    """

    bucket: str
    key: str
    name: str
    algorithm: str
    type: str
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    parts: dict[int, Part] = field(default_factory=dict)
    over: bool = False

    def checksums(self, numbers: Iterable[int]) -> dict[str, str]:
        """The headers that tell the CRC32C of the object that is made of these parts."""
        chosen = [self.parts[number] for number in numbers]
        if self.type != "FULL_OBJECT":
            together = b"".join(part.checksum.to_bytes(4, "big") for part in chosen)
            return {f"{PREFIX}crc32c": f"{in_base64(crc32c(together))}-{len(chosen)}", f"{PREFIX}type": "COMPOSITE"}
        whole = 0
        for part in chosen:
            whole = combine(whole, part.checksum, part.length)
        return {f"{PREFIX}crc32c": in_base64(whole), f"{PREFIX}type": "FULL_OBJECT"}


class Rules:
    """Attributes:
    uploads: by their id; also those that were completed.
    objects: headers that tell the checksum of an object, by bucket and key.
    sent: bytes that came in PUTs and were what their checksum says.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self.objects: dict[tuple[str, str], dict[str, str]] = {}
        self.sent = 0

    # -- before moto gets a request -----------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer | None:
        """The answer to what moto would get wrong; None: moto may answer."""
        if "x-amz-copy-source" in request.headers:
            return error(501, "NotImplemented", "checksums of copies are not known here")
        if request.kind == "list uploads":
            return self._list_uploads(request)
        if request.kind != "complete" and (refused := _compare(request)):
            return refused
        if request.kind in ("part", "complete", "list parts"):
            upload = self.uploads.get(request.query["uploadId"])
            if upload is None or (upload.over and request.kind != "complete"):
                return error(404, "NoSuchUpload", "The specified upload does not exist.")
            if request.kind == "list parts":
                return _list_parts(request, upload)
            refused = _refuse_part(request, upload) if request.kind == "part" else _refuse_complete(request, upload)
            if refused:
                return refused
        if request.method == "PUT":
            with self.lock:
                self.sent += len(request.body)
        return None

    def _list_uploads(self, request: Request) -> Answer:
        """In the order of S3, a page at a time."""
        query, most = request.query, int(request.query.get("max-uploads", AT_ONCE))
        after = (query.get("key-marker", ""), query.get("upload-id-marker", "\U0010ffff"))
        with self.lock:
            uploads = [each for each in self.uploads.values() if not each.over and each.bucket == request.object[0]]
        uploads = [each for each in uploads if each.key.startswith(query.get("prefix", ""))]
        uploads = sorted(each for each in ((u.key, u.name, u) for u in uploads) if each[:2] > after)
        page, more = uploads[:most], len(uploads) > most
        listed = "".join(
            f"<Upload>{_tags(Key=key, UploadId=name, StorageClass='STANDARD', Initiated=_moment(upload.begun))}"
            f"{_algorithm(upload)}</Upload>"
            for key, name, upload in page
        )
        following = _tags(NextKeyMarker=page[-1][0], NextUploadIdMarker=page[-1][1]) if more and page else ""
        head = _tags(Bucket=request.object[0], MaxUploads=most, IsTruncated=str(more).lower())
        return _listing("ListMultipartUploadsResult", head + following + listed)

    # -- after it answered --------------------------------------------------------------------------------------

    def happened(self, request: Request, answer: Answer) -> Answer:
        """Remember what moto did; its answer, with what S3 tells besides."""
        kind, more = request.kind, {}
        if kind == "complete" and answer.status >= 500:  # completed before, and the object is another one by now
            return error(404, "NoSuchUpload", "The specified upload does not exist.")
        if answer.status >= 300:
            return answer
        with self.lock:
            if kind == "begin":
                more = self._began(request, answer)
            elif kind == "part":
                more = self._stored_part(request, answer)
            elif kind == "put":
                more = request.checksums and {**request.checksums, f"{PREFIX}type": "FULL_OBJECT"}
                self.objects[request.object] = more
            elif kind == "complete":
                answer = self._completed(request, answer)
            elif kind == "abort":
                self.uploads.pop(request.query["uploadId"], None)
        return Answer(answer.status, answer.body, {**answer.headers, **more})

    def _began(self, request: Request, answer: Answer) -> dict[str, str]:
        named = re.search(rb"<UploadId>(.*?)</UploadId>", answer.body)
        assert named, "moto began an upload without an id"
        algorithm = request.headers.get(f"{PREFIX}algorithm") or ""
        kind = request.headers.get(f"{PREFIX}type") or ("COMPOSITE" if algorithm else "")
        name = named[1].decode()
        self.uploads[name] = Upload(*request.object, name, algorithm.upper(), kind)
        return {f"{PREFIX}algorithm": algorithm.upper(), f"{PREFIX}type": kind} if algorithm else {}

    def _stored_part(self, request: Request, answer: Answer) -> dict[str, str]:
        upload = self.uploads.get(request.query["uploadId"])
        if upload:  # and not aborted meanwhile
            part = Part(len(request.body), crc32c(request.body), request.checksums, answer.headers["ETag"])
            upload.parts[int(request.query["partNumber"])] = part
        return request.checksums

    def _completed(self, request: Request, answer: Answer) -> Answer:
        upload = self.uploads[request.query["uploadId"]]
        upload.over = True
        checksums = upload.checksums(number for number, *_ in _chosen(request)) if upload.algorithm == "CRC32C" else {}
        self.objects[request.object] = checksums
        if not checksums:
            return answer
        told = _tags(ChecksumCRC32C=checksums[f"{PREFIX}crc32c"], ChecksumType=checksums[f"{PREFIX}type"]).encode()
        end = b"</CompleteMultipartUploadResult>"
        return Answer(answer.status, answer.body.replace(end, told + end), answer.headers)

    def told(self, request: Request, status: int) -> dict[str, str]:
        """Headers of the answer to one who asks for an object and its checksum; of a range S3 has none."""
        asked = request.kind in ("head", "get") and request.headers.get(f"{PREFIX}mode", "").upper() == "ENABLED"
        return self.objects.get(request.object, {}) if asked and status == 200 else {}


def _compare(request: Request) -> Answer | None:
    """What S3 does with the checksums that a request names of its body."""
    for name, given in request.checksums.items():
        if given != base64.b64encode(ALGORITHMS[name.removeprefix(PREFIX)](request.body)).decode():
            return error(400, "BadDigest", f"The {name} you specified did not match the calculated checksum.")
    digest = request.headers.get("Content-MD5")
    if digest and digest != base64.b64encode(hashlib.md5(request.body).digest()).decode():
        return error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
    signed = request.headers.get("x-amz-content-sha256", "")
    # It costs more than all the rest: only where nothing else is compared.
    if request.checksums or digest or not re.fullmatch("[0-9a-f]{64}", signed):
        return None
    same = hashlib.sha256(request.body).hexdigest() == signed
    return None if same else error(400, "XAmzContentSHA256Mismatch", "The provided header does not match.")


def _refuse_part(request: Request, upload: Upload) -> Answer | None:
    """A checksum of another kind than was agreed on; some clients add one unasked."""
    named = set(request.checksums) - {f"{PREFIX}{upload.algorithm.lower()}"}
    if upload.algorithm and named:
        return error(400, "InvalidRequest", f"Checksum Type mismatch occurred, expected: {upload.algorithm}")
    return None


def _chosen(request: Request) -> list[tuple[int, str, str]]:
    """Number, tag and CRC32C, or "", of the parts that a request wants to make an object of."""
    return [
        (int(part.findtext("{*}PartNumber", "0")), part.findtext("{*}ETag", ""), part.findtext("{*}ChecksumCRC32C", ""))
        for part in ElementTree.fromstring(bytes(request.body)).iterfind("{*}Part")
    ]


def _refuse_complete(request: Request, upload: Upload) -> Answer | None:
    chosen, kind = _chosen(request), request.headers.get(f"{PREFIX}type")
    numbers = [number for number, _, _ in chosen]
    if kind and kind != (upload.type or "FULL_OBJECT"):
        return error(400, "InvalidRequest", "The checksum type is not that of CreateMultipartUpload.")
    if numbers != sorted(set(numbers)):
        return error(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
    for number, tag, checksum in chosen:
        part = upload.parts.get(number)
        if part is None or tag.strip('"') != part.tag.strip('"') or checksum not in ("", in_base64(part.checksum)):
            return error(400, "InvalidPart", f"Part {number} could not be found, or is another one.")
    given = request.headers.get(f"{PREFIX}crc32c")
    if given and given != upload.checksums(numbers)[f"{PREFIX}crc32c"]:
        return error(400, "BadDigest", "The CRC32C you specified did not match the calculated checksum.")
    return None


def _list_parts(request: Request, upload: Upload) -> Answer:
    """By number; moto counts them instead, and loses some where numbers are missing."""
    most, after = int(request.query.get("max-parts", AT_ONCE)), int(request.query.get("part-number-marker") or 0)
    parts = sorted((number, part) for number, part in list(upload.parts.items()) if number > after)
    page, more = parts[:most], len(parts) > most
    listed = ""
    for number, part in page:
        named = {f"Checksum{name.removeprefix(PREFIX).upper()}": value for name, value in part.named.items()}
        tags = _tags(PartNumber=number, LastModified=_moment(part.when), ETag=part.tag, Size=part.length, **named)
        listed += f"<Part>{tags}</Part>"
    following = {"NextPartNumberMarker": page[-1][0]} if page else {}
    head = _tags(Bucket=upload.bucket, Key=upload.key, UploadId=upload.name, PartNumberMarker=after, MaxParts=most)
    head += _tags(IsTruncated=str(more).lower(), **following)
    return _listing("ListPartsResult", head + _algorithm(upload) + listed)


def _algorithm(upload: Upload) -> str:
    return _tags(ChecksumAlgorithm=upload.algorithm, ChecksumType=upload.type) if upload.algorithm else ""


def _listing(name: str, content: str) -> Answer:
    text = f'<?xml version="1.0"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{name}>'
    return Answer(200, text.encode(), {"Content-Type": "application/xml"})


def _tags(**values: object) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")
