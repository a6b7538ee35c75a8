"""The whole program on several numbers of ranks: results agree to the last bit, files and tables included."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "kernels"
SMALL = {  # what makes the shipped samples small; their walls, sources and media stay
    "heat": ["grid.shape=[13,12,17]", "time.steps=40"],
    "wave": ["grid.shape=[46,29]", "time.end_time=0.4"],
    "gray_scott": ["grid.shape=[24,31]", "time.steps=60"],
}
COMMON = ["output.every_steps=20", "output.picture=false", "monitor.every_steps=5"]


def run(kernel: str, ranks: int, folder: Path) -> tuple[dict[str, bytes], dict]:
    """Run a shipped sample on a small grid: what it left, by name of file, and its summary."""
    overrides = [*SMALL[kernel], *COMMON, f"simulation.directory={folder}"]
    program = [sys.executable, "-m", "hpcframe.run", str(KERNELS / f"{kernel}.toml")]
    program += [part for override in overrides for part in ("--set", override)]
    launch = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--"]
    subprocess.run([*launch, *program], check=True, timeout=100, stdout=subprocess.DEVNULL)
    files = [path for path in folder.rglob("*") if path.suffix in (".h5", ".xdmf", ".csv")]
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return contents, json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module", params=SMALL)
def alone(request, tmp_path_factory):
    """A kernel, and the files and summary of its run on one rank."""
    files, summary = run(request.param, 1, tmp_path_factory.mktemp("alone"))
    assert len([name for name in files if name.endswith(".h5")]) > 2  # several times, not the end alone
    assert "diagnostics.csv" in files
    return request.param, files, summary


@pytest.mark.parametrize("ranks", [2, 3, 4, 6, 8])
def test_every_file_is_that_of_one_rank(alone, ranks, tmp_path):
    kernel, expected, summary_alone = alone
    files, summary = run(kernel, ranks, tmp_path)
    assert summary["grid"]["ranks"] == ranks
    assert files.keys() == expected.keys()
    assert [name for name in expected if files[name] != expected[name]] == []
    assert summary["final"] == summary_alone["final"]
