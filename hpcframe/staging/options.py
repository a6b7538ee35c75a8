"""What may be said about staging: in [staging] of sim.toml, to `hf.Staging`, and to the commands."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hpcframe.errors import InputError
from hpcframe.staging.url import Location

MIB = 2**20
SMALLEST_PART, LARGEST_PART = 5 * MIB, 5 * 2**30  # bytes, of a multipart upload to S3
TAGS_AT_MOST = 10  # of an object in S3

Kind = Literal["checkpoints", "output"]
StorageClass = Literal["STANDARD", "INTELLIGENT_TIERING", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"]


FILE = "options.json"  # in the folder `staging` of a run


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[staging]: what is pushed to S3 while a run goes on, and how."""

    url: Annotated[str, Meta(description='"s3://bucket/prefix"')]
    push: tuple[Kind, ...] = ("checkpoints", "output")
    every_seconds: Annotated[float, Meta(ge=0)] = 0.0  # s at least between two checkpoints; 0: as fast as it goes
    keep: Annotated[int, Meta(ge=0)] = 3  # the latest checkpoints there; 0: all
    keep_every: Annotated[int, Meta(ge=0)] = 0  # and those whose step is a multiple of this
    part_size: Annotated[int, Meta(ge=SMALLEST_PART, le=LARGEST_PART)] = 32 * MIB  # bytes of a request
    streams: Annotated[int, Meta(ge=1, le=256)] = 16  # requests at a time, on each node
    bandwidth: Annotated[float, Meta(ge=0)] = 0.0  # bytes a second, of each node; 0: no limit
    storage_class: StorageClass = "STANDARD"  # one that can be read at once; `stage lifecycle` moves to others
    kms_key: str = ""  # id or ARN of a key for encryption; "": the bucket's own
    tags: dict[str, str] = {}
    wait_seconds: Annotated[float, Meta(ge=0)] = 300.0  # s that the end of a run waits without anything arriving in S3

    def __post_init__(self) -> None:
        Location.parse(self.url)
        if not self.push:
            raise ValueError("push: expected at least one of checkpoints, output; leave [staging] out to push nothing")
        if len(self.tags) > TAGS_AT_MOST:
            raise ValueError(f"tags: an object in S3 has {TAGS_AT_MOST} at most, got {len(self.tags)}")


def chosen_options(run: Path, url: str, streams: int = 0) -> tuple[Options, Location]:
    """What a run said of its staging, or a URL; and where that is. Not collective.

    Raises:
        InputError: neither says where to, or the URL is none.
    """
    known = None
    with suppress(OSError, msgspec.DecodeError):
        known = msgspec.json.decode((run / "staging" / FILE).read_bytes(), type=Options)
    if not known and not url:
        raise InputError(f"{run}: its run said nothing of staging; give s3://BUCKET/PREFIX")
    location = Location.parse(url or known.url if known else url)
    options = msgspec.structs.replace(known, url=location.url()) if known else Options(location.url())
    return msgspec.structs.replace(options, streams=streams or options.streams), location
