"""The fields of a run over time: one HDF5 file a time, and a series that ParaView opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcframe.checkpoint.hdf5 import save
from hpcframe.files import explained, write_text
from hpcframe.grid.agreement import collectively
from hpcframe.grid.cartesian import CartesianGrid
from hpcframe.grid.field import Field
from hpcframe.simulation import xdmf


class Output:
    """Writes <directory>/output/step-<step>.h5, and series.xdmf beside them.

    The series is whole at any moment, so ParaView opens that of a run that goes on or that was interrupted. Its X, Y
    and Z are the grid's axes from last to first; complex and staggered fields are only in the HDF5 files, which
    xarray opens with their coordinates: `xarray.open_dataset(path, engine="h5netcdf")`.

    Attributes:
        folder: where the files are.
        latest: the HDF5 file written last; None before the first.
    """

    def __init__(self, directory: str | os.PathLike[str], grid: CartesianGrid) -> None:
        """Collective.

        Args:
            directory: the folder of the run; it is made where it is missing, and files of an earlier run are removed.
            grid: the grid of what will be written.

        Raises:
            InputError: on every rank, where the folder cannot be made.
        """
        self.folder = Path(directory) / "output"
        self.latest: Path | None = None
        self._grid = grid
        self._series: dict[int, str] = {}
        self._older: set[Path] = set()
        with collectively(grid.comm, "making the output folder"), explained(self.folder):
            if grid.rank == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._older = set(self.folder.glob("step-*.h5"))  # of an earlier run, which this one replaces

    def resume(self, fields: Sequence[Field], keep: Callable[[int], bool], time: Callable[[int], float]) -> None:
        """Go on with the files of an interrupted run. Logically collective.

        Args:
            fields: what will be written, as before.
            keep: whether what was written after a step belongs to this run.
            time: simulated time (s) of a step.
        """
        for path in sorted(self._older):
            number = path.stem.removeprefix("step-")
            if number.isdigit() and keep(int(number)):
                self._series[int(number)] = xdmf.step(self._grid, fields, time(int(number)), path.name)
                self._older.remove(path)

    def write(self, step: int, time: float, fields: Sequence[Field]) -> None:
        """Write fields as they are now. Collective.

        Args:
            step: number of the step; a file of the same step is replaced.
            time: simulated time (s).
            fields: at least one, all of this grid.

        Raises:
            HpcframeError: on every rank, where a file cannot be written; none is left half written.
        """
        path = self.folder / f"step-{step:07d}.h5"
        save(path, *fields, attributes={"step": step}, time=time)
        with collectively(self._grid.comm, "writing the XDMF series"):
            if self._grid.rank == 0:
                self._series[step] = xdmf.step(self._grid, fields, time, path.name)
                write_text(self.folder / "series.xdmf", xdmf.series(self._series.values()))
                self._remove_older(path)
        self.latest = path

    def _remove_older(self, path: Path) -> None:
        """Once something of this run is safe, what an earlier one left here can go."""
        for older in self._older - {path}:
            older.unlink(missing_ok=True)
        self._older = set()
