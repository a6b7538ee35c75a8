"""Reading a checkpoint into fields: each tile is read once, by one rank, and used only if its checksum is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpcframe.checkpoint.manifest import ArrayRecord, BadCheckpointError, Manifest, UnreadableError
from hpcframe.checkpoint.redistribution import TileExchange, exchange_of
from hpcframe.checkpoint.verify import VerifyingReader, reading
from hpcframe.errors import HpcframeError, InputError, nearest
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field

Wrong = BadCheckpointError | None  # with a tile: what, or nothing


def check_fits(manifest: Manifest, arrays: Mapping[str, Field], where: Path) -> None:
    """Refuse fields that the checkpoint does not hold. Not collective; the same on every rank.

    Raises:
        InputError: a name, a shape or a dtype differs, or the grid's box.
    """
    records = {record.name: record for record in manifest.arrays}
    for name, field in arrays.items():
        if field.frozen:
            raise InputError(f"field '{name}' is frozen and cannot be restored; restore before `freeze()`")
        record = records.get(name)
        if record is None:
            raise InputError(f"{where} holds no field '{name}'{nearest(name, records)}")
        if record.staggered != field.staggered:
            raise InputError(
                f"{where}: '{name}' is staggered along axes {list(record.staggered)}, the field here along "
                f"{list(field.staggered)}"
            )
        if record.shape != field.shape or record.dtype != field.dtype.str:
            raise InputError(
                f"{where}: '{name}' is {np.dtype(record.dtype)} of shape {list(record.shape)}, the field here is "
                f"{field.dtype} of shape {list(field.shape)}; restore into the grid that was saved"
            )
    grid = next(iter(arrays.values())).grid
    here = {"origin": list(grid.origin), "spacing": list(grid.spacing), "periodic": list(grid.periodic)}
    for key, value in here.items():
        if manifest.grid.get(key) != value:
            raise InputError(f"{where}: the grid's {key} is {value} here, it was {manifest.grid.get(key)} when saved")


def read_fields(folder: Path, manifest: Manifest, arrays: Mapping[str, Field], progress: Callable[[], None]) -> str:
    """Set fields from a checkpoint. Collective. `progress` is called for each tile.

    Returns:
        "" or why the checkpoint is bad, the same on every rank. The fields are then not to be used.

    Raises:
        HpcframeError: on every rank, where one cannot read it, which says nothing about the checkpoint.
    """
    comm = next(iter(arrays.values())).grid.comm
    records = {record.name: record for record in manifest.arrays}
    with reading(folder, manifest, progress) as reader:
        for name, field in arrays.items():
            error = _agreed(comm, _read_field(reader, records[name], field))
            field.written()
            if isinstance(error, UnreadableError):
                raise HpcframeError(f"{folder}: {error}; see to it that all ranks can read it, and start again")
            if error:
                return str(error)
    return ""


def _agreed(comm: MPI.Intracomm, error: Wrong) -> Wrong:
    """The error of the first rank that has one."""
    first = comm.allreduce(comm.rank if error else comm.size, MPI.MIN)
    return comm.bcast(error, first) if first < comm.size else None


def _read_field(reader: VerifyingReader, record: ArrayRecord, field: Field) -> Wrong:
    """Collective: whatever is wrong with a tile, its pieces are sent to those who wait for them."""
    exchange = exchange_of(field, record.tile)
    with collectively(field.grid.comm, f"making room for the tiles of '{record.name}'"):
        shared = np.empty((len(exchange.deal.shared), *record.tile), field.dtype)
        tile = np.empty(record.tile, field.dtype)  # stays in the cache from read to checksum to copy
    error = _read_shared(reader, record, exchange, shared)
    requests = exchange.start_spreading(field, shared)
    if error is None:
        error = _read_whole(reader, record, exchange, field, tile)
        for place, tile in zip(exchange.deal.shared, shared, strict=True):
            exchange.from_tile(field, place, tile)
    MPI.Request.Waitall(requests)
    return error


def _read_shared(reader: VerifyingReader, record: ArrayRecord, exchange: TileExchange, shared: np.ndarray) -> Wrong:
    try:
        for place, tile in zip(exchange.deal.shared, shared, strict=True):
            _read_tile(reader, record, exchange, place, tile)
    except BadCheckpointError as error:
        return error
    return None


def _read_whole(
    reader: VerifyingReader, record: ArrayRecord, exchange: TileExchange, field: Field, tile: np.ndarray
) -> Wrong:
    try:
        for place in exchange.deal.whole:
            _read_tile(reader, record, exchange, place, tile)
            exchange.from_tile(field, place, tile)
    except BadCheckpointError as error:
        return error
    return None


def _read_tile(
    reader: VerifyingReader, record: ArrayRecord, exchange: TileExchange, place: tuple[int, ...], tile: np.ndarray
) -> None:
    index = int(np.ravel_multi_index(place, exchange.tiling.counts))
    reader.read(record.tiles[index], tile.reshape(-1).view(np.uint8), f"tile {index} of '{record.name}'")
