"""How far a run is, from the files in its folder."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

from hpcframe.launch.durations import in_words

TAIL = 1 << 16  # bytes of diagnostics.csv: many rows


def progress(folder: Path, steps: int | None = None) -> list[str]:
    """What the files of a run say, in lines; what is not there yet is told. Not collective.

    Args:
        folder: `[simulation] directory`.
        steps: of the whole run, where that is known.
    """
    table, summary = folder / "diagnostics.csv", folder / "summary.json"
    try:
        lines = [f"{_last_row(table, steps)}; {_age(table)}"] if table.exists() else []
        lines += [f"summary.json: {_status(summary)}; {_age(summary)}"] if summary.exists() else []
    except OSError as error:
        return [f"{folder} cannot be read here: {error.strerror}"]
    return [f"in {folder}", *(lines or ["no rows of diagnostics.csv yet"])]


def _last_row(table: Path, steps: int | None) -> str:
    with open(table, "rb") as file:
        header = file.readline()
        file.seek(max(len(header), table.stat().st_size - TAIL))
        whole = file.read().rpartition(b"\n")[0]  # the last line may be being written
    row = next(csv.reader([whole.rpartition(b"\n")[2].decode()]), [])
    if len(row) < 2:
        return "no rows of diagnostics.csv yet"
    share = f" of {steps} ({100 * int(row[0]) / steps:.0f} %)" if steps else ""
    return f"step {row[0]}{share}, t = {float(row[1]):g} s"


def _status(summary: Path) -> str:
    """It is replaced at once, so what is there is whole, unless somebody else wrote it."""
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
        return f"{found['status']} at step {found['steps']}"
    except (ValueError, KeyError, TypeError):
        return "not as hpcframe writes it"


def _age(path: Path) -> str:
    return f"written {in_words(max(0.0, time.time() - path.stat().st_mtime))} ago"
