"""Folders that a run writes to: can they be written, what holds them, and how much is free?"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.mounts import file_system
from hpcframe.launch.checks.units import gigabytes

SET_TMPDIR = "set TMPDIR to a folder on a disk of this node that can be written"
GO_ELSEWHERE = "change to a folder that can be written, or set [simulation] directory to one"
TEMPORARY_BY_HAND = 'touch "${TMPDIR:-/tmp}/x"; df -hT "${TMPDIR:-/tmp}"'
CURRENT_BY_HAND = "touch x; df -hT ."
TRIAL = 1 << 20  # bytes: enough to meet a quota or a full disk
LITTLE = 1e9  # bytes


def temporary() -> Finding:
    """Where MPI keeps its sockets and hpcframe its compiled code. Not collective."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        return Finding("FAIL", str(error), SET_TMPDIR)
    wanted = os.environ.get("TMPDIR")
    if wanted and Path(wanted).resolve() != folder.resolve():  # Python falls back silently, MPI does not
        return Finding("FAIL", f"TMPDIR is {wanted}, which cannot be written", SET_TMPDIR)
    return look_at(folder, SET_TMPDIR)


def current() -> Finding:
    """Where runs go unless their sim.toml says otherwise. Not collective."""
    try:
        folder = Path.cwd()
    except FileNotFoundError:
        return Finding("FAIL", "the current folder has been deleted", "change to a folder that exists")
    return look_at(folder, GO_ELSEWHERE)


def look_at(folder: Path, remedy: str) -> Finding:
    """Write a trial file into a folder and delete it. Not collective."""
    try:
        write_trial(folder)
    except OSError as error:
        return Finding("FAIL", f"{folder} cannot be written: {error.strerror}", remedy)
    free = shutil.disk_usage(folder).free
    advice = f"little is free; {remedy}" if free < LITTLE else ""
    return Finding("PASS", f"{folder}, {file_system(folder)}", advice, f"{gigabytes(free)} free")


def write_trial(folder: Path) -> None:
    """Raises OSError where a megabyte cannot be written. Not collective."""
    with tempfile.TemporaryFile(dir=folder) as trial:
        trial.write(bytes(TRIAL))
        trial.flush()
        os.fsync(trial.fileno())
