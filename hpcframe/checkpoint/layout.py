"""How fields lie in an HDF5 file: made by one process, before any rank writes its part of them.

A field is one contiguous dataset of the global shape, whose place in the file is known once it is allocated. Its
axes are HDF5 dimension scales, 1-D datasets named after them, as netCDF-4 has them; so xarray, ncdump and others find
the coordinates: x, y and z in m for points in the centres of cells, x_face and so on where they lie on faces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcframe.checkpoint.sparse import SparseFile
from hpcframe.errors import InputError
from hpcframe.lazy import h5py
from hpcframe.version import version

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid
    from hpcframe.grid.field import Field

AXES = ("x", "y", "z")
COORDINATES = (*AXES, *(f"{axis}_face" for axis in AXES))
ALIGNMENT = 2**20  # bytes: large arrays begin at a stripe of a parallel file system


def lay_out(path: Path, fields: Sequence[Field], time: float, attributes: Mapping[str, Any]) -> dict[str, int]:
    """Make the file, with everything in it but the values of the fields. Not collective.

    Returns:
        Where the values of each field begin in the file (bytes).

    Raises:
        InputError: an attribute that HDF5 cannot hold, or of a name that hpcframe uses.
        OSError: the file cannot be written.
    """
    memory = SparseFile()
    with h5py.File(memory, "w", alignment_threshold=ALIGNMENT, alignment_interval=ALIGNMENT) as file:
        describe(file, fields[0].grid, time, attributes)
        offsets = {}
        for field in fields:
            dataset = allocate(file, field.name, field.dtype, field.shape)
            attach_coordinates(file, dataset, field)
            offsets[field.name] = int(dataset.id.get_offset() or 0)  # None for an array without elements
    memory.copy_to(path)
    return offsets


def dimensions(field: Field) -> list[str]:
    """Names of the axes of a field's dataset: components first, then those of the grid."""
    count = len(field.components)
    leading = [f"{field.name}_component" + f"_{axis}" * (count > 1) for axis in range(count)]
    return leading + [AXES[axis] + "_face" * (axis in field.staggered) for axis in range(field.grid.ndim)]


def check_names(arrays: Mapping[str, Field]) -> None:
    """Refuse what cannot be in one file. Not collective; the same on every rank.

    Raises:
        InputError: a name that no dataset can have, or fields of several grids.
    """
    first = next(iter(arrays.values()))
    taken = [*COORDINATES, *(name for field in arrays.values() for name in dimensions(field))]
    for name, field in arrays.items():
        if field.grid is not first.grid:
            raise InputError(f"field '{name}' lives on another grid than '{first.name}'; save it to another file")
        if name in taken or not name.strip(".") or "/" in name or "\0" in name:
            raise InputError(f"a dataset cannot be named '{name}' (coordinates are: {', '.join(COORDINATES)})")


def describe(file: h5py.File, grid: CartesianGrid, time: float, attributes: Mapping[str, Any]) -> None:
    """Write the attributes of a file. Raises InputError for one that HDF5 cannot hold. Not collective."""
    own = {"time": float(time), "origin": grid.origin, "spacing": grid.spacing, "hpcframe_version": version()}
    for name, value in (own | dict(attributes)).items():
        if name in own and name in attributes:
            raise InputError(f"attribute '{name}' is one that hpcframe writes itself; choose another name")
        try:
            file.attrs[name] = value
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            raise InputError(
                f"attribute '{name}': HDF5 cannot hold this {type(value).__name__} ({error}); "
                f"give a number, a text, or an array of up to 64 KB"
            ) from error


def allocate(
    file: h5py.File, name: str, dtype: np.dtype, shape: Sequence[int], tile: Sequence[int] | None = None
) -> h5py.Dataset:
    """Make a dataset whose place in the file is known at once and is not written to: in tiles, or in one run.
    Not collective."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if tile and 0 not in shape:
        properties.set_chunk(tuple(tile))
    else:
        properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return create_dataset(file, name, dtype, shape, properties)


def create_dataset(file: h5py.File, name: str, dtype: np.dtype, shape: Sequence[int], properties: Any) -> h5py.Dataset:
    """Make a dataset by low-level properties. Not collective."""
    properties.set_obj_track_times(False)  # the same bytes whenever the file is made
    kind, space = h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(tuple(shape))
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))


def attach_coordinates(file: h5py.File, dataset: h5py.Dataset, field: Field) -> None:
    """Give a dataset the axes of its field, made where the file has none of that name. Not collective."""
    for axis, name in enumerate(dimensions(field)):
        dataset.dims[axis].attach_scale(file[name] if name in file else _coordinate(file, name, field, axis))


def _coordinate(file: h5py.File, name: str, field: Field, axis: int) -> h5py.Dataset:
    at = axis - len(field.components)
    if at < 0:
        scale = file.create_dataset(name, data=np.arange(field.shape[axis]))
    else:
        whole = tuple(slice(0, points) for points in field.shape[len(field.components) :])
        scale = file.create_dataset(name, data=field.grid.coordinates_of(whole, field.staggered)[at].ravel())
        scale.attrs["units"] = "m"
    scale.make_scale(name)
    return scale
