"""`save` and `load`: fields in one HDF5 file that any tool reads, written in parallel by a serial HDF5 library."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcframe.checkpoint.layout import check_names, lay_out
from hpcframe.checkpoint.slabs import slab_bytes, to_slab, turns, write_slab
from hpcframe.errors import InputError, nearest
from hpcframe.files import explained, partial_name
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field
from hpcframe.lazy import h5py


@dataclass(frozen=True)
class Draft:
    """A file being written: its final path, its path until then, and where each field's values begin (bytes)."""

    path: Path
    partial: Path
    offsets: dict[str, int]


def save(
    path: str | os.PathLike[str],
    *fields: Field,
    attributes: Mapping[str, Any] | None = None,
    time: float | None = None,
) -> None:
    """Write fields to one HDF5 file, a dataset of the global array each. Collective.

    The file is complete when it appears: it is written under a temporary name and renamed. Its bytes do not depend
    on the number of ranks. Besides the fields, each rank needs memory for some planes of a field.

    Args:
        path: the file, in a folder that all ranks see; an older one is replaced. That of rank 0 counts.
        fields: fields of one grid. A dataset has the field's name, dtype and shape; its axes carry the coordinates
            x, y and z (m), or x_face and so on along axes where the field is staggered.
        attributes: more attributes of the file: numbers, texts, arrays. Those of rank 0 count. hpcframe writes time
            (s), origin and spacing (m) and hpcframe_version.
        time: simulated time (s); the grid's if not given.

    Raises:
        InputError: no fields, fields of several grids, names that cannot be; a folder that is not there or not yours.
        HpcframeError: the file could not be written, on whatever rank that was. All ranks raise; nothing is left.
    """
    grid = _first(fields).grid
    draft = None
    with ExitStack() as cleaning:
        with collectively(grid.comm, "laying out the file"):
            _check(fields)
            if grid.rank == 0:
                draft = _draft(path, fields, grid.time if time is None else time, attributes or {}, cleaning)
        draft = grid.comm.bcast(draft)
        _write(grid.comm, draft, fields)
        with collectively(grid.comm, "renaming the file"), explained(draft.path):
            if grid.rank == 0:
                draft.partial.replace(draft.path)


def load(path: str | os.PathLike[str], *fields: Field) -> dict[str, Any]:
    """Set fields from the datasets of their names in an HDF5 file. Collective.

    Each rank reads its own block; how many ranks wrote the file, and what program, does not matter.

    Args:
        path: the file, in a folder that all ranks see.
        fields: a field's dataset has its global shape, and a dtype that converts to its own within the same kind.

    Returns:
        The attributes of the file, such as its time (s).

    Raises:
        InputError: on every rank, where a file or dataset is missing, or does not fit the field. A field keeps its
            values unless the file breaks off within it.
    """
    comm = _first(fields).grid.comm
    try:
        with collectively(comm, f"loading {path}"), _reading(Path(path)) as file:
            datasets = [_dataset(file, field) for field in fields]
            for field, dataset in zip(fields, datasets, strict=True):
                components = tuple(slice(0, count) for count in field.components)
                field.local_interior[...] = dataset[components + field.block]
            return dict(file.attrs)
    finally:
        for field in fields:
            field.written()


def _first(fields: Sequence[Field]) -> Field:
    """The field whose communicator is used: an error here is the same on every rank."""
    if not fields or not all(isinstance(field, Field) for field in fields):
        raise InputError("give the fields to save or load, as in `save(path, u, v)`")
    return fields[0]


def _check(fields: Sequence[Field]) -> None:
    names = [field.name for field in fields]
    for field in fields:
        if names.count(field.name) > 1:
            raise InputError(f"two fields are named '{field.name}'; a dataset needs a name of its own")
    check_names({field.name: field for field in fields})


def _draft(
    path: str | os.PathLike[str],
    fields: Sequence[Field],
    time: float,
    attributes: Mapping[str, Any],
    cleaning: ExitStack,
) -> Draft:
    """Make the file under a temporary name, which `cleaning` removes if it is still there. Not collective."""
    target = Path(path).resolve()
    with explained(target):
        if not target.parent.is_dir():
            raise InputError(f"{target}: there is no folder {target.parent}; make it, or give another path")
        if target.is_dir():
            raise InputError(f"{target} is a folder; give the name of a file")
        partial = partial_name(target)
        cleaning.callback(partial.unlink, missing_ok=True)
        return Draft(target, partial, lay_out(partial, fields, time, attributes))


def _write(comm: MPI.Intracomm, draft: Draft, fields: Sequence[Field]) -> None:
    """Write the values of the fields to their places. Collective."""
    with ExitStack() as closing:
        with collectively(comm, "opening the file"), explained(draft.path):
            if list(draft.offsets) != [field.name for field in fields]:
                raise InputError(f"rank 0 saves {', '.join(draft.offsets)}; give the same fields on every rank")
            file = os.open(draft.partial, os.O_WRONLY)
            closing.callback(os.close, file)
            buffer = np.empty(max(map(slab_bytes, fields)), np.uint8)
        for field in fields:
            count = turns(field)
            for turn in range(count):
                slab = to_slab(field, buffer, turn, count)
                with collectively(comm, f"writing field '{field.name}'"), explained(draft.path):
                    write_slab(file, slab, field, draft.offsets[field.name])
        with collectively(comm, "writing to disk"), explained(draft.path):
            os.fsync(file)


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """The file, open without a lock: not every parallel file system has any. Not collective."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read, or is not a whole HDF5 file: {error}") from error


def _dataset(file: h5py.File, field: Field) -> h5py.Dataset:
    """The dataset of a field, found to fit it."""
    if field.frozen:
        raise InputError(f"field '{field.name}' is frozen and cannot be loaded")
    dataset = file.get(field.name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{file.filename} has no dataset '{field.name}'{nearest(field.name, file)}")
    if dataset.shape != field.shape or not np.can_cast(dataset.dtype, field.dtype, "same_kind"):
        raise InputError(
            f"{file.filename}: dataset '{field.name}' is {dataset.dtype} of shape {dataset.shape}, "
            f"but the field is {field.dtype} of shape {field.shape}"
        )
    return dataset
