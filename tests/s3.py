"""An S3 that runs here: moto's server, a process of its own, behind a proxy that can fail in the ways that S3 does.

The proxy also does what S3 does and moto does not: it compares CRC32C checksums of what arrives, of whole objects too.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from hpcframe.checkpoint.crc32c import combine, crc32c

BUCKET = "science"
ANSWER_WITHIN = 20.0  # s for moto to start
CHECKSUM = "x-amz-checksum-crc32c"
ANSWERS = {  # of S3, by the fault: status, code
    "slow down": (503, "SlowDown"),
    "internal": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "no bucket": (404, "NoSuchBucket"),
}
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}  # headers of one connection


@dataclass
class Fault:
    """What goes wrong with requests.

    Attributes:
        action: a key of ANSWERS; "drop": the connection breaks halfway; "corrupt": a bit of what is sent changes
            before it is compared; "corrupt answer": of what is received; "delay": `seconds` pass; "refuse": none is
            accepted.
        method, path: of the requests, regular expressions; the path with its query.
        count: how many times; None: always.
    """

    action: str
    method: str = ".*"
    path: str = ".*"
    count: int | None = None
    seconds: float = 0.0
    after: int = 0  # requests that go well first

    def hits(self, method: str, path: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path) or self.count == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Proxy(ThreadingHTTPServer):
    """Attributes:
    faults: what goes wrong now.
    requests: how many came, by kind.
    sent: bytes that arrived in PUTs.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moto = port
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.sent = 0
        self.parts: dict[str, dict[int, tuple[int, int]]] = {}  # of each upload: length and checksum by number
        self.checksums: dict[str, str] = {}  # of whole objects, by path
        self.lock = threading.Lock()

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            return next((fault for fault in self.faults if fault.hits(method, path)), None)


def kind_of(method: str, path: str) -> str:
    """What a request is, in a word or two."""
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if method == "POST":
        return "begin" if "uploads" in query else "delete" if "delete" in query else "complete"
    if method == "PUT":
        return "part" if "partNumber" in query else "put"
    if method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    return "list parts" if "uploadId" in query else {"HEAD": "head", "GET": "get"}.get(method, method)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fault = self.server.fault(self.command, self.path)
        with self.server.lock:
            self.server.requests[kind_of(self.command, self.path)] += 1
        if fault and fault.action == "drop":
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = bytearray(self.rfile.read(length))
        if fault and fault.action == "delay":
            time.sleep(fault.seconds)
        if fault and fault.action == "corrupt" and body:
            body[len(body) // 2] ^= 1
        if fault and fault.action in ANSWERS:
            self.answer(*ANSWERS[fault.action])
        elif not self.compare(body):
            self.answer(400, "BadDigest")
        else:
            self.forward(bytes(body), corrupt=fault is not None and fault.action == "corrupt answer")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    def answer(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>as asked</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def compare(self, body: bytearray) -> bool:
        """What S3 does with the checksum that a request names."""
        given, path = self.headers.get(CHECKSUM), urlsplit(self.path)
        query, kind = parse_qs(path.query), kind_of(self.command, self.path)
        if kind == "complete":
            numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", body)]
            parts = self.server.parts.get(query["uploadId"][0], {})
            whole = 0
            for length, checksum in (parts.get(number, (0, 0)) for number in numbers):
                whole = combine(whole, checksum, length)
            if given and given != in_base64(whole):
                return False
            self.server.checksums[path.path] = in_base64(whole)
        if self.command == "PUT":
            checksum = crc32c(body)
            if given and given != in_base64(checksum):
                return False
            with self.server.lock:
                self.server.sent += len(body)
                if kind == "part":
                    parts = self.server.parts.setdefault(query["uploadId"][0], {})
                    parts[int(query["partNumber"][0])] = (len(body), checksum)
                else:
                    self.server.checksums[path.path] = in_base64(checksum)
        return True

    def forward(self, body: bytes, corrupt: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.moto, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = bytearray(answer.read())
        except OSError:  # moto is dead
            self.close_connection = True
            return
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP and not name.lower().startswith("x-amz-checksum"):
                self.send_header(name, value)
        self.add_checksum(answer.status)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if corrupt and content:
            content[len(content) // 2] ^= 1
        with suppress(OSError):  # who asked has gone
            self.wfile.write(content)

    def add_checksum(self, status: int) -> None:
        """Of the whole object, for who asks for it."""
        known = self.server.checksums.get(urlsplit(self.path).path)
        if status == 200 and self.command == "HEAD" and self.headers.get("x-amz-checksum-mode") and known:
            self.send_header(CHECKSUM, known)
            self.send_header("x-amz-checksum-type", "FULL_OBJECT")


def in_base64(checksum: int) -> str:
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


class S3:
    """The server and its proxy.

    Attributes:
        environment: for programs that are to use it; nothing else of AWS is asked.
        client: boto3's, for tests.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.moto: subprocess.Popen[bytes] | None = None
        self.proxy = Proxy(self.port)
        self.url = f"http://127.0.0.1:{self.proxy.server_address[1]}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()

    def start(self) -> None:
        """Start moto, empty but for the bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.moto = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_end_with_the_parent
        )
        end = time.monotonic() + ANSWER_WITHIN
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/moto-api/", timeout=1).close()
                break
            except OSError:
                assert self.moto.poll() is None and time.monotonic() < end, "moto's server does not start"
                time.sleep(0.05)
        self.client.create_bucket(Bucket=BUCKET)

    def kill(self) -> None:
        assert self.moto is not None
        self.moto.kill()
        self.moto.wait()

    def reset(self) -> None:
        """As if it had just been started."""
        if self.moto is None or self.moto.poll() is not None:
            self.start()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).close()
        with self.proxy.lock:
            self.proxy.faults, self.proxy.sent = [], 0
            self.proxy.requests.clear()
            self.proxy.parts.clear()
            self.proxy.checksums.clear()
        self.client.create_bucket(Bucket=BUCKET)

    def close(self) -> None:
        self.proxy.shutdown()
        self.proxy.server_close()
        if self.moto:
            self.kill()

    @property
    def client(self):
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )  # fmt: skip

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def unfinished(self) -> list[str]:
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    @contextmanager
    def failing(self, action: str, **how):
        """A fault for a while; what is yielded counts down."""
        fault = Fault(action, **how)
        with self.proxy.lock:
            self.proxy.faults.append(fault)
        try:
            yield fault
        finally:
            with self.proxy.lock:
                if fault in self.proxy.faults:
                    self.proxy.faults.remove(fault)


def _end_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
