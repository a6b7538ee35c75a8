"""Files that are there and whole, or not there; and what to do where the file system says no."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcframe.errors import HpcframeError, InputError

BYTES_A_CALL = 2**30  # Linux writes no more than 2 GiB in one call, and some file systems fail before
ELSEWHERE = "give a path in a folder that exists and that you may write to"
NO_ROOM = "free space there, or write to another disk"

REMEDIES: dict[int, tuple[type[HpcframeError], str]] = {
    errno.ENOENT: (InputError, ELSEWHERE),
    errno.ENOTDIR: (InputError, ELSEWHERE),
    errno.EACCES: (InputError, ELSEWHERE),
    errno.EPERM: (InputError, ELSEWHERE),
    errno.EROFS: (InputError, ELSEWHERE),
    errno.EEXIST: (InputError, "a file of that name is there; move it away, or give another path"),
    errno.EISDIR: (InputError, "that is a folder; give the name of a file"),
    errno.ENAMETOOLONG: (InputError, "give a shorter name"),
    errno.ENOSPC: (HpcframeError, NO_ROOM),
    errno.EDQUOT: (HpcframeError, "your quota is used up; remove files of yours there, or write to another disk"),
    errno.EFBIG: (HpcframeError, "raise the limit on the size of a file (ulimit -f), or write to another file system"),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into one that names the file and the remedy. Not collective.

    Raises:
        InputError: the path cannot be written to.
        HpcframeError: anything else, such as a full disk.
    """
    try:
        yield
    except OSError as error:
        kind, remedy = REMEDIES.get(error.errno or 0, (HpcframeError, ""))
        reason = os.strerror(error.errno) if remedy and error.errno else str(error)
        raise kind(f"{path}: {reason}" + f": {remedy}" * bool(remedy)) from error


def write_at(file: int, data: memoryview, position: int) -> None:
    """Write all bytes of `data` at a position of an open file. Not collective. Raises OSError."""
    while data:
        written = os.pwrite(file, data[:BYTES_A_CALL], position)
        data, position = data[written:], position + written


def read_at(file: int, into: npt.NDArray[np.uint8], offset: int) -> int:
    """Fill `into` from a position of an open file; how many bytes there were. Not collective. Raises OSError."""
    view, done = into.data, 0
    while done < len(view):
        count = os.preadv(file, [view[done : done + BYTES_A_CALL]], offset + done)
        if count == 0:
            break
        done += count
    return done


def close_all(descriptors: dict[int, int]) -> None:
    """Close files that were synced, or only read: an error of closing says nothing about them. Not collective."""
    while descriptors:
        with suppress(OSError):
            os.close(descriptors.popitem()[1])


def partial_name(path: Path) -> Path:
    """A name beside `path` for what is not complete yet: hidden, and used by nobody else."""
    return path.with_name(f".hpcframe-{secrets.token_hex(8)}.partial")


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text: who reads it meanwhile sees the old one or the new one, whole. Not collective.

    Raises:
        HpcframeError: the file cannot be written; the old one stays.
    """
    partial = partial_name(path)
    with explained(path):
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
