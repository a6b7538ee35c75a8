"""What an installation holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_wheel_holds_the_kernels_the_batch_scripts_and_the_mark_of_types(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("hpcframe-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for kernel in (path.stem for path in (ROOT / "kernels").glob("*.py")):
        assert f"hpcframe/kernels/{kernel}.py" in names
    for sample in (path.name for path in (ROOT / "kernels").glob("*.toml")):
        assert f"hpcframe/kernels/{sample}" in names
    for script in [*(ROOT / "slurm").glob("*.sbatch"), *(ROOT / "slurm/env").glob("*.sh")]:
        assert f"hpcframe/slurm/{script.relative_to(ROOT / 'slurm')}" in names
    assert "hpcframe/slurm/run.sbatch" in names
    for data in ("scripts/node-configured", "launch/instances.json", "launch/cluster/network.yaml", "py.typed"):
        assert f"hpcframe/{data}" in names
    assert not any(name.startswith(("tests/", "kernels/", "slurm/", "scripts/")) for name in names)


def test_kernels_are_found_from_any_folder(tmp_path):
    program = "import hpcframe.kernels.heat as heat; print(heat.Heat.fields)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "('u',)", done.stderr
