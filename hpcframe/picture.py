"""A picture of a field in an HDF5 file that hpcframe wrote. Not for ranks: it loads matplotlib."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from hpcframe.errors import InputError, nearest
from hpcframe.files import explained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

POINTS_DRAWN = 1500  # along an axis; a larger array is thinned out
UNITS = (
    ("km", 1e3, 1e4),
    ("m", 1.0, 0.1),
    ("mm", 1e-3, 1e-4),
    ("\N{MICRO SIGN}m", 1e-6, 0.0),
)  # name, m, used from (m)
NOISE = 1e-3  # a sign counts if values of it reach this share of the largest


@dataclass(frozen=True)
class Axis:
    """An axis of a field: the coordinates of its points, in `unit`."""

    name: str
    points: npt.NDArray[np.float64]
    unit: str

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})"

    @property
    def ends(self) -> tuple[float, float]:
        """Where its first cell begins, and its last one ends."""
        first, last = float(self.points[0]), float(self.points[-1])
        half = (last - first) / (len(self.points) - 1) / 2 if len(self.points) > 1 else 0.5
        return first - half, last + half

    @property
    def length(self) -> float:
        return self.ends[1] - self.ends[0]


def draw(hdf5_path: str | os.PathLike[str], png_path: str | os.PathLike[str], field: str | None = None) -> None:
    """Draw a field: a curve in 1-D, an image in 2-D, the three slices through the middle in 3-D. Not collective.

    Complex fields and those with components are drawn as magnitudes. Values of both signs get colours that diverge
    from zero.

    Args:
        hdf5_path: a file made by `hpcframe.save`.
        png_path: the picture; an older one is replaced.
        field: name of a field; the first in the file if not given.

    Raises:
        InputError: there is no such file or field.
        HpcframeError: the picture cannot be written.
    """
    if not Path(hdf5_path).is_file():
        raise InputError(f"there is no file {hdf5_path}")
    with h5py.File(hdf5_path, "r", locking=False) as file:
        dataset = _find(file, field)
        axes = _axes(dataset)
        figure = (_draw_curve, _draw_image, _draw_slices)[len(axes) - 1](dataset, axes)
        figure.suptitle(_title(dataset, file.attrs.get("time")))
    with explained(Path(png_path)):
        figure.savefig(png_path, format="png", dpi=160)


def _find(file: h5py.File, field: str | None) -> h5py.Dataset:
    fields = [name for name, item in file.items() if isinstance(item, h5py.Dataset) and not item.is_scale]
    if not fields or field not in (None, *fields):
        raise InputError(f"{file.filename} has no field '{field or ''}'{nearest(field or '', fields)}")
    return file[field or fields[0]]


def _axes(dataset: h5py.Dataset) -> list[Axis]:
    """The axes of the grid, in m or in a unit that suits its size."""
    scales = [dimension[0] for dimension in dataset.dims if len(dimension)]
    scales = [scale for scale in scales if "units" in scale.attrs]  # the others count components
    if not 1 <= len(scales) <= 3:
        raise InputError(f"{dataset.file.filename}: field '{dataset.name[1:]}' has no coordinates to draw it along")
    largest = max(abs(scale[at]) for scale in scales for at in (0, -1))
    unit, metres = next((unit, metres) for unit, metres, least in UNITS if largest >= least)
    return [Axis(Path(scale.name).name.removesuffix("_face"), scale[...] / metres, unit) for scale in scales]


def _title(dataset: h5py.Dataset, time: float | None) -> str:
    name = dataset.name[1:]
    magnitude = _leading(dataset) or dataset.dtype.kind == "c"
    shown = f"|{name}|" if magnitude else name
    return shown if time is None else f"{shown} at t = {time:.6g} s"


def _leading(dataset: h5py.Dataset) -> int:
    """How many axes count components."""
    return sum("units" not in dimension[0].attrs for dimension in dataset.dims if len(dimension))


def _values(dataset: h5py.Dataset, axes: list[Axis], fixed: int | None = None) -> npt.NDArray:
    """The values to draw, thinned out; of the middle plane of the axis `fixed`, if one is given."""
    index: list[Any] = [slice(None, None, -(-len(axis.points) // POINTS_DRAWN)) for axis in axes]
    if fixed is not None:
        index[fixed] = len(axes[fixed].points) // 2
    leading = _leading(dataset)
    values = dataset[(*[slice(None)] * leading, *index)]
    if leading or dataset.dtype.kind == "c":
        values = np.sqrt(np.sum(np.abs(values) ** 2, axis=tuple(range(leading))))
    return values


def _draw_curve(dataset: h5py.Dataset, axes: list[Axis]) -> Figure:
    figure = _figure(7.0, 3.6)
    (axis,) = axes
    values = _values(dataset, axes)
    panel = figure.subplots()
    panel.plot(axis.points[:: -(-len(axis.points) // POINTS_DRAWN)], values, linewidth=1.5, color="#2c5f8a")
    panel.set(xlabel=axis.label, ylabel=dataset.name[1:], xlim=axis.ends)
    panel.grid(color="0.9", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_image(dataset: h5py.Dataset, axes: list[Axis]) -> Figure:
    values = _values(dataset, axes)
    across, up = axes
    height = float(np.clip(6.0 * up.length / across.length, 2.0, 8.0))
    figure = _figure(min(6.0, height * across.length / up.length) + 2.0, height + 0.9)
    panel = figure.subplots()
    image = _show(panel, values, across, up, *_colours([values]))
    figure.colorbar(image, ax=panel, pad=0.02)
    return figure


def _draw_slices(dataset: h5py.Dataset, axes: list[Axis]) -> Figure:
    planes = [_values(dataset, axes, fixed) for fixed in (2, 1, 0)]
    widths = [axes[0].length, axes[0].length, axes[1].length]  # one scale for all, so that they can be compared
    height = 10.0 * max(axes[1].length, axes[2].length) / sum(widths)
    figure = _figure(12.5, float(np.clip(height, 2.0, 7.0)) + 1.4)
    panels = figure.subplots(1, 3, width_ratios=widths)
    colours = _colours(planes)
    for panel, values, fixed in zip(panels, planes, (2, 1, 0), strict=True):
        across, up = (axis for number, axis in enumerate(axes) if number != fixed)
        image = _show(panel, values, across, up, *colours)
        middle = axes[fixed].points[len(axes[fixed].points) // 2]
        panel.set_title(f"{axes[fixed].name} = {middle:.4g} {axes[fixed].unit}", fontsize=10)
    figure.colorbar(image, ax=panels, pad=0.02)
    return figure


def _figure(width: float, height: float) -> Figure:
    """A figure of its own (inch): pyplot, and what a user set there, stay untouched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _show(panel: Axes, values: npt.NDArray, across: Axis, up: Axis, colours: Any, scale: Normalize) -> Any:
    ratio = across.length / up.length
    panel.set(xlabel=across.label, ylabel=up.label)
    return panel.imshow(
        values.T,
        origin="lower",
        extent=(*across.ends, *up.ends),
        cmap=colours,
        norm=scale,
        aspect="equal" if 1 / 6 <= ratio <= 6 else "auto",
        interpolation="nearest",
    )


def _colours(arrays: list[npt.NDArray]) -> tuple[Any, Normalize]:
    """A perceptually uniform colour map, and the range of values it stands for; what is not finite is grey."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    finite = np.concatenate([array[np.isfinite(array)].ravel() for array in arrays])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if min(-low, high) > NOISE * max(-low, high):
        high = max(-low, high)
        return colormaps["RdBu_r"].with_extremes(bad="0.8"), Normalize(-high, high)
    return colormaps["viridis"].with_extremes(bad="0.8"), Normalize(low, high)


if __name__ == "__main__":
    draw(*sys.argv[1:])
