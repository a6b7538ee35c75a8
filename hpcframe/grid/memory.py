"""Memory for a block: aligned rows, strides that do not collide in the cache, first touched by those who compute it."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcframe.threads import team

CACHE_LINE = 64  # bytes
UNLIMITED = 2**62  # bytes: no limit is known
LIMIT_FILES = {  # of a control group of version 2 and of version 1: the limit, what is in use, how counts are named
    False: ("memory.max", "memory.current", ""),
    True: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
PAGE = 4096  # bytes; planes a multiple of it apart compete for the same lines of the first-level cache
HUGE_PAGE = 1 << 21  # bytes; Linux gives memory, and takes it back, in pieces of this size where it can
SLAB = 1 << 23  # bytes that are moved at once


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
    components: tuple[int, ...], points: tuple[int, ...], halo: tuple[int, ...], dtype: np.dtype, threads: int = 1
) -> npt.NDArray:
    """Zeroed storage of shape components + padded points, whose first interior point is on a cache line.

    Pages are touched here, so that they lie in the NUMA domain of who touches them: each of the rank's threads touches
    an equal part, in the order in which it computes planes. With no threads, only when they are written to.
    """
    shape = components + padded_shape(points, dtype.itemsize)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + CACHE_LINE, dtype=np.uint8)
    shift = -(raw.ctypes.data + halo[-1] * dtype.itemsize) % CACHE_LINE
    if threads:
        _shared_out(lambda begin, end: raw[begin:end].fill(0), size + CACHE_LINE, SLAB, threads)
    return raw[shift : shift + size].view(dtype).reshape(shape)


def _shared_out(work: Callable[[int, int], None], count: int, least: int, threads: int) -> None:
    """Do `work(begin, end)` for equal parts of a count, each in a thread of its own; fewer where parts get small."""
    members = max(1, min(threads, count // least))
    team().run(lambda member: work(count * member // members, count * (member + 1) // members), members)


def move(source: npt.NDArray, target: npt.NDArray, threads: int = 1) -> None:
    """Copy an array, and give the memory of `source` back on the way: its values are lost.

    So a block and a larger copy of it never take the memory of two. Slabs go along the first axis, and each thread
    copies those of its part of it.
    """
    planes = max(1, SLAB // source[0].nbytes)
    _shared_out(lambda begin, end: _move(source[begin:end], target[begin:end], planes), len(source), planes, threads)


def _move(source: npt.NDArray, target: npt.NDArray, planes: int) -> None:
    begin = -(-source.ctypes.data // HUGE_PAGE) * HUGE_PAGE
    for first in range(0, len(source), planes):
        slab = source[first : first + planes]
        np.copyto(target[first : first + planes], slab)
        end = _end(slab) // HUGE_PAGE * HUGE_PAGE
        if end > begin:
            _give_back(begin, end)
            begin = end


def _end(array: npt.NDArray) -> int:
    """The address behind an array whose strides are positive."""
    last = sum((count - 1) * stride for count, stride in zip(array.shape, array.strides, strict=True))
    return int(array.ctypes.data + last + array.itemsize)


def _give_back(begin: int, end: int) -> None:
    """Memory between two addresses, whole pages. Where the system does not take it, it is only freed later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


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
        group = Path(path.lstrip("/"))
        left += [_left(top / folder, *LIMIT_FILES[bool(controllers)]) for folder in (group, *group.parents)]
    return left


def _left(group: Path, limit: str, used: str, prefix: str) -> int:
    """What one control group leaves. Files that Linux keeps in memory count as used there, yet make place."""
    most, now = _text(group / limit).strip(), _text(group / used).strip()
    if not (most.isdigit() and now.isdigit()):
        return UNLIMITED
    counts = dict(line.split() for line in _text(group / "memory.stat").splitlines())
    files = sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
    return max(0, int(most) - max(0, int(now) - files))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another version of control groups, or another system: no limit that is known
        return ""
