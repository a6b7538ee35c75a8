"""Checkpoints in words, for people at a terminal. No MPI."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hpcframe.checkpoint.inspection import Entry
from hpcframe.checkpoint.manifest import ArrayRecord, Manifest

WIDTH = 88  # characters of an attribute before it is cut short


def table(entries: Iterable[Entry]) -> str:
    """A line for each: step, time, size, when and by whom it was written, state."""
    rows = [("step", "time (s)", "size", "written", "ranks", "driver", "state")]
    for entry in entries:
        manifest = entry.manifest
        written: Mapping[str, Any] = manifest.written if manifest else {}
        rows.append(
            (
                "-" if entry.step is None else str(entry.step),
                f"{manifest.time:.6g}" if manifest else "-",
                readable_bytes(entry.bytes),
                _when(written),
                str(written.get("ranks", "-")),
                str(written.get("driver", "-")),
                entry.state,
            )
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines, columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def in_words(manifest: Manifest) -> str:
    """All that a manifest says, but for checksums."""
    grid, written = manifest.grid, manifest.written
    layout = " x ".join(map(str, written.get("layout", ())))
    lines = [
        f"step        {manifest.step}, t = {manifest.time:.17g} s",
        f"written     {_when(written)} by {written.get('ranks', '?')} rank(s) as {layout}, driver "
        f"{written.get('driver', '?')}",
        f"code        {', '.join(f'{name} {version}' for name, version in manifest.code.items())}",
        f"run         {manifest.run}",
        f"grid        {' x '.join(map(str, grid.get('shape', ())))} cells, spacing {grid.get('spacing')} m, origin "
        f"{grid.get('origin')} m, periodic {grid.get('periodic')}",
        f"files       {', '.join(f'{file.name} ({readable_bytes(file.length)})' for file in manifest.files)}",
        *_block("field", [_field(record) for record in manifest.arrays]),
        *_block("attribute", [f"{name} = {value}" for name, value in _flat(manifest.attributes)]),
    ]
    return "\n".join(lines)


def _block(name: str, lines: Sequence[str]) -> list[str]:
    return [f"{name:<12}{line}" for line in lines]


def _field(record: ArrayRecord) -> str:
    dtype = np.dtype(record.dtype)
    size = math.prod(record.shape) * dtype.itemsize
    return (
        f"{record.name}: {dtype} of shape {list(record.shape)}, {readable_bytes(size)}, in {len(record.tiles)} tile(s) "
        f"of {list(record.tile)}"
    )


def _flat(attributes: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Attributes line by line; those in a dictionary as outer.inner."""
    lines: list[tuple[str, str]] = []
    for name, value in attributes.items():
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{before}{name}.")
        else:
            lines.append((before + name, _value(value)))
    return lines


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {list(value.shape)}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."


def _when(written: Mapping[str, Any]) -> str:
    """When it was written, in the time of this place."""
    try:
        moment = datetime.datetime.fromisoformat(written["at"])
    except (KeyError, TypeError, ValueError):
        return "-"
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def readable_bytes(number: float) -> str:
    """A number of bytes in three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
