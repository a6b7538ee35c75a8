"""Transparent huge pages: a field of gigabytes in pages of 4 kB costs a look-up in a table again and again."""

from __future__ import annotations

import re
from pathlib import Path

from hpcframe.launch.checks.finding import Finding

FILE = "sys/kernel/mm/transparent_hugepage/enabled"
BY_HAND = f"cat /{FILE}"
SWITCH_ON = f"NumPy asks for them, and gets none; as root: echo madvise >/{FILE}"


def huge(root: Path = Path("/")) -> Finding:
    """Not collective. `root` is the folder that holds /sys."""
    try:
        choices = (root / FILE).read_text(encoding="ascii")
    except OSError as error:
        return Finding("SKIP", f"unknown here: /{FILE}: {error.strerror}")
    chosen = re.search(r"\[(\w+)\]", choices)  # as in "always [madvise] never"
    state = chosen[1] if chosen else choices.strip()
    return Finding("PASS", state, SWITCH_ON if state == "never" else "")
