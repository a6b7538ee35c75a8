"""Which file system holds a path, from what Linux says is mounted."""

from __future__ import annotations

import re
from pathlib import Path

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "wekafs", "cifs", "smb", "afs", "fuse.sshfs", "9p")

MOUNTS = Path("/proc/mounts")


def file_system(path: Path) -> str:
    """Its type, such as "ext4" or "lustre". Not collective."""
    if not MOUNTS.exists():
        return "a file system of unknown type"
    return type_in(MOUNTS.read_text(encoding="utf-8", errors="replace"), path.resolve())


def type_in(mounts: str, path: Path) -> str:
    """The type of what holds the absolute `path`, by the text of /proc/mounts. Not collective."""
    mounted = [line.split()[1:3] for line in mounts.splitlines()]
    holding = [(Path(_plain(point)), kind) for point, kind in mounted if path.is_relative_to(_plain(point))]
    deepest = max((len(point.parts) for point, _ in holding), default=0)
    # A later mount covers an earlier one at the same point.
    kinds = [kind for point, kind in holding if len(point.parts) == deepest]
    return kinds[-1] if kinds else "a file system of unknown type"


def is_network(kind: str) -> bool:
    """Not collective."""
    return kind.startswith(NETWORK)


def _plain(text: str) -> str:
    r"""Blanks in names are written as \040 there."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
