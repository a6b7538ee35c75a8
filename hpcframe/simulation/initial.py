"""Initial values: a state that the model names, expressions of the coordinates, or arrays from files."""

from __future__ import annotations

import io
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
from hpcframe.staging.url import is_url


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
    suffix = Path(source.file).suffix.lower()
    if suffix == ".npy" and is_url(source.file):
        _load_remote_numpy(field, source)
    elif suffix in (".npy", ".npz"):
        _load_numpy(field, source)
    else:
        _load_hdf5(field, source)


def _load_hdf5(field: Field, source: FileArray) -> None:
    """Each rank reads its own block."""
    with collectively(field.grid.comm, f"reading the initial values of '{field.name}'"):
        try:
            with _opened_hdf5(source.file) as file:
                names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
                dataset = file[_array_name(source, names, field.name)]
                _check_shape(source, dataset.shape, field)
                values = dataset[(*map(slice, field.components), *field.block)]
        except OSError as error:
            raise InputError(f"[initial] {source.file} cannot be read as HDF5: {error}") from error
        _check_finite(source, values, field)
        np.copyto(field.local_interior, values, casting="same_kind")
    field.written()


def _opened_hdf5(name: str) -> Any:
    if not is_url(name):
        return h5py.File(name, "r", locking=False)
    from hpcframe.staging.remote_file import RemoteFile  # loads boto3, which few runs need

    return h5py.File(RemoteFile(name), "r")


def _load_remote_numpy(field: Field, source: FileArray) -> None:
    """Each rank reads its own block, by ranges."""
    from hpcframe.staging.remote_file import RemoteFile

    with collectively(field.grid.comm, f"reading the initial values of '{field.name}'"):
        try:
            with RemoteFile(source.file) as file:
                shape, in_columns, dtype = _numpy_header(file)
                _check_shape(source, shape, field)
                if in_columns and len(shape) > 1:
                    raise InputError(f"[initial] {source.file} is in Fortran order; save np.ascontiguousarray of it")
                values = _block_of(file, shape, dtype, (*map(slice, field.components), *field.block))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"[initial] {source.file} cannot be read as a NumPy file: {error}") from error
        _check_finite(source, values, field)
        values = values.astype(field.dtype) if dtype.kind in "iub" else values
        np.copyto(field.local_interior, values, casting="same_kind")
    field.written()


def _numpy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype. Raises ValueError."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version} of the format is not known")
    shape, in_columns, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, in_columns, dtype


def _block_of(file: Any, shape: tuple[int, ...], dtype: np.dtype, block: tuple[slice, ...]) -> npt.NDArray:
    """A block of the array that begins here in the file: of each plane the rows that are needed."""
    begin, last = file.tell(), shape[-1]
    rows = block[-2] if len(shape) > 1 else slice(0, 1)
    values = np.empty([part.stop - part.start for part in block], dtype)
    run = np.empty((rows.stop - rows.start, last), dtype)
    leading = block[:-2]
    for place in np.ndindex(*(part.stop - part.start for part in leading)):
        at = tuple(part.start + index for part, index in zip(leading, place, strict=True))
        plane = int(np.ravel_multi_index(at, shape[:-2])) if at else 0
        row = plane * (shape[-2] if len(shape) > 1 else 1) + rows.start
        file.seek(begin + row * last * dtype.itemsize)
        if file.readinto(run.reshape(-1).view(np.uint8)) != run.nbytes:
            raise ValueError("it is shorter than its header says")
        part = run[:, block[-1]]
        values[place] = part if len(shape) > 1 else part[0]
    return values


def _load_numpy(field: Field, source: FileArray) -> None:
    """Rank 0 reads and scatters: a compressed array cannot be read in parts."""
    array = None
    with collectively(field.grid.comm, f"reading the initial values of '{field.name}'"):
        if field.grid.rank == 0:
            array = _numpy_array(source, field)
    field.scatter(array)


def _numpy_array(source: FileArray, field: Field) -> npt.NDArray:
    try:
        opened = _opened_numpy(source.file)
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


def _opened_numpy(name: str) -> Any:
    """An archive in S3 is read whole."""
    if not is_url(name):
        return np.load(name, mmap_mode="r", allow_pickle=False)
    from hpcframe.staging.remote_file import RemoteFile

    with RemoteFile(name) as file:
        return np.load(io.BytesIO(file.readall()), allow_pickle=False)


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
