"""One Slurm cluster, and one environment with MPICH, for all tests of a session that ask for them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import environments
from .cluster import Cluster, install

TIME_LIMIT = 400  # seconds: the first test installs Slurm and MPICH


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End a test that hangs by a signal, so that the cluster is stopped: no MPI runs in the process of these tests."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIME_LIMIT, method="signal"))


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[Cluster]:
    """Where it cannot be installed the tests are skipped; where it does not start they fail."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm cluster on this machine needs root")
    try:
        install()
    except RuntimeError as error:
        pytest.skip(f"Slurm cannot be installed: {error}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # sockets need a short path
        cluster = Cluster.start(Path(folder, "cluster"))
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def cluster(started_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with all nodes up and no job. So it is left, whatever the test did."""
    yield started_cluster
    started_cluster.restore()


@pytest.fixture(scope="session")
def mpich_python() -> Path:
    """A Python with hpcframe and MPICH, in .venv-mpich of the checkout."""
    return environments.mpich(environments.CHECKOUT / ".venv-mpich")
