"""The most memory of a rank, over its fields with their halos."""

from __future__ import annotations

from typing import Any

from measuring import Effort, spread
from remote import Remote

from rows.row import Row

ALLOWED = 150e6  # bytes a rank, for Python, numba and MPI


def footprint(_: Effort) -> dict[str, Any]:
    """Two fields of 256^3 on each of two ranks. It is the same each time, so once is enough: when all is compiled."""
    found = {}
    for what in ("compiling", "compiled"):
        with Remote("programs/footprint.py", "--shape", 512, 256, 256, ranks=2) as program:
            found[what] = program.ask("run", 20)
    figure = (found["compiled"]["peak_bytes"] - ALLOWED) / found["compiled"]["field_bytes"]
    return {"figure": spread([figure]), **found}


ROWS = [
    Row("memory", "memory of a rank less 150 MB, 256^3 a rank", "its fields with halos", 1.1, footprint, at_most=True),
]
