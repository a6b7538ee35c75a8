"""diagnostics.csv: numbers of a run over time, one row a time."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from hpcframe.files import explained, write_text
from hpcframe.grid.agreement import collectively
from hpcframe.grid.cartesian import CartesianGrid


class Diagnostics:
    """Rank 0 writes a CSV file with the columns step, time (s) and those named.

    No bit is lost: `float(text)` is the number again. A row is in the file as soon as `append` returns.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        grid: CartesianGrid,
        names: Sequence[str],
        keep: Callable[[int], bool] = lambda step: False,
    ) -> None:
        """Begin the file anew, or go on with it. Collective.

        Args:
            keep: whether the row of a step that is in the file already stays.

        Raises:
            InputError: on every rank, where the path cannot be written to.
        """
        self.path = Path(path)
        self.names = tuple(names)
        self._grid = grid
        self._file: TextIO | None = None
        with collectively(grid.comm, "making the table of diagnostics"), explained(self.path):
            if grid.rank == 0:
                header = _line(["step", "time", *self.names])
                rows = self._rows(header, keep)
                if rows:  # an interruption here loses none of them
                    write_text(self.path, header + "".join(rows))
                self._file = open(self.path, "a" if rows else "w", encoding="utf-8", newline="")  # noqa: SIM115
                if not rows:
                    self._write(["step", "time", *self.names])

    def _rows(self, header: str, keep: Callable[[int], bool]) -> list[str]:
        """The rows to keep of a table with the same columns: whole lines, each step once."""
        old = (self.path.read_text(encoding="utf-8") if self.path.is_file() else "").splitlines(keepends=True) or [""]
        if old[0] != header:
            return []
        rows = {line.partition(",")[0]: line for line in old[1:] if line.endswith("\n")}
        return [line for step, line in rows.items() if step.isdigit() and keep(int(step))]

    def append(self, step: int, time: float, values: Mapping[str, Any]) -> None:
        """Append a row. Collective.

        Args:
            step: number of the step.
            time: simulated time (s).
            values: a number for each name, the same on every rank; NumPy's are numbers too. Those of rank 0 count.

        Raises:
            HpcframeError: on every rank, where the file cannot be written, as on a full disk.
        """
        with collectively(self._grid.comm, "writing diagnostics"), explained(self.path):
            self._write([_exact(value) for value in (step, time, *(values[name] for name in self.names))])

    def _write(self, row: Sequence[str]) -> None:
        if self._file is not None:
            self._file.write(_line(row))
            self._file.flush()

    def close(self) -> None:
        """Not collective."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Diagnostics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _line(row: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _exact(value: Any) -> str:
    """The shortest text that gives the number again."""
    return repr(value.item() if isinstance(value, np.generic | np.ndarray) else value)
