"""What a wavefront keeps in the cache, and how much of a cache a core has. Pure but for reading what Linux tells."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

UNKNOWN = 2**20  # bytes, where Linux does not tell: about what most cores have
UNITS = {"": 1, "K": 2**10, "M": 2**20}


@functools.cache
def cache_of_a_core(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache that a core has for itself, or as its share of a common one. Not collective."""
    caches = []
    for folder in root.glob("index*"):
        size = re.fullmatch(r"(\d+)([KM]?)", _text(folder / "size"))
        if size and _text(folder / "type") in ("Data", "Unified"):
            caches.append((int(size[1]) * UNITS[size[2]], _processors(_text(folder / "shared_cpu_list"))))
    of_core = min((processors for _, processors in caches), default=1)  # hardware threads, which share all of them
    return max((size * of_core // processors for size, processors in caches), default=UNKNOWN)


def _processors(text: str) -> int:
    """How many a list such as 0-3,8-11 has."""
    ends = [part.split("-") for part in text.split(",") if part]
    return max(1, sum(int(each[-1]) - int(each[0]) + 1 for each in ends))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another system
        return ""


def bytes_of_front(depth: int, planes: int, rows: int, reach: int, points: Sequence[int], bytes_a_point: int) -> int:
    """What a wavefront reads again: the planes that one of its steps still needs; in three dimensions, of a band.

    Args:
        reach: how far the stencil reads along any axis.
        points: of the block along each axis.
        bytes_a_point: of all fields together.
    """
    held = planes + (depth + 1) * reach
    across = [min(rows + 2 * reach, points[1]), points[2]] if len(points) == 3 else list(points[1:])
    total = held * bytes_a_point
    for count in across:
        total *= count
    return total
