"""Initial values: a state that the model names, expressions of the coordinates, or arrays from files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcframe.errors import InputError, nearest
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field
from hpcframe.lazy import h5py
from hpcframe.simulation.expression import Expression
from hpcframe.simulation.model import STATE_PREFIX, Model
from hpcframe.simulation.schema import FileArray, InitialSection


def set_initial(model: Model, section: InitialSection) -> None:
    """Give every field of the model its initial values; fields without an entry are zero. Collective.

    Raises:
        InputError: on every rank: a file that cannot be read, or an array that does not fit.
    """
    if section.fields:
        for name, value in section.fields.items():
            _set_field(model.state[name], value)
        return
    states = model.states()
    if not states:
        return
    state = getattr(model, STATE_PREFIX + (section.state or states[0]))
    for name, field in model.state.items():

        def values(*coordinates: npt.NDArray, name: str = name) -> Any:
            return state(*coordinates).get(name, 0.0)

        field.fill(values)


def _set_field(field: Field, value: float | str | FileArray) -> None:
    if isinstance(value, FileArray):
        _load(field, value)
    elif isinstance(value, str):
        field.fill(Expression(value, "xyz"[: field.grid.ndim]))
    else:
        field.fill(value)


def _load(field: Field, source: FileArray) -> None:
    if Path(source.file).suffix.lower() in (".npy", ".npz"):
        _load_numpy(field, source)
    else:
        _load_hdf5(field, source)


def _load_hdf5(field: Field, source: FileArray) -> None:
    """Each rank reads its own block."""
    with collectively(field.grid.comm, f"reading the initial values of '{field.name}'"):
        try:
            with h5py.File(source.file, "r", locking=False) as file:
                names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
                dataset = file[_array_name(source, names, field.name)]
                _check_shape(source, dataset.shape, field)
                values = dataset[(*map(slice, field.components), *field.block)]
        except OSError as error:
            raise InputError(f"[initial] {source.file} cannot be read as HDF5: {error}") from error
        _check_finite(source, values, field)
        np.copyto(field.local_interior, values, casting="same_kind")
    field.written()


def _load_numpy(field: Field, source: FileArray) -> None:
    """Rank 0 reads and scatters: a compressed array cannot be read in parts."""
    array = None
    with collectively(field.grid.comm, f"reading the initial values of '{field.name}'"):
        if field.grid.rank == 0:
            array = _numpy_array(source, field)
    field.scatter(array)


def _numpy_array(source: FileArray, field: Field) -> npt.NDArray:
    try:
        opened = np.load(source.file, mmap_mode="r", allow_pickle=False)
        is_array = isinstance(opened, np.ndarray)
        array = opened if is_array else opened[_array_name(source, opened.files, field.name)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"[initial] {source.file} cannot be read as a NumPy file: {error}") from error
    _check_shape(source, array.shape, field)
    _check_finite(source, array, field)
    # A file's whole numbers are welcome in a field of real ones.
    return array.astype(field.dtype) if array.dtype.kind in "iub" else array


def _array_name(source: FileArray, names: list[str], default: str) -> str:
    wanted = source.dataset or (default if default in names or len(names) != 1 else names[0])
    if wanted not in names:
        raise InputError(f"[initial] {source.file} has no array '{wanted}'{nearest(wanted, names)}")
    return wanted


def _check_shape(source: FileArray, shape: tuple[int, ...], field: Field) -> None:
    if shape != field.shape:
        raise InputError(
            f"[initial] {field.name}: {source.file} holds an array of shape {list(shape)}, the field has "
            f"{list(field.shape)}; set [grid] shape to that of the array, or prepare an array for this grid"
        )


def _check_finite(source: FileArray, values: npt.NDArray, field: Field) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"[initial] {field.name}: {source.file} holds values that are not finite; replace them")
