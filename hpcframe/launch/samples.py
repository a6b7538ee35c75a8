"""The sim.toml files that come with the shipped kernels."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hpcframe.errors import InputError, nearest


def kernels_folder() -> Path:
    """Where hpcframe.kernels lies, found without importing it. Raises InputError where it is not installed."""
    specification = importlib.util.find_spec("hpcframe.kernels")
    if specification is None or not specification.submodule_search_locations:
        raise InputError("hpcframe.kernels is not installed: install hpcframe again (pip install .)")
    return Path(next(iter(specification.submodule_search_locations)))


def sample(name: str) -> str:
    """The text of a sample. Raises InputError, naming those there are, for an unknown one."""
    samples = {path.stem: path for path in kernels_folder().glob("*.toml")}
    if name not in samples:
        raise InputError(f"no sample '{name}'{nearest(name, samples, False)} (there are: {', '.join(sorted(samples))})")
    return samples[name].read_text(encoding="utf-8")
