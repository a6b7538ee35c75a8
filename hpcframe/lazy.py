"""Libraries that most ranks never use, loaded where one is used for the first time: starting is faster, and smaller."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING


def _when_used(name: str) -> ModuleType:
    """The module, not yet loaded: https://docs.python.org/3/library/importlib.html#implementing-lazy-imports."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from xml.etree import ElementTree as ElementTree

    import h5py as h5py
else:
    h5py = _when_used("h5py")
    ElementTree = _when_used("xml.etree.ElementTree")
