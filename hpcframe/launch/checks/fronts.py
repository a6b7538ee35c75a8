"""How many steps stencils do in one pass over memory on this kind of machine, as earlier runs found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcframe.launch.checks.finding import Finding

BY_HAND = 'cat "${HPCFRAME_CACHE_DIR:-/tmp/hpcframe-cache-$(id -u)}"/front-*.json'
SHOWN = 3


def fronts() -> Finding:
    """The latest findings. Not collective."""
    from hpcframe.compilation import cache_folder

    files = cache_folder().glob("front-*.json")
    latest = sorted(((_changed(path), path) for path in files), reverse=True)
    found = [line for _, path in latest if (line := _described(path))]
    if not found:
        return Finding("SKIP", "nothing measured yet: the first run of a stencil does")
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Finding("PASS", f"measured {len(found)}", varies="; ".join(found[:SHOWN]) + more)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # just being replaced
        return 0.0


def _described(path: Path) -> str:
    try:
        found = json.loads(path.read_text())
        points = " x ".join(map(str, found["points"]))
        where = f"{found['stencil']} on {points}, {found['ranks_on_node']} rank(s) x {found['threads']} thread(s)"
        return f"{where}: {_front(*found['front'])}, {found['over_one_by_one']:.2f} times as fast as one by one"
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or being replaced: not shown
        return ""


def _front(depth: int, *_: Any) -> str:
    return f"{depth} steps at once" if depth > 1 else "one step after another"
