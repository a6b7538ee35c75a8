"""The memory's bandwidth: measured by all ranks at once, once a kind of machine, and then known to all or to none."""

import shutil
import tempfile
from pathlib import Path

import pytest
from reference import everywhere

from hpcframe.grid.communicator import connect
from hpcframe.simulation import bandwidth

pytestmark = pytest.mark.mpi


@pytest.fixture
def folder(comm, monkeypatch):
    """A cache of this test's own, and a measurement that is short."""
    name = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    monkeypatch.setenv("HPCFRAME_CACHE_DIR", name)
    monkeypatch.setattr(bandwidth, "ELEMENTS_A_NODE", 1 << 12)
    monkeypatch.setattr(bandwidth, "LEAST_ELEMENTS_A_RANK", 1 << 12)
    monkeypatch.setattr(bandwidth, "SECONDS", 1e-4)
    yield Path(name)
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(name)


def kept(folder):
    return list(folder.glob("bandwidth-*.json"))


def test_all_ranks_measure_the_same_and_later_runs_know_the_greatest(comm, folder):
    found = [bandwidth.measure(connect(comm)) for _ in range(bandwidth.MEASUREMENTS)]
    assert everywhere(comm, found[0] > 0 and found == comm.bcast(found) and found == sorted(found))
    assert everywhere(comm, len(kept(folder)) == 1)
    assert everywhere(comm, bandwidth.measure(connect(comm)) == found[-1])


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", '{"bytes_per_second": "fast"}', '{"bytes_per_second": 0}', '{"bytes_per_second": 1e30}',
        '{"bytes_per_second": 0, "measurements": 9}',
    ],
)  # fmt: skip
def test_a_file_that_tells_nothing_is_measured_again(comm, folder, content):
    bandwidth.measure(connect(comm))
    comm.Barrier()
    if comm.rank == 0:
        kept(folder)[0].write_text(content)
    comm.Barrier()
    assert everywhere(comm, 0 < bandwidth.measure(connect(comm)) < 1e30)
    assert everywhere(comm, kept(folder)[0].read_text() != content)


def test_what_others_could_have_written_is_not_believed(comm, folder):
    bandwidth.measure(connect(comm))
    comm.Barrier()
    if comm.rank == 0:
        kept(folder)[0].write_text('{"bytes_per_second": 1e30, "measurements": 9}')
        folder.chmod(0o777)
    assert everywhere(comm, 0 < bandwidth.measure(connect(comm)) < 1e30)
