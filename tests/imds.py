"""EC2's metadata service, on loopback."""

import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from waiting import until


class Imds:
    """A metadata service of the second version on loopback: without a token it tells nothing.

    Attributes:
        answers: path below /latest/meta-data/ -> a body, or a status to answer, or None to hang; others are 404.
        requests, tokens, refused: how many GET requests there were, tokens were given, tokens were not accepted.
    """

    def __init__(self) -> None:
        service = self
        self.answers: dict[str, str | int | None] = {}
        self.requests = self.tokens = self.refused = 0
        self.expiries: dict[str, float] = {}  # of a token
        self.over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                life = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                if self.path != "/latest/api/token" or not 1 <= int(life) <= 21600:
                    return self.answer(400, "")
                token = f"{os.urandom(16).hex()}=="
                service.expiries[token] = time.monotonic() + int(life)
                service.tokens += 1
                self.answer(200, token)

            def do_GET(self) -> None:
                service.requests += 1
                expiry = service.expiries.get(self.headers["X-aws-ec2-metadata-token"], 0.0)
                if time.monotonic() > expiry:
                    service.refused += 1
                    return self.answer(401, "")
                found = service.answers.get(self.path.removeprefix("/latest/meta-data/"), 404)
                if found is None:
                    service.over.wait()
                elif isinstance(found, int):
                    self.answer(found, "<html>an error</html>")
                else:
                    self.answer(200, found)

            def answer(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Imds":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def forget_tokens(self) -> None:
        self.expiries.clear()

    def polled_twice(self) -> None:
        """Wait until somebody has seen what it answers now."""
        enough = self.requests + 4
        until(lambda: self.requests >= enough)


def moment(seconds: float) -> str:
    """A time from now, as EC2 writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def spot_notice(seconds: float) -> str:
    return json.dumps({"action": "terminate", "time": moment(seconds)})
