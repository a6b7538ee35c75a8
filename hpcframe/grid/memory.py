"""Memory for a block: aligned rows, strides that do not collide in the cache, first touched by its rank."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64  # bytes
UNLIMITED = 2**62  # bytes: no limit is known
LIMIT_FILES = {  # of a control group of version 2 and of version 1: the limit and what is in use
    False: ("memory.max", "memory.current"),
    True: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
PAGE = 4096  # bytes; planes a multiple of it apart compete for the same lines of the first-level cache


def padded_shape(points: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The shape to allocate for an array of `points`, halo included.

    A row fills an odd number of cache lines, so that every row starts on one and neighbouring rows fall into
    different sets of the cache; a plane gets one row more where planes would be a multiple of a page apart.
    """
    line = CACHE_LINE // itemsize
    lines = -(-points[-1] // line)
    row = (lines + (lines + 1) % 2) * line
    if len(points) == 1:
        return (row,)
    *planes, rows = points[:-1]
    if planes and rows * row * itemsize % PAGE == 0:
        rows += 1
    return (*planes, rows, row)


def allocate(
    components: tuple[int, ...], points: tuple[int, ...], halo: tuple[int, ...], dtype: np.dtype
) -> npt.NDArray:
    """Zeroed storage of shape components + padded points, whose first interior point is on a cache line.

    Pages are touched here, by the rank that owns them, so that they lie in its own NUMA domain.
    """
    shape = components + padded_shape(points, dtype.itemsize)
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + CACHE_LINE, dtype=np.uint8)
    shift = -(raw.ctypes.data + halo[-1] * dtype.itemsize) % CACHE_LINE
    raw.fill(0)
    return raw[shift : shift + size].view(dtype).reshape(shape)


def available_bytes(root: Path = Path("/")) -> int:
    """Memory (bytes) that this process's node can still give: what Linux calls available, or what a limit of a control
    group leaves, as Slurm and containers set it; whichever is less. Not collective.

    Args:
        root: where /proc and /sys are.
    """
    return min(_system(root), *_control_groups(root))


def _system(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return UNLIMITED


def _control_groups(root: Path) -> list[int]:
    """What each control group of this process, and each that it is in, leaves."""
    left = [UNLIMITED]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, used = LIMIT_FILES[bool(controllers)]
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            left.append(_left(top / folder / limit, top / folder / used))
    return left


def _left(limit: Path, used: Path) -> int:
    most, now = _text(limit).strip(), _text(used).strip()
    return max(0, int(most) - int(now)) if most.isdigit() and now.isdigit() else UNLIMITED


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another version of control groups, or another system: no limit that is known
        return ""
