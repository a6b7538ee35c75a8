"""The whole program on several numbers of ranks: results agree to the last bit, files and tables included."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "kernels"
RANKS = [1, 2, 3, 4, 6]
CASES = {
    "heat": ["grid.shape=[13,12,17]", "time.steps=40"],  # periodic, value, gradient, a function of time
    "wave": ["grid.shape=[46,29]", "parameters.space_order=8", "time.end_time=0.4"],
    "gray_scott": ["grid.shape=[24,31]", "time.steps=60"],
    "wave in space": [
        "grid.shape=[14,13,12]",
        "grid.extent=[900.0,900.0,900.0]",
        "parameters.source_position=[450.0,800.0,300.0]",
        "parameters.frequency=3.0",
        "time.end_time=0.5",
    ],
    "gray_scott in space": ["grid.shape=[12,11,13]", "grid.extent=[0.3,0.3,0.3]", "time.steps=40"],
}


def run(case: str, ranks: int, folder: Path) -> dict[str, bytes]:
    """Run a shipped sample on a small grid; what it left, by name of file."""
    overrides = [*CASES[case], f"simulation.directory={folder}", "output.every_steps=20", "monitor.every_steps=5"]
    program = [sys.executable, "-m", "hpcframe.run", str(KERNELS / f"{case.split()[0]}.toml")]
    program += [part for override in overrides for part in ("--set", override)]
    launch = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(ranks), "--"]
    subprocess.run([*launch, *program], check=True, timeout=100, stdout=subprocess.DEVNULL)
    files = [path for path in folder.rglob("*") if path.suffix in (".h5", ".xdmf", ".csv")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("case", CASES)
def test_every_file_is_the_same_on_any_number_of_ranks(case, tmp_path):
    results, finals = {}, {}
    for ranks in RANKS:
        results[ranks] = run(case, ranks, tmp_path / str(ranks))
        summary = json.loads((tmp_path / str(ranks) / "summary.json").read_text())
        assert summary["grid"]["ranks"] == ranks
        finals[ranks] = summary["final"]
    assert {Path(name).suffix for name in results[1]} == {".h5", ".xdmf", ".csv"}
    assert len(results[1]) > 4  # several times, and not the last one only
    for ranks in RANKS[1:]:
        assert results[ranks].keys() == results[1].keys()
        assert [name for name in results[1] if results[ranks][name] != results[1][name]] == []
        assert finals[ranks] == finals[1]
