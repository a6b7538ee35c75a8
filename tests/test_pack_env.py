"""`scripts/pack-env`: what it packs runs from another folder, without the environment that it was made from."""

import subprocess
from pathlib import Path

import packing
import pytest

ALONE = {"OMPI_MCA_ess_singleton_isolated": "1"}  # without it Open MPI 4 starts a daemon for one process, by ssh


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    (folder / "sim.toml").write_text(packing.HEAT)
    return folder


@pytest.fixture(scope="module")
def unpacked(case) -> Path:
    """A folder with the unpacked environment and the kernels of a case."""
    done = packing.pack(case / "environment.tar", f"--kernels={case / 'sim.toml'}", "--set=grid.shape=[8, 9, 10]")
    assert done.returncode == 0, done.stdout
    folder = case / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xf", case / "environment.tar", "-C", folder], check=True)
    return folder


def run(folder: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the Python in a folder, in an environment that says nothing of another one."""
    settings = {"HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", **ALONE, **environment}
    command = [folder / "bin/python", *arguments]
    done = subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_all_of_python_and_its_packages_is_in_the_folder(unpacked, case):
    program = (
        "import sys, hpcframe, hpcframe.run, hpcframe.kernels.heat, hpcframe.simulation.loop\n"
        "print(sys.prefix, sys.base_prefix, sys.executable, sep='\\n')\n"
        "print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)), sep='\\n')\n"
        "print(*(line.split()[-1] for line in open('/proc/self/maps') if 'python' in line), sep='\\n')\n"
    )
    places = run(unpacked, "-P", "-c", program, cwd=case).stdout.splitlines()
    assert len(places) > 300
    assert [place for place in places if not Path(place).is_relative_to(unpacked)] == []


def test_no_module_is_compiled_when_it_is_imported(unpacked, case):
    said = run(unpacked, "-v", "-c", "import hpcframe.run, hpcframe.simulation.loop", cwd=case).stderr
    assert ".pyc matches " in said
    assert [line for line in said.splitlines() if line.startswith("# code object from") and ".pyc" not in line] == []


def test_a_run_on_two_ranks_finds_all_its_kernels_compiled(unpacked, case):
    def kernels():
        return {file.name: file.stat().st_mtime_ns for file in cache.iterdir() if file.suffix != ".json"}  # measured

    cache = unpacked / "cache"
    before = kernels()
    program = ("-m", "hpcframe.launch.local", "-n", "2", "--", str(unpacked / "bin/python"), "-m", "hpcframe.run")
    path = f"{unpacked / 'bin'}:/usr/bin:/bin"
    settings = ("--set", "checkpoint.every_steps=10")
    done = run(unpacked, *program, "sim.toml", *settings, cwd=case, HPCFRAME_CACHE_DIR=str(cache), PATH=path)
    assert "2 rank(s)" in done.stdout
    assert before
    assert kernels() == before


def test_what_no_rank_needs_is_left_out(unpacked):
    (packages,) = unpacked.glob("lib/python3*/*-packages")
    names = {path.name for path in packages.iterdir()}
    assert "hpcframe" in names
    assert not names & {"pip", *packing.UNUSED}
    assert not {path.name for path in unpacked.rglob("*") if path.is_dir()} & {"tests", "idlelib"}
    commands = {path.name for path in unpacked.joinpath("bin").iterdir()}
    assert "python" in commands
    assert not commands & {"pip", "hpcframe", "activate"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--venv=/usr"], "/usr is no virtual environment: activate one, or name one by --venv"),
        (["--output=pack.zip"], "the name must end in .tar.zst, .tar.gz or .tar"),
        (["--without=numpie"], "--without numpie: no such package"),
    ],
)
def test_what_cannot_be_packed_is_refused(tmp_path, options, reason):
    done = packing.pack(tmp_path / "environment.tar", *options)
    assert done.returncode == 1
    assert reason in done.stdout
    assert list(tmp_path.iterdir()) == []
