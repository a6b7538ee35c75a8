"""scripts/node-configured: what a node that starts installs and tests. Programs of a node stand in folders on PATH."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "node-configured"


@pytest.fixture
def programs(tmp_path):
    """A folder on PATH with an Open MPI, Slurm and a Python; `stat` says that a folder is Lustre."""
    folder = tmp_path / "bin"
    folder.mkdir()
    told = {
        "mpirun": "echo 'mpirun (Open MPI) 5.0.9'",
        "srun": "exit 0",
        "stat": "echo ${STAT_SAYS:-lustre}",
    }
    for name, what in told.items():
        add(folder, name, what)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def add(folder, name, what):
    (folder / name).write_text(f"#!/bin/sh\n{what}\n")
    (folder / name).chmod(0o755)


def run(programs, *arguments, **environment):
    settings = {"PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin", **environment}
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env=settings, timeout=60)


def test_a_node_that_is_fit_says_so(programs, tmp_path):
    done = run(programs, "--check", "--mount", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(\w+) +(\w+)", done.stdout, re.M) == [
        ("PASS", "python"), ("PASS", "files"), ("SKIP", "EFA"), ("PASS", "MPI"),
    ]  # fmt: skip
    assert "Open MPI) 5.0.9" in done.stdout and "is lustre, and can be written" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]  # the file that proved it is gone


@pytest.mark.parametrize(
    ("says", "found"), [("ext2/ext3", "other nodes do not see it"), ("tmpfs", "other nodes do not see it")]
)
def test_a_folder_that_only_this_node_sees_is_not_fit(programs, tmp_path, says, found):
    done = run(programs, "--check", "--mount", str(tmp_path), STAT_SAYS=says)
    assert done.returncode == 1
    assert re.search(rf"^FAIL  files .* {says}: {found}\n +mount FSx", done.stdout, re.M)
    assert "not fit for jobs" in done.stderr


def test_a_folder_that_is_not_there_names_the_remedy(programs, tmp_path):
    done = run(programs, "--check", "--mount", str(tmp_path / "none"))
    assert done.returncode == 1 and "add SharedStorage with MountDir" in done.stdout


def test_a_node_without_mpi_names_the_remedy(programs, tmp_path):
    add(programs, "mpirun", "exit 127")
    done = run(programs, "--check", "--mount", str(tmp_path))
    assert done.returncode == 1 and re.search(r"^FAIL  MPI .*\n +take an image of ParallelCluster", done.stdout, re.M)


def test_a_python_that_is_too_old_is_not_taken(programs, tmp_path):
    (programs / "python3").unlink()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        add(programs, name, "exit 1")  # as one that has not all of what is imported, or is older
    done = run(programs, "--check", "--mount", str(tmp_path))
    assert done.returncode == 1 and "none from 3.11 on" in done.stdout and "dnf install python3.11" in done.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--mount"]])
def test_an_option_that_is_none_is_refused(programs, arguments):
    done = run(programs, *arguments)
    assert done.returncode == 2 and "see --help" in done.stderr


def test_it_explains_itself(programs):
    done = run(programs, "--help")
    assert done.returncode == 0 and "--mount DIR" in done.stdout
