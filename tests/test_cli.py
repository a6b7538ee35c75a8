"""The `hpcframe` command as a user types it, and what it must not load."""

import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import bare_environment
import pytest

HPCFRAME = str(Path(sysconfig.get_path("scripts"), "hpcframe"))

# Runs a module as `python -m` does, and says at the end which of the modules it should not need were loaded.
RUN_AND_TELL = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", sorted({"typer", "click", "matplotlib", "hpcframe.cli"} & set(sys.modules)))
"""


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **options)


@pytest.fixture
def folder(tmp_path):
    """A folder with the sample sim.toml of the heat kernel."""
    (tmp_path / "heat.toml").write_text(run(HPCFRAME, "new", "heat").stdout)
    return tmp_path


def test_version():
    assert run(HPCFRAME, "--version").stdout == metadata.version("hpcframe") + "\n"


def test_new_prints_a_commented_configuration_that_loads(folder):
    text = (folder / "heat.toml").read_text()
    assert "#" in text
    assert tomllib.loads(text)["simulation"]["model"] == "heat"
    checked = run(HPCFRAME, "run", "heat.toml", "--dry-run", cwd=folder)
    assert checked.returncode == 0, checked.stderr


def test_a_misspelt_kernel_is_answered_by_the_nearest_name():
    done = run(HPCFRAME, "new", "haet")
    assert done.returncode == 2
    assert "'haet'; did you mean 'heat'?" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("how", [[], ["-n", "2"], ["--dry-run"]])
def test_a_missing_configuration_is_the_users_error(tmp_path, how):
    done = run(HPCFRAME, "run", "missing.toml", *how, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("missing.toml: no such file") == 1
    assert "Traceback" not in done.stderr


def test_a_misspelt_key_of_an_override_is_refused(folder):
    done = run(HPCFRAME, "run", "heat.toml", "--dry-run", "--set", "grid.shpae=[8, 8, 8]", cwd=folder)
    assert done.returncode == 2
    assert "did you mean 'shape'?" in done.stderr


def test_a_dry_run_explains_any_number_of_ranks_without_mpiexec(folder):
    python = bare_environment.make(folder / "environment")
    (folder / "nothing").mkdir()
    settings = bare_environment.environment(folder / "nothing")
    arguments = ["-c", "from hpcframe.cli import main; main()", "run", "heat.toml", "-n", "3"]
    explained = run(str(python), *arguments, "--dry-run", cwd=folder, env=settings)
    assert explained.returncode == 0, explained.stderr
    assert "ranks        3 as " in explained.stdout
    assert not (folder / "runs").exists()
    refused = run(str(python), *arguments, cwd=folder, env=settings)
    assert refused.returncode == 2  # there is no mpiexec indeed
    assert "no mpiexec" in refused.stderr


def test_run_starts_the_ranks_and_returns_their_exit_code(folder):
    small = ["--set", "grid.shape=[8, 8, 8]", "--set", "time.steps=2", "--set", "output.picture=false"]
    done = run(HPCFRAME, "run", "heat.toml", "-n", "2", *small, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "2 rank(s)" in done.stdout
    assert (folder / "runs/heat/summary.json").exists()
    wrong = run(HPCFRAME, "run", "heat.toml", "-n", "2", *small, "--set", "time.dt=-1.0", cwd=folder)
    assert wrong.returncode == 2


def test_importing_hpcframe_loads_nothing_heavy():
    ask = "import sys, hpcframe; print({'mpi4py', 'numba', 'numpy', 'h5py', 'typer', 'matplotlib'} & set(sys.modules))"
    assert run(sys.executable, "-c", ask).stdout == "set()\n"


def test_the_command_itself_loads_neither_mpi_nor_numba():
    ask = "import sys, hpcframe.cli; print({'mpi4py', 'numba', 'numpy', 'h5py', 'matplotlib'} & set(sys.modules))"
    assert run(sys.executable, "-c", ask).stdout == "set()\n"


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_a_rank_loads_no_command_line_and_no_plotting(folder, how):
    small = ["--set=grid.shape=[8, 8, 8]", "--set=time.steps=2", "--set=output.picture=false"]
    done = run(sys.executable, "-c", RUN_AND_TELL, "hpcframe.run", "heat.toml", *small, *how, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")
