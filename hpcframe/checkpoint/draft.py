"""A checkpoint that is being written, and how it is completed: the parts of all ranks make the manifest. No MPI."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcframe.checkpoint.container import Layout, Places, lay_out_tiles
from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.direct import Checksums
from hpcframe.checkpoint.folder import hidden, step_folder
from hpcframe.checkpoint.manifest import ArrayRecord, Extent, FileRecord, Manifest
from hpcframe.errors import HpcframeError
from hpcframe.grid.field import Field
from hpcframe.version import version


@dataclass(frozen=True)
class Draft:
    """What will be a checkpoint.

    Attributes:
        final: its folder once it is complete; `partial` until then.
        arrays: fields by the names of their datasets.
        time: s.
        attributes: the caller's, as `plain_attributes` makes them.
        written: what the manifest says of how it was written.
    """

    step: int
    time: float
    final: Path
    partial: Path
    layout: Layout
    arrays: Mapping[str, Field]
    attributes: Mapping[str, Any]
    written: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What one rank did."""

    checksums: Checksums
    verified: tuple[int, ...] = ()  # steps whose tiles of this rank were read back and found right

    def to_json(self) -> str:
        tiles = {name: [[*place, crc] for place, crc in found.items()] for name, found in self.checksums.items()}
        return json.dumps({"tiles": tiles, "verified": self.verified})

    @staticmethod
    def from_json(text: str) -> Part:
        table = json.loads(text)
        tiles = {name: {tuple(entry[:-1]): entry[-1] for entry in found} for name, found in table["tiles"].items()}
        return Part(tiles, tuple(table["verified"]))


def names_of(folder: Path, step: int, token: str) -> tuple[Path, Path]:
    """The folder of a checkpoint, and the one in which it is written."""
    final = step_folder(folder, step)
    return final, hidden(final, "partial", token)


def create_files(draft: Draft) -> None:
    """Make the folder and its files, empty. Raises OSError. For one rank; not collective."""
    if draft.partial.exists():  # of an attempt of this run that failed
        shutil.rmtree(draft.partial)
    draft.partial.mkdir()
    for name in draft.layout.names:
        os.close(os.open(draft.partial / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def write_container(draft: Draft, data_files: int) -> tuple[list[FileRecord], list[Extent]]:
    """Write all of the files that is not a tile, and bring it to the disk. For one rank; not collective.

    Returns:
        The files, and the extents that were written.

    Raises:
        OSError.
    """
    layout, contents = lay_out_tiles(draft.arrays, draft.step, draft.time, data_files)
    if any((layout.places[name].offsets != places.offsets).any() for name, places in draft.layout.places.items()):
        raise HpcframeError(f"{draft.final}: HDF5 laid the same arrays out otherwise than before")
    records, rest = [], []
    for index, (name, content) in enumerate(zip(layout.names, contents, strict=True)):
        file = os.open(draft.partial / name, os.O_WRONLY)
        try:
            content.write_to(file)
            os.fsync(file)
        finally:
            os.close(file)
        records.append(FileRecord(name, content.size))
        rest += [Extent(index, offset, len(data), crc32c(data)) for offset, data in content.extents()]
    return records, rest


def compose(draft: Draft, run: str, parts: Sequence[Part], files: list[FileRecord], rest: list[Extent]) -> Manifest:
    """The manifest of what all ranks wrote. Not collective.

    Raises:
        HpcframeError: a tile was not written, or by two ranks.
    """
    grid = next(iter(draft.arrays.values())).grid
    return Manifest(
        run=run,
        step=draft.step,
        time=draft.time,
        grid={
            "shape": list(grid.shape),
            "origin": list(grid.origin),
            "spacing": list(grid.spacing),
            "periodic": list(grid.periodic),
        },
        attributes=dict(draft.attributes),
        code={"hpcframe": version()},
        written={**draft.written, "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
        files=files,
        arrays=[
            _record(name, draft.arrays[name], places, [part.checksums.get(name, {}) for part in parts])
            for name, places in draft.layout.places.items()
        ],
        rest=rest,
    )


def _record(name: str, field: Field, places: Places, parts: Sequence[Mapping[Any, int]]) -> ArrayRecord:
    found = {place: crc for part in parts for place, crc in part.items()}
    wanted = places.tiling.places()
    if sum(map(len, parts)) != len(wanted) or found.keys() != set(wanted):
        raise HpcframeError(f"the ranks wrote {sum(map(len, parts))} tiles of '{name}', not each of {len(wanted)} once")
    return ArrayRecord(
        name,
        field.dtype.str,
        places.tiling.shape,
        places.components,
        field.staggered,
        places.tiling.tile,
        [
            Extent(places.file_of(place), int(places.offsets[place]), places.tile_bytes, found[place])
            for place in wanted
        ],
    )
