"""summary.json: what a run was, what it cost, what it came to, and what it ran on."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcframe.files import write_text
from hpcframe.version import version

PACKAGES = ("numpy", "numba", "mpi4py", "h5py")


def write_summary(path: str | os.PathLike[str], **sections: Any) -> None:
    """Write sections to a JSON file, which is replaced at once. For rank 0 only. Not collective.

    Args:
        sections: mappings, sequences, numbers (NumPy's too), texts, paths, None. JSON has no nan and no infinity: they
            become the texts "nan", "inf" and "-inf", which `float` reads.

    Raises:
        TypeError: a value is none of these.
        HpcframeError: the file cannot be written.
    """
    write_text(Path(path), json.dumps(_plain(sections), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def versions() -> dict[str, str]:
    """Versions of hpcframe and of what its results depend on. Not collective."""
    return {
        "hpcframe": version(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
        "mpi": MPI.Get_library_version().strip("\0 \n").partition("\n")[0],
    }


def machine() -> dict[str, str | int]:
    """The machine of this rank: its name, its CPU, its cores and the hardware threads they have. Not collective."""
    threads = os.cpu_count() or 1
    processors = _processors()
    places = {(processor.get("physical id"), processor.get("core id")) for processor in processors}
    model = processors[0].get("model name") if processors else None
    return {
        "hostname": platform.node(),
        "cpu": model or platform.processor() or platform.machine(),
        "cores": len(places) if "core id" in (processors or [{}])[0] else threads,
        "threads": threads,
    }


def _processors() -> list[dict[str, str]]:
    """What Linux tells about each hardware thread."""
    source = Path("/proc/cpuinfo")
    paragraphs = source.read_text(encoding="utf-8", errors="replace").strip().split("\n\n") if source.exists() else []
    return [
        {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in paragraph.splitlines())}
        for paragraph in paragraphs
    ]
