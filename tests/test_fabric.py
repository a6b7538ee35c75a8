"""The verdict on Elastic Fabric Adapters, from counters as Linux has them, in files of a temporary folder."""

from pathlib import Path

import pytest
from mpi4py import MPI

from hpcframe import efa
from hpcframe.simulation import fabric

AMAZON, MELLANOX = "0x1d0f", "0x15b3"


def write_counters(root: Path, device: str = "rdmap0s31", vendor: str = AMAZON, **counters: int) -> Path:
    """An adapter as in /sys/class/infiniband; the folder that stands for /."""
    folder = root / "sys/class/infiniband" / device
    (folder / "device").mkdir(parents=True, exist_ok=True)
    (folder / "device/vendor").write_text(f"{vendor}\n")
    (folder / "ports/1/hw_counters").mkdir(parents=True, exist_ok=True)
    for name, value in counters.items():
        (folder / "ports/1/hw_counters" / name).write_text(f"{value}\n")
    return root


def test_all_adapters_of_a_node_count_and_other_infiniband_does_not(tmp_path):
    write_counters(tmp_path, "rdmap0s31", tx_bytes=100, rx_bytes=10)
    write_counters(tmp_path, "rdmap1s31", tx_bytes=200, rx_bytes=20)
    write_counters(tmp_path, "mlx5_0", MELLANOX, tx_bytes=4000, rx_bytes=4000)
    assert [device.name for device in efa.adapters(tmp_path)] == ["rdmap0s31", "rdmap1s31"]
    assert efa.traffic(tmp_path) == efa.Traffic(300, 30)


def test_rdma_counts_whether_the_device_includes_it_in_its_bytes_or_not(tmp_path):
    parts = {"send_bytes": 50, "rdma_write_bytes": 30, "rdma_read_resp_bytes": 20}
    received = {"recv_bytes": 5, "rdma_write_recv_bytes": 3, "rdma_read_bytes": 2}
    write_counters(tmp_path, tx_bytes=50, rx_bytes=5, **parts, **received)  # messages only
    assert efa.traffic(tmp_path) == efa.Traffic(100, 10)
    write_counters(tmp_path, tx_bytes=120, rx_bytes=12)  # all, with headers
    assert efa.traffic(tmp_path) == efa.Traffic(120, 12)


def test_a_machine_without_infiniband_has_no_adapters(tmp_path):
    assert efa.adapters(tmp_path) == []
    assert fabric.Fabric(MPI.COMM_SELF, tmp_path).summary(MPI.COMM_SELF, 0) == {
        "verdict": "no EFA",
        "bytes_sent": 0,
        "bytes_received": 0,
    }


def test_only_what_is_moved_during_the_run_counts(tmp_path):
    write_counters(tmp_path, tx_bytes=10**12, rx_bytes=10**12)
    watched = fabric.Fabric(MPI.COMM_SELF, tmp_path)
    assert watched.summary(MPI.COMM_SELF, 0)["verdict"] == "not carried"
    write_counters(tmp_path, tx_bytes=10**12 + 7, rx_bytes=10**12 + 8)
    assert watched.summary(MPI.COMM_SELF, 0) == {"verdict": "carried", "bytes_sent": 7, "bytes_received": 8}


def test_a_few_bytes_are_not_the_messages_of_many_steps(tmp_path):
    watched = fabric.Fabric(MPI.COMM_SELF, write_counters(tmp_path, tx_bytes=0, rx_bytes=0))
    write_counters(tmp_path, tx_bytes=6400, rx_bytes=1)
    assert watched.summary(MPI.COMM_SELF, 100)["verdict"] == "carried"
    assert watched.summary(MPI.COMM_SELF, 101)["verdict"] == "not carried"


def test_counters_that_a_reset_set_back_count_as_nothing(tmp_path):
    write_counters(tmp_path, tx_bytes=1000, rx_bytes=1000)
    watched = fabric.Fabric(MPI.COMM_SELF, tmp_path)
    write_counters(tmp_path, tx_bytes=1, rx_bytes=1)
    assert watched.summary(MPI.COMM_SELF, 0) == {"verdict": "not carried", "bytes_sent": 0, "bytes_received": 0}


@pytest.mark.mpi
def test_the_nodes_are_summed_and_one_that_sends_nothing_decides(comm, mpi_tmp_path):
    """Each rank is a node of its own here; at last the first one sends nothing."""
    root = write_counters(mpi_tmp_path / f"node-{comm.rank}", tx_bytes=5, rx_bytes=5)
    watched = fabric.Fabric(MPI.COMM_SELF, root)
    write_counters(root, tx_bytes=15, rx_bytes=25)
    assert watched.summary(comm, 0) == {
        "verdict": "carried",
        "bytes_sent": 10 * comm.size,
        "bytes_received": 20 * comm.size,
    }
    silent = fabric.Fabric(MPI.COMM_SELF, root)
    if comm.rank:
        write_counters(root, tx_bytes=16, rx_bytes=26)
    assert silent.summary(comm, 0)["verdict"] == "not carried"


@pytest.mark.mpi
def test_one_rank_of_a_node_counts_for_all_of_them(comm, mpi_tmp_path):
    root = mpi_tmp_path / "node"
    if comm.rank == 0:
        write_counters(root, tx_bytes=0, rx_bytes=0)
    comm.Barrier()
    watched = fabric.Fabric(comm, root)  # all ranks are on this node
    comm.Barrier()
    if comm.rank == 0:
        write_counters(root, tx_bytes=10, rx_bytes=10)
    comm.Barrier()
    assert watched.summary(comm, 0) == {"verdict": "carried", "bytes_sent": 10, "bytes_received": 10}


@pytest.mark.parametrize(
    ("nodes", "verdict", "told"),
    [(2, "not carried", True), (1, "not carried", False), (2, "carried", False), (2, "no EFA", False)],
)
def test_advice_comes_where_adapters_were_needed_and_not_used(nodes, verdict, told):
    advice = fabric.advice({"grid": {"nodes": nodes}, "efa": {"verdict": verdict}})
    assert bool(advice) == told
    assert ("FI_PROVIDER=efa" in advice) == told
