"""On Lustre: over how many storage targets the files of a folder are spread, set before there are any.

A file on one target is written at the rate of one target. AWS recommends all targets and larger stripes for large
files that many clients write (FSx for Lustre User Guide, "Striping data in your file system").
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hpcframe.lustre import MOUNTS, LfsError, lfs, mount_of

STRIPE = 16 * 2**20  # bytes
STRIPE_UNIT = 2**16  # bytes; Lustre takes multiples of it
BYTES_A_TARGET = 2**30  # a file of less does not gain by another target
ACTIVE_TARGET = re.compile(r"^\s*\d+:\s+\S+\s+ACTIVE\b", re.MULTILINE)  # as in "0: fsx-OST0000_UUID ACTIVE"


def stripe(folder: Path, size: int, count: int = 0, stripe_size: int = 0, mounts: Path = MOUNTS) -> str:
    """Set the striping of what will be made in a folder. For one rank; not collective.

    Args:
        size: bytes of the largest file.
        count: storage targets; 0 is chosen, -1 all.
        stripe_size: bytes; 0 is 16 MiB.
        mounts: the table of mounted file systems.

    Returns:
        A line that says what was done, and why; "" where there is no `lfs`, or the folder is not on Lustre. What fails
        costs speed only, so it is a line, too.
    """
    mount = mount_of(folder, mounts)
    if shutil.which("lfs") is None or mount is None or mount.kind != "lustre":
        return ""
    servers, unknown = _targets(folder)
    chosen, length = plan_stripes(size, servers, count, stripe_size)
    there = f"of {servers}" if servers else f"of an unknown number ({unknown})"
    reason = "as asked" if count else f"for files of up to {size / 1e9:.3g} GB"
    what = f"{'all' if chosen == -1 else chosen} storage target(s) {there}, stripes of {length / 2**20:g} MiB, {reason}"
    try:
        lfs("setstripe", "-c", str(chosen), "-S", str(length), str(folder))
    except LfsError as error:
        return f"{folder} on Lustre keeps the striping it had, for it could not be set to {what}: {error}"
    return f"{folder} on Lustre: {what}"


def plan_stripes(size: int, servers: int, count: int, stripe_size: int) -> tuple[int, int]:
    """The number of storage targets (-1: all) and the bytes of a stripe. Not collective.

    Args:
        size: bytes of the largest file.
        servers: storage targets that there are; 0 where unknown.
        count: targets that are asked for; 0: one for each GiB that is begun, -1: all.
        stripe_size: bytes; 0: 16 MiB. Rounded up to what Lustre takes.
    """
    length = -(-(stripe_size or STRIPE) // STRIPE_UNIT) * STRIPE_UNIT
    if count:
        return count, length
    wanted = max(1, -(-size // BYTES_A_TARGET))
    return (wanted if wanted == 1 or wanted < servers else -1), length


def _targets(folder: Path) -> tuple[int, str]:
    """Active storage targets of the file system; or 0, and why it is not known."""
    try:
        count = len(ACTIVE_TARGET.findall(lfs("osts", str(folder))))
    except LfsError as error:
        return 0, str(error)
    return count, "" if count else "`lfs osts` names none"
