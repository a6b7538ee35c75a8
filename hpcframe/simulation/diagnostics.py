"""diagnostics.csv: numbers of a run over time, one row a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcframe.errors import InputError
from hpcframe.files import explained


class Diagnostics:
    """Writes a CSV file with the columns step, time (s) and those named. For rank 0 only. Not collective.

    No bit is lost: `float(text)` is the number again. A row is in the file as soon as `write` returns.
    """

    def __init__(self, path: str | os.PathLike[str], names: Sequence[str]) -> None:
        """Begin the file anew. Raises InputError where the path cannot be written to."""
        self.path = Path(path)
        self.names = tuple(names)
        with explained(self.path):
            self._file = open(self.path, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._write(["step", "time", *self.names])

    def write(self, step: int, time: float, values: Sequence[complex]) -> None:
        """Append a row.

        Args:
            step: number of the step.
            time: simulated time (s).
            values: one number for each name; NumPy's are numbers too.

        Raises:
            InputError: not as many values as names.
            HpcframeError: the file cannot be written, as on a full disk.
        """
        if len(values) != len(self.names):
            raise InputError(f"{self.path}: {len(values)} values for the {len(self.names)} columns {list(self.names)}")
        self._write([_exact(value) for value in (step, time, *values)])

    def _write(self, row: Sequence[str]) -> None:
        with explained(self.path):
            self._rows.writerow(row)
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Diagnostics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _exact(value: Any) -> str:
    """The shortest text that gives the number again."""
    return repr(value.item() if isinstance(value, np.generic | np.ndarray) else value)
