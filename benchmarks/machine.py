"""What a measurement was made on: for the JSON files of the benchmarks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hpcframe.launch import local

FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "asimd", "sve")
PACKAGES = ("hpcframe", "numpy", "numba", "llvmlite", "mpi4py")


def describe() -> dict[str, Any]:
    """CPU, caches, load, versions and the date (UTC)."""
    model, flags = processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "flags": flags,
        "cores": os.cpu_count(),
        "caches": caches(),
        "load_average": os.getloadavg(),
        "system": platform.platform(),
        "versions": {"python": sys.version.split()[0], **versions()},
    }


def processor() -> tuple[str, list[str]]:
    """The CPU's name, and those of FLAGS that it has."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    entries = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    known = (entries.get("flags") or entries.get("Features") or "").split()
    return entries.get("model name") or platform.processor() or platform.machine(), [f for f in FLAGS if f in known]


def caches() -> dict[str, str]:
    """Size of each cache that the first core sees, such as {"L1 Data": "32K", "L2 Unified": "512K"}."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def launcher(ranks: int) -> dict[str, Any]:
    """The MPI that hpcframe's launcher finds, and how it places so many ranks. Not for MPI processes."""
    mpiexec, *arguments = local.command(ranks, [])
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, env=local.environment(os.environ))
    first = (said.stdout or said.stderr).strip().partition("\n")[0]
    return {"version": first, "placement": " ".join(arguments), "cores": local.cores()}


def versions() -> dict[str, str]:
    """Versions of PACKAGES, as far as they are installed."""
    installed = {package.name: package.version for package in metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}
