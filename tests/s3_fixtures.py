"""Fixtures for tests that need an S3; such a test's module says `pytest_plugins = ["s3_fixtures"]`."""

import os

import pytest
from s3 import S3

from hpcframe.checkpoint import tiles


@pytest.fixture(scope="session")
def s3_server():
    server = S3()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """An empty S3, which this process and those that it starts use, and nothing else of AWS."""
    s3_server.reset()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    mistakes, s3_server.proxy.mistakes = s3_server.proxy.mistakes, []
    assert not mistakes, "".join(mistakes)


@pytest.fixture
def large(monkeypatch):
    """Tiles of a megabyte, so that files of a test have many parts."""
    monkeypatch.setattr(tiles, "TILE_BYTES", 2**20)
