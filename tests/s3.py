"""An S3 that runs here: moto's server, a process of its own, behind a proxy that can fail in the ways that S3 does.

`s3_proxy` says what can fail, `s3_rules` what the proxy adds to moto, `s3_fixtures` has the fixtures.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

from s3_proxy import Fault, Proxy

BUCKET = "science"
ANSWER_WITHIN = 30.0  # s for moto to start
ATTEMPTS = 3  # of starting it: somebody else may take the port first
SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
LIBC = ctypes.CDLL(None)  # loaded here, as a child that was forked must not


class S3:
    """The server and its proxy.

    Attributes:
        url: the endpoint.
        environment: for programs that are to use it; nothing else of AWS is asked.
        proxy: faults and counts.
    """

    def __init__(self) -> None:
        self.moto: subprocess.Popen[bytes] | None = None
        self.proxy = Proxy(_free_port())
        self.url = f"http://127.0.0.1:{self.proxy.server_address[1]}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }
        self.proxy.revive()

    def start(self) -> None:
        """Start moto, empty but for the bucket; at the same port as before unless somebody else took it."""
        for attempt in range(ATTEMPTS):
            if self._starts():
                break
            assert attempt < ATTEMPTS - 1, "moto's server does not start"
            self.proxy.moto = _free_port()
        self.proxy.forget()
        self.client.create_bucket(Bucket=BUCKET)

    def _starts(self) -> bool:
        port = str(self.proxy.moto)
        self.moto = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            preexec_fn=_end_with_the_parent if sys.platform == "linux" else None,
        )
        end = time.monotonic() + ANSWER_WITHIN
        while self.moto.poll() is None and time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=1).close()
                return True
            except OSError:
                time.sleep(0.05)
        self.kill()
        return False

    def kill(self) -> None:
        """As by kill -9: all that is stored is gone."""
        assert self.moto is not None
        self.moto.kill()
        self.moto.wait()

    def reset(self) -> None:
        """As if it had just been started."""
        if self.moto is None or self.moto.poll() is not None:
            return self.start()
        request = urllib.request.Request(f"http://127.0.0.1:{self.proxy.moto}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).close()
        self.proxy.forget()
        self.client.create_bucket(Bucket=BUCKET)
        self.proxy.requests.clear()

    def close(self) -> None:
        self.proxy.die()
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
        """A fault for a while; what is yielded counts down. `how`: see `Fault`."""
        fault = Fault(action, **how)
        with self.proxy.lock:
            self.proxy.faults.append(fault)
        try:
            yield fault
        finally:
            with self.proxy.lock:
                self.proxy.faults = [each for each in self.proxy.faults if each is not fault]
            if action == "hang":
                self.proxy.let_go()

    @contextmanager
    def unreachable(self):
        """Connections break, and none is accepted; what is stored stays."""
        self.proxy.die()
        try:
            yield
        finally:
            self.proxy.revive()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _end_with_the_parent() -> None:
    LIBC.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def serve() -> None:
    """A server by itself: the environment for who is to use it is a line of JSON; it ends with its input."""
    server = S3()
    server.start()
    print(json.dumps(server.environment), flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    serve()
