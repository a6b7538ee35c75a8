"""Jobs with HPCFRAME_PACK: each node runs a copy of the environment, and needs no other."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import packing
import pytest

from .environments import CHECKOUT

TWO_NODES = ("--nodes=2", "--ntasks-per-node=2")
EVERY_NODE = ("srun", "--nodes=4", "--ntasks-per-node=1", "--mpi=none")
PATH = {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}
STEPS = ("--set", "time.steps=120", "--set", "checkpoint.every_steps=20")


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("pack") / "environment.tar"
    done = packing.pack(file)
    assert done.returncode == 0, done.stdout
    return file


@pytest.fixture
def case(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).with_name("slow.py"), tmp_path)
    (tmp_path / "sim.toml").write_text(packing.HEAT.replace('"heat"', '"slow.py:Slow"'))
    return tmp_path


def submit(cluster, case: Path, pack: Path) -> str:
    script = str(CHECKOUT / "slurm/run.sbatch")
    settings = ("--set", "simulation.directory='packed'", *STEPS)
    environment = PATH | {"HPCFRAME_PACK": str(pack)}
    return cluster.sbatch(*TWO_NODES, script, "sim.toml", *settings, environment=environment, cwd=case)


@contextmanager
def hidden(cluster) -> Iterator[None]:
    """The environment of the tests and the packages of this checkout are empty folders on every node."""
    folders = [sys.prefix, str(CHECKOUT / "hpcframe"), str(CHECKOUT / "kernels")]
    if not Path("/usr").is_relative_to(sys.base_prefix):
        folders.append(sys.base_prefix)
    try:
        for folder in folders:
            cluster.run(*EVERY_NODE, "mount", "-t", "tmpfs", "none", folder)
        yield
    finally:
        for folder in folders:
            cluster.run(*EVERY_NODE, "umount", folder)


def on_the_nodes(cluster) -> str:
    """What jobs left on the nodes."""
    return cluster.run(*EVERY_NODE, "find", "/dev/shm", "-name", "hpcframe-job-*").stdout


def temperature(directory: Path) -> bytes:
    with h5py.File(directory / "output/step-0000120.h5") as file:
        return file["u"][:].tobytes()


def test_a_job_and_its_restart_on_other_nodes_need_nothing_but_the_pack(cluster, case, pack):
    alone = (sys.executable, "-m", "hpcframe.run", "sim.toml", *STEPS, "--set", "simulation.directory='alone'")
    subprocess.run([*alone, "--set", "simulation.model='heat'"], cwd=case, check=True, capture_output=True)
    with hidden(cluster):
        unreachable = cluster.run("srun", "--nodes=1", sys.executable, "-c", "", check=False)
        assert unreachable.returncode != 0
        job = submit(cluster, case, pack)
        cluster.wait_until((case / "packed/checkpoints/step-0000020").exists, "the first checkpoint", 90, job)
        cluster.drain("n1")
        cluster.run("scancel", "--signal=USR1", job)
        cluster.wait(job, "COMPLETED", 120)
        assert cluster.record(job)["NodeList"] == "n[2-3]"
        cluster.resume("n1")
        assert on_the_nodes(cluster) == ""
    assert "continues from the checkpoint of step" in cluster.output(job)
    assert temperature(case / "packed") == temperature(case / "alone")


def test_what_a_cancelled_job_leaves_is_removed_by_the_next(cluster, case, pack):
    first = submit(cluster, case, pack)
    cluster.wait_until((case / "packed/checkpoints").exists, "the ranks run", 90, first)
    cluster.run("scancel", first)
    cluster.wait(first, "CANCELLED")
    cluster.wait_idle()
    assert on_the_nodes(cluster) != ""
    second = submit(cluster, case, pack)
    cluster.wait(second, "COMPLETED", 90)
    assert on_the_nodes(cluster) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no tar file", "cannot be unpacked on the nodes"), (None, "scripts/pack-env makes one")],
    ids=["damaged", "missing"],
)
def test_a_pack_that_is_of_no_use_ends_the_job_with_what_to_do(cluster, case, content, reason):
    pack = case / "environment.tar"
    if content:
        pack.write_bytes(content)
    job = submit(cluster, case, pack)
    cluster.wait(job, "FAILED")
    assert cluster.exit_code(job) == 1
    said = cluster.output(job)
    assert reason in said
    assert "unset HPCFRAME_PACK" in said
    assert on_the_nodes(cluster) == ""
