"""The folder of compiled code: is it used, and is it near? Without one, every rank of every run compiles again."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.folders import write_trial
from hpcframe.launch.checks.mounts import file_system, is_network
from hpcframe.launch.checks.units import gigabytes

BY_HAND = 'ls -ld "$HPCFRAME_CACHE_DIR"; df -hT "$HPCFRAME_CACHE_DIR"'
ELSEWHERE = "set HPCFRAME_CACHE_DIR to a folder of your own on a disk of this node"


def cache() -> Finding:
    """Not collective."""
    from hpcframe.compilation import cache_folder

    folder = cache_folder()
    notice = _compile_into()
    if notice:
        return Finding("FAIL", notice, f"{ELSEWHERE}, or make {folder} one: chmod 700 {folder}")
    try:
        write_trial(folder)
    except OSError as error:
        return Finding("FAIL", f"{folder} cannot be written: {error.strerror}", ELSEWHERE)
    return _place(folder)


def _compile_into() -> str:
    """Compile as a run does; what hpcframe has to say about it."""
    from hpcframe.compilation import compile_here

    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        compile_here(_twice, "float64(float64)", identity="hpcframe doctor")
    # "; " begins hpcframe's own advice, which is in the remedy.
    return next((str(notice.message).partition("; ")[0] for notice in notices), "")


def _twice(x: float) -> float:
    return 2.0 * x


def _place(folder: Path) -> Finding:
    kind = file_system(folder)
    free = f"{gigabytes(shutil.disk_usage(folder).free)} free"
    advice = f"a network file system, for which all nodes queue: {ELSEWHERE}" if is_network(kind) else ""
    return Finding("PASS", f"{folder}, {kind}", advice, free)
