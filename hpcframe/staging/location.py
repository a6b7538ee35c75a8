"""What a checkpoint is called in S3, and which there are. Pure functions.

    <prefix>/checkpoints/<run>/step-0000100-1a2b3c4d/state.h5 ...    the files of a checkpoint
    <prefix>/checkpoints/<run>/step-0000100-1a2b3c4d/MANIFEST.json   comes last: with it the checkpoint is there
    <prefix>/output/..., summary.json, diagnostics.csv

The digits after the step are a checksum of the content: another content has another name, so nothing that is complete
is ever written over, and what is there already is recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.manifest import NAME, canonical
from hpcframe.staging.url import Location

FOLDER = "checkpoints"
STEP = r"step-(\d{7,})-([0-9a-f]{8})"
OBJECT = re.compile(rf"{FOLDER}/(\w+)/{STEP}/(.+)")
# As strict as can be: a prefix of a user's may have a folder `checkpoints`, too.
CHOSEN = re.compile(rf"(?:(.+)/)?{FOLDER}/([0-9a-f]{{12}})(?:/{STEP}(?:/{re.escape(NAME)})?)?")


@dataclass(frozen=True)
class StoredObject:
    """An object: its name below the location, its bytes, and when it came."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A checkpoint in S3.

    Attributes:
        run: the same for all incarnations of a run.
        identity: the checksum of its content, as in its name.
        sizes: bytes of each of its objects, by name.
        committed: when its manifest came; None: it is not complete.
    """

    run: str
    step: int
    identity: str
    sizes: dict[str, int] = field(default_factory=dict)
    committed: datetime | None = None

    @property
    def name(self) -> str:
        """What the names of its objects begin with, without the last slash."""
        return f"{FOLDER}/{self.run}/step-{self.step:07d}-{self.identity}"

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def identity_of(body: dict[str, object]) -> str:
    """The checksum of what a checkpoint holds: of its manifest as JSON has it, but for when and how it was written."""
    content = {key: value for key, value in body.items() if key != "written"}
    return f"{crc32c(canonical(content).encode()):08x}"


def checkpoints_in(objects: Iterable[StoredObject]) -> list[RemoteCheckpoint]:
    """All checkpoints that these objects belong to, complete or not, the newest of each run first."""
    sizes: dict[tuple[str, int, str], dict[str, int]] = {}
    committed: dict[tuple[str, int, str], datetime] = {}
    for each in objects:
        match = OBJECT.fullmatch(each.name)
        if match:
            key = match[1], int(match[2]), match[3]
            sizes.setdefault(key, {})[match[4]] = each.size
            if match[4] == NAME:
                committed[key] = each.modified
    found = [RemoteCheckpoint(*key, sizes[key], committed.get(key)) for key in sizes]
    return sorted(found, key=lambda one: (one.run, -one.step, -one.committed.timestamp() if one.committed else 0.0))


def candidates(found: Sequence[RemoteCheckpoint]) -> list[RemoteCheckpoint]:
    """What a run can go on from, the best first: those of the run that came last, by step."""
    complete = [(one.committed, one) for one in found if one.committed]
    if not complete:
        return []
    _, latest = max(complete, key=lambda pair: pair[0])
    return [one for _, one in complete if one.run == latest.run]


@dataclass(frozen=True)
class Choice:
    """What a URL of a user's means: a location, and maybe one run there, or one checkpoint."""

    location: Location
    run: str = ""
    step: int | None = None
    identity: str = ""

    @staticmethod
    def parse(url: str) -> Choice:
        """A run or a checkpoint where the URL ends as hpcframe names these; any other URL is a location as it stands.

        Not collective. Raises InputError.
        """
        whole = Location.parse(url)
        match = CHOSEN.fullmatch(whole.prefix.rstrip("/"))
        if match is None:
            return Choice(whole)
        location = Location(whole.bucket, f"{match[1]}/" if match[1] else "")
        return Choice(location, match[2], int(match[3]) if match[3] else None, match[4] or "")

    @property
    def beginning(self) -> str:
        """What the names of all objects that are meant begin with."""
        if not self.run or self.step is None:
            return f"{FOLDER}/{self.run}/" if self.run else ""
        return f"{RemoteCheckpoint(self.run, self.step, self.identity).name}/"
