"""Small records beside the checkpoints, in JSON, which outlive a crash of the machine. No MPI."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hpcframe.checkpoint.folder import sync
from hpcframe.files import partial_name

Kind = TypeVar("Kind")


class BrokenRecordError(Exception):
    """A file that is no record of the kind. It stays within hpcframe: each kind has its own answer."""


def write_record(path: Path, table: Mapping[str, Any]) -> None:
    """Replace a record. Once this returns it is on the disk; before that there is the old one. Not collective.

    Raises OSError; the old one stays then.
    """
    partial = partial_name(path)
    try:
        with open(partial, "x", encoding="utf-8") as file:
            file.write(json.dumps(table) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def read_record(path: Path, kind: type[Kind]) -> Kind | None:
    """A record as an object of a kind that msgspec knows; None where there is no file. Not collective.

    Raises:
        BrokenRecordError: it is no such record.
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenRecordError(f"{path}: {error}") from error
