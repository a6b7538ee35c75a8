"""The manifest of a checkpoint: what is in it and how to know that it is right. No MPI, no HDF5.

MANIFEST.json is JSON of two keys: `manifest`, and `checksum`, the CRC32C (8 hexadecimal digits) of the manifest as
JSON with sorted keys and without spaces. Numbers are written so that reading gives the same bits.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.errors import InputError

NAME = "MANIFEST.json"
SCHEMA = 1


class BadCheckpointError(Exception):
    """Why a checkpoint cannot be used. It stays within hpcframe, which then takes the next older one."""


class UnreadableError(BadCheckpointError):
    """It may be right, but cannot be read here and now: a permission, too many open files."""


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a file, with the CRC32C of them."""

    file: int  # index in `Manifest.files`
    offset: int  # bytes
    length: int  # bytes
    checksum: int


class ArrayRecord(msgspec.Struct, frozen=True):
    """A global array: components first, then the axes of the grid. Tiles are in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    components: int  # number of leading axes that are not the grid's
    staggered: tuple[int, ...]  # axes of the grid along which the points lie on faces
    tile: tuple[int, ...]
    tiles: list[Extent]


class FileRecord(msgspec.Struct, frozen=True):
    name: str  # in the folder of the checkpoint
    length: int  # bytes


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says of itself."""

    schema: int = SCHEMA
    run: str  # the same for all incarnations of a run
    step: int
    time: float  # s
    grid: dict[str, Any]  # shape, origin, spacing, periodic
    attributes: dict[str, Any]  # the caller's: model, parameters, dt, random states, ...
    code: dict[str, str]  # versions
    written: dict[str, Any]  # when, by how many ranks, by which driver
    files: list[FileRecord]
    arrays: list[ArrayRecord]
    rest: list[Extent]  # all other bytes of the files that are not holes: HDF5's own


def encode(manifest: Manifest) -> str:
    """The text of MANIFEST.json; its attributes are plain. Not collective."""
    text = canonical(msgspec.to_builtins(manifest))
    return f'{{"checksum":"{crc32c(text.encode()):08x}","manifest":{text}}}\n'


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of attributes as JSON can hold them. Not collective.

    Raises:
        InputError: an attribute that is no number, text, bytes, array, sequence or mapping of these.
    """
    return {_key(name, repr(name)): _plain(value, repr(name)) for name, value in attributes.items()}


def decode(text: str) -> Manifest:
    """The manifest in the text of a MANIFEST.json. Not collective.

    Raises:
        BadCheckpointError: it is not whole, not right, or of a later version of hpcframe.
    """
    try:
        envelope = json.loads(text)
        body, checksum = envelope["manifest"], int(envelope["checksum"], 16)
    except (ValueError, KeyError, TypeError) as error:
        raise BadCheckpointError(f"{NAME} is not whole: {error}") from error
    if crc32c(canonical(body).encode()) != checksum:
        raise BadCheckpointError(f"{NAME} does not have the checksum that it names")
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        raise BadCheckpointError(f"{NAME} is not of schema {SCHEMA}, the one that this version of hpcframe reads")
    try:
        manifest = msgspec.convert(body, Manifest)
    except msgspec.ValidationError as error:
        raise BadCheckpointError(f"{NAME}: {error}") from error
    return msgspec.structs.replace(manifest, attributes=_restored(manifest.attributes))


def canonical(value: Any) -> str:
    """The one way in which a value is written for its checksum."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _plain(value: Any, where: str) -> Any:
    """As JSON has it: arrays, complex numbers and bytes become mappings of one key that begins with a $."""
    if isinstance(value, np.generic):
        is_plain = value.dtype.kind in "biufcU" and not isinstance(value.item(), np.generic)  # not extended precision
        return _plain(value.item() if is_plain else np.asarray(value), where)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.kind == "V":
            raise InputError(f"attribute {where}: an array of {value.dtype} cannot be kept; give arrays of numbers")
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"$array": [value.dtype.str, list(value.shape), data]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}  # JSON has no nan and no infinity
    if isinstance(value, complex):
        return {"$complex": [_plain(value.real, where), _plain(value.imag, where)]}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(inner, where) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, where) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"attribute {where}: a {type(value).__name__} cannot be kept in a checkpoint; give numbers, texts, bytes, "
        f"arrays, and lists and dictionaries of them"
    )


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise InputError(f"attribute {where}: the key {key!r} cannot be kept; give texts that do not begin with $")
    return key


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        dtype, shape, data = value["$array"]
        return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
    if "$float" in value:
        return float(value["$float"])
    if "$complex" in value:
        return complex(*map(_restored, value["$complex"]))
    if "$bytes" in value:
        return base64.b64decode(value["$bytes"])
    return {key: _restored(inner) for key, inner in value.items()}


def check_extents(manifest: Manifest) -> None:
    """Refuse a manifest whose tiles cannot be what it says, before anything is read by it.

    Raises:
        BadCheckpointError: a number of tiles or a length that does not go with the shape.
    """
    for record in manifest.arrays:
        counts = [-(-length // tile) if tile else 0 for length, tile in zip(record.shape, record.tile, strict=True)]
        if len(record.tiles) != math.prod(counts):
            raise BadCheckpointError(f"{NAME} has {len(record.tiles)} tiles of '{record.name}', not {counts}")
        length = math.prod(record.tile) * np.dtype(record.dtype).itemsize
        if any(tile.length != length or not 0 <= tile.file < len(manifest.files) for tile in record.tiles):
            raise BadCheckpointError(f"{NAME} has a tile of '{record.name}' that is not {length} bytes long")
