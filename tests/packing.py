"""Pack the environment that the tests run in."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNUSED = ("vtk", "mypy", "scipy", "pandas", "ruff", "matplotlib", "setuptools")  # by ranks; they are large

HEAT = """
[simulation]
model = "heat"
[grid]
shape = [16, 12, 20]
[output]
picture = false
"""


def pack(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/pack-env, with its output and errors in `stdout`. The name of `output` says how to compress."""
    installed = {package.name.lower() for package in metadata.distributions()}
    without = [f"--without={name}" for name in UNUSED if name in installed]
    command = [ROOT / "scripts/pack-env", f"--venv={sys.prefix}", f"--output={output}", *without, *options]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
