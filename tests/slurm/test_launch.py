"""`srun -n 8 python -m hpcframe.run sim.toml` over four nodes, with each MPI and the protocol that it speaks."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from .environments import CHECKOUT, mpi_library

PROGRAM = ("-m", "hpcframe.run", "sim.toml", "--set", "grid.shape=[16, 20, 12]", "--set", "time.steps=20")
QUICK = ("--set", "output.picture=false")
OVER_FOUR_NODES = ("--nodes=4", "--ntasks=8", "--ntasks-per-node=2")

PROTOCOLS = {"Open MPI": "pmix", "MPICH": "pmi2"}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "kernels/heat.toml", tmp_path / "sim.toml")
    return tmp_path


@pytest.fixture
def python(mpi: str, request: pytest.FixtureRequest) -> str:
    """The interpreter of an environment whose MPI is `mpi`."""
    if mpi == "MPICH":
        chosen = str(request.getfixturevalue("mpich_python"))
        assert mpi in mpi_library(chosen)
    elif mpi not in mpi_library(chosen := sys.executable):
        pytest.skip(f"this environment has {mpi_library(chosen)}, not {mpi}")
    return chosen


@pytest.mark.parametrize("mpi", PROTOCOLS)
def test_ranks_over_nodes_compute_what_one_rank_computes_without_slurm(cluster, case, mpi, python):
    flag = f"--mpi={PROTOCOLS[mpi]}"
    together = ("--set", "simulation.directory='runs/together'")
    done = cluster.run("srun", flag, *OVER_FOUR_NODES, python, *PROGRAM, *QUICK, *together, cwd=case)
    assert "8 rank(s)" in done.stdout
    subprocess.run([python, *PROGRAM, *QUICK, "--set", "simulation.directory='runs/alone'"], cwd=case, check=True)
    assert (temperature(case / "runs/together") == temperature(case / "runs/alone")).all()


def temperature(directory: Path) -> np.ndarray:
    with h5py.File(directory / "output/step-0000020.h5") as file:
        return file["u"][:]


@pytest.mark.parametrize(
    ("mpi", "wrong"), [("Open MPI", "pmi2"), ("Open MPI", "none"), ("MPICH", "none"), ("MPICH", "pmix")]
)
def test_ranks_that_do_not_see_each_other_are_refused_by_one_message(cluster, case, mpi, python, wrong):
    done = cluster.run("srun", f"--mpi={wrong}", *OVER_FOUR_NODES, python, *PROGRAM, cwd=case, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("hpcframe: ") == 1, done.stderr
    assert f"srun --mpi={PROTOCOLS[mpi]}" in done.stderr
    assert not (case / "runs").exists()
