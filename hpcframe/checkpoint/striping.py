"""On Lustre: over how many storage targets the files of a folder are spread, set before there are any.

A file on one target is written at the rate of one target. AWS recommends all targets and larger stripes for large
files that many clients write (FSx for Lustre User Guide, "Striping data in your file system").
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

STRIPE = 16 * 2**20  # bytes
BYTES_A_TARGET = 2**30  # a file of less does not gain by another target
PATIENCE = 10.0  # s for an answer of lfs


def stripe(folder: Path, size: int, count: int = 0, stripe_size: int = 0) -> str:
    """Set the striping of what will be made in a folder. For one rank; not collective.

    Args:
        size: bytes of the largest file.
        count: storage targets; 0 is chosen, -1 all.
        stripe_size: bytes; 0 is 16 MiB.

    Returns:
        A line that says what was done; "" where the folder is not on Lustre. What fails costs speed only, so it is a
        line, too.
    """
    if shutil.which("lfs") is None or _lfs("getstripe", "-d", str(folder)) is None:
        return ""
    chosen, length = plan_stripes(size, _targets(folder), count, stripe_size)
    done = _lfs("setstripe", "-c", str(chosen), "-S", str(length), str(folder))
    what = f"{'all' if chosen == -1 else chosen} storage target(s), stripes of {length} bytes"
    if done is None:
        return f"striping of {folder} over {what} failed: files have the folder's default; see `lfs getstripe {folder}`"
    return f"{folder}: {what}"


def plan_stripes(size: int, targets: int, count: int, stripe_size: int) -> tuple[int, int]:
    """The number of targets (-1: all) and the bytes of a stripe. Not collective.

    Args:
        targets: that there are; 0 where unknown.
    """
    if count:
        return count, stripe_size or STRIPE
    wanted = -(-size // BYTES_A_TARGET)
    return (-1 if wanted >= targets else max(1, wanted)), stripe_size or STRIPE


def _targets(folder: Path) -> int:
    """Storage targets of the file system: the lines of `lfs osts` such as "0: fsx-OST0000_UUID ACTIVE"."""
    said = _lfs("osts", str(folder)) or ""
    return sum("OST" in line and ":" in line and "ACTIVE" in line.upper() for line in said.splitlines())


def _lfs(*arguments: str) -> str | None:
    """What it says; None where it fails or does not answer."""
    try:
        done = subprocess.run(["lfs", *arguments], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
