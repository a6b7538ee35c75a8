"""Limits on this process: EFA locks memory, and a rank has a connection to each rank that it talks to."""

from __future__ import annotations

import re
from pathlib import Path

from hpcframe import efa
from hpcframe.launch.checks.finding import Finding

FILE = "proc/self/limits"
BY_HAND = "ulimit -l; ulimit -n"
ENOUGH_FILES = 4096
RAISE = (
    "ulimit -l unlimited; for all: `* - memlock unlimited` in /etc/security/limits.d/, LimitMEMLOCK=infinity for "
    "slurmd, and srun --propagate=NONE where a login node has less"
)
MORE_FILES = f"hundreds of ranks need more files: ulimit -n {ENOUGH_FILES}; for all: `* - nofile` in limits.d"


def limits(root: Path = Path("/")) -> Finding:
    """Not collective. `root` is the folder that holds /proc and /sys."""
    try:
        text = (root / FILE).read_text(encoding="ascii")
    except OSError as error:
        return Finding("SKIP", f"unknown here: /{FILE}: {error.strerror}")
    locked, files = soft(text, "Max locked memory"), soft(text, "Max open files")
    found = f"locked memory {f'{locked / 2**20:g} MiB' if locked < float('inf') else 'unlimited'}, open files {files:g}"
    if locked < float("inf") and efa.adapters(root):
        return Finding("FAIL", f"{found}: EFA needs unlimited locked memory", RAISE)
    return Finding("PASS", found, MORE_FILES if files < ENOUGH_FILES else "")


def soft(text: str, name: str) -> float:
    """A limit that is in force, by the text of /proc/self/limits; infinite where there is none. Not collective."""
    value = re.search(rf"^{name}\s+(\d+)", text, re.MULTILINE)
    return float(value[1]) if value else float("inf")
