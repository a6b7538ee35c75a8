"""What stands before moto's server: it keeps to S3's rules, fails in the ways that S3 does, and counts.

Tests in the same process use the attributes of `Proxy`; other processes, over HTTP:
    POST /_faults with a list of what `Fault` takes, as JSON, sets the faults; GET shows them.
    GET /_requests gives {"requests": {kind: count}, "sent": bytes}; POST begins anew.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from s3_rules import PREFIX, Answer, Request, Rules, error

CHUNK = 2**20  # bytes of an answer that are passed on at a time
ANSWER_WITHIN = 100.0  # s for moto
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "expect"}  # headers of one connection
ANSWERS = {  # of S3, by the fault: status, code
    "slow down": (503, "SlowDown"),
    "internal": (500, "InternalError"),
    "late internal": (200, "InternalError"),  # a Complete that took long may fail so
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "conflict": (409, "ConditionalRequestConflict"),
    "no bucket": (404, "NoSuchBucket"),
    "503": (503, "SlowDown"),
    "500": (500, "InternalError"),
    "403": (403, "AccessDenied"),
}
ACTIONS = {*ANSWERS, "drop", "lose answer", "corrupt", "corrupt answer", "delay", "hang"}
CHANCE = random.Random(1)  # the same in every run


@dataclass
class Fault:
    """What goes wrong with requests.

    Attributes:
        action: a key of ANSWERS; "drop": the connection breaks halfway through what is sent, or else received;
            "lose answer": S3 does it, and the connection breaks before it says so; "corrupt": a bit of what is sent,
            or else received, changes before it is compared; "corrupt answer": of what is received; "delay": `seconds`
            pass; "hang": there is no answer until the fault is over.
        method, path: of the requests, regular expressions; the path with its query.
        count: how many times; None: always.
        after: requests that go well first.
        fraction: of the requests, drawn by chance.
    """

    action: str
    method: str = ".*"
    path: str = ".*"
    count: int | None = None
    seconds: float = 0.0
    after: int = 0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"no fault {self.action!r}; there are {sorted(ACTIONS)}")

    def hits(self, method: str, path: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path) or self.count == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if CHANCE.random() >= self.fraction:
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Proxy(ThreadingHTTPServer):
    """Serves from `revive` on.

    Attributes:
        moto: the port of moto's server.
        faults: what goes wrong now; the first that hits counts.
        requests: how many came, by `Request.kind`, those that failed too.
        rules: what it knows of uploads and objects.
        mistakes: its own, not those it was asked to make.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, moto: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moto = moto
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.rules = Rules()
        self.lock = threading.Lock()
        self.one_at_a_time = threading.Lock()  # requests with a condition, which moto does not decide at once
        self.over = threading.Event()  # ends what hangs
        self.open: set[socket.socket] = set()
        self.mistakes: list[str] = []

    @property
    def sent(self) -> int:
        """Bytes that arrived whole in PUTs."""
        return self.rules.sent

    @property
    def uploads(self):
        """Those that were begun and neither completed nor aborted, by id."""
        return {name: upload for name, upload in self.rules.uploads.items() if not upload.over}

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            return next((fault for fault in self.faults if fault.hits(method, path)), None)

    def forget(self) -> None:
        """No faults, no requests, no objects."""
        with self.lock:
            self.faults = []
            self.requests.clear()
        self.rules.forget()
        self.let_go()

    def let_go(self) -> None:
        """End what hangs."""
        self.over.set()
        self.over = threading.Event()

    def die(self) -> None:
        """Break all connections and accept none."""
        self.let_go()
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def revive(self) -> None:
        """Accept connections, at the same port as ever."""
        if self.socket.fileno() < 0:
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_bind()
            self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Those who asked may have gone, as programs under test are killed at any time. Else it is wrong itself."""
        if not isinstance(sys.exception(), OSError):
            self.mistakes.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are sent one after the other: the body would wait for 40 ms
    server: Proxy

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle_expect_100(self) -> bool:
        """Those who wait for leave to send a body get it, or the reason why not, as soon as that is known."""
        return True

    def do_any(self) -> None:
        if self.path.startswith("/_"):
            return self.control()
        self.length = int(self.headers.get("Content-Length") or 0)
        request = Request(self.command, self.path, self.headers)
        fault = self.server.fault(self.command, self.path)
        with self.server.lock:
            self.server.requests[request.kind] += 1
        action = fault.action if fault else ""
        if fault and action in ("delay", "hang"):
            self.server.over.wait(fault.seconds if action == "delay" else None)
        if action == "hang" or (action == "drop" and self.length):
            self.read(self.length // 2)
            self.break_off()
        elif action in ANSWERS:
            self.refuse(error(*ANSWERS[action]))
        elif "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.refuse(error(501, "NotImplemented", "give the length of the body"))
        else:
            request.body = self.read(self.length)
            self.carry_out(request, action)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    def read(self, length: int) -> bytearray:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(http.HTTPStatus.CONTINUE)
            self.end_headers()
        body = bytearray(length)
        if self.rfile.readinto(body) < length:
            raise ConnectionError("it ends early")
        return body

    def refuse(self, answer: Answer) -> None:
        """Answer without having read the body: one that was announced need not be sent."""
        if "Expect" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        else:
            self.read(self.length)
        self.answer(answer)

    def carry_out(self, request: Request, action: str) -> None:
        if action == "corrupt" and request.body:
            request.body[len(request.body) // 2] ^= 1
        elif action == "corrupt":
            action = "corrupt answer"
        if answer := self.server.rules.answer(request):
            return self.answer(answer)
        try:
            if "If-None-Match" in self.headers:
                with self.server.one_at_a_time:
                    return self.forward(request, action)
            self.forward(request, action)
        except (OSError, http.client.HTTPException):  # moto is dead, or who asked
            self.break_off()

    def forward(self, request: Request, action: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.moto, timeout=ANSWER_WITHIN)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        headers["Content-Length"] = str(len(request.body))
        try:
            connection.request(self.command, self.path, memoryview(request.body), headers)
            answer = connection.getresponse()
            if request.kind in ("get", "head"):
                return self.pass_on(request, answer, action)
            told = {name: value for name, value in answer.getheaders() if _passes(name)}
            found = self.server.rules.happened(request, Answer(answer.status, answer.read(), told))
        finally:
            connection.close()
        if action == "lose answer":
            self.break_off()
        else:
            self.answer(found)

    def pass_on(self, request: Request, answer: http.client.HTTPResponse, action: str) -> None:
        """An object, a piece at a time."""
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if _passes(name):
                self.send_header(name, value)
        for name, value in self.server.rules.told(request, answer.status).items():
            self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length", "0"))
        if action == "lose answer":
            return self.break_off()
        self.end_headers()
        for piece in _pieces(answer, action):
            self.wfile.write(piece)
        if action == "drop":
            self.break_off()

    def answer(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def break_off(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def control(self) -> None:
        server, body = self.server, self.read(int(self.headers.get("Content-Length") or 0))
        if self.path not in ("/_faults", "/_requests"):
            return self.answer(error(404, "NoSuchControl", "there are /_faults and /_requests"))
        try:
            faults = [Fault(**each) for each in json.loads(body)] if body else []
        except (TypeError, ValueError) as wrong:
            return self.answer(error(400, "InvalidFault", str(wrong)))
        with server.lock:
            if self.command == "POST" and self.path == "/_faults":
                server.faults = faults
            elif self.command == "POST":
                server.requests.clear()
                server.rules.sent = 0
            faults = [asdict(fault) for fault in server.faults]
            requests = {"requests": dict(server.requests), "sent": server.sent}
        found = json.dumps(faults if self.path == "/_faults" else requests)
        self.answer(Answer(200, found.encode(), {"Content-Type": "application/json"}))


def _passes(header: str) -> bool:
    """Moto's checksums are not those of S3."""
    return header.lower() not in HOP and not header.lower().startswith(PREFIX)


def _pieces(answer: http.client.HTTPResponse, action: str) -> Iterator[memoryview]:
    """The body of an answer, or half of it, or with a bit that differs."""
    length, done, buffer = answer.length or 0, 0, memoryview(bytearray(CHUNK))
    middle = length // 2
    while done < length and (count := answer.readinto(buffer)):
        if action == "corrupt answer" and done <= middle < done + count:
            buffer[middle - done] ^= 1
        if action == "drop" and done + count > middle:
            yield buffer[: middle - done]
            return
        yield buffer[:count]
        done += count
