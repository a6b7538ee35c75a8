"""Python environments with another MPI than that of the tests."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

MAKE = """
set -eu
root=$1 venv=$2 chosen=$3
. "$root/scripts/lib/environment.sh"
use_environment
install_hpcframe ""
step "installing MPICH" pip_install mpich
"""


def mpich(folder: Path) -> Path:
    """The Python of an environment in `folder` with hpcframe and MPICH, made if it is not there (about 30 s).

    Raises `RuntimeError` with pip's output where that fails.
    """
    command = ["sh", "-c", MAKE, "mpich environment", str(CHECKOUT), str(folder), sys.executable]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"no MPICH environment in {folder}: {done.stdout}")
    return folder / "bin/python"


def mpi_library(python: Path | str) -> str:
    """What the MPI that a Python loads says of itself, such as "Open MPI v5.0.11, ..."."""
    program = "from mpi4py import MPI; print(MPI.Get_library_version())"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.splitlines()[0]
