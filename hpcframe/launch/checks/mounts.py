"""Which file system holds a path, from what Linux says is mounted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "wekafs", "cifs", "smb", "afs", "fuse.sshfs", "9p")

MOUNTS = Path("/proc/mounts")


@dataclass(frozen=True)
class Mount:
    """A line of /proc/mounts: where it is mounted, the type of the file system, and the options."""

    point: str
    kind: str
    options: tuple[str, ...]


def mounted(mounts: str) -> list[Mount]:
    """What is mounted, by the text of /proc/mounts. Not collective."""
    fields = (line.split() for line in mounts.splitlines())
    return [Mount(_plain(point), kind, tuple(options.split(","))) for _, point, kind, options, *_ in fields]


def file_system(path: Path) -> str:
    """Its type, such as "ext4" or "lustre". Not collective."""
    if not MOUNTS.exists():
        return "a file system of unknown type"
    return type_in(MOUNTS.read_text(encoding="utf-8", errors="replace"), path.resolve())


def type_in(mounts: str, path: Path) -> str:
    """The type of what holds the absolute `path`, by the text of /proc/mounts. Not collective."""
    found = mounted(mounts)
    holding = [(Path(mount.point), mount.kind) for mount in found if path.is_relative_to(mount.point)]
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
