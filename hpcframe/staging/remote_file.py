"""An object in S3 as a file that is read in parts: whoever needs a block of a large array reads that block."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcframe.errors import InputError
from hpcframe.staging.options import MIB
from hpcframe.staging.store import Store
from hpcframe.staging.url import Location

BLOCK = 4 * MIB  # bytes of a request
BLOCKS_KEPT = 8


class RemoteFile(io.RawIOBase):
    """A file to read, in blocks of which the latest are kept. For one thread.

    What its methods raise is `AwsError`, or its kinds: `RefusedError`; `ReplacedError` where the object is another one
    than when it was opened, lest what is read be of both.
    """

    def __init__(self, url: str) -> None:
        """Not collective. Raises InputError where there is no such object."""
        super().__init__()
        whole = Location.parse(url)
        folder, _, self._name = whole.prefix.rstrip("/").rpartition("/")
        self._store = Store(Location(whole.bucket, f"{folder}/" if folder else ""))
        found = self._store.state(self._name)
        if found is None:
            raise InputError(f"{url}: no such object; `aws s3 ls` shows what is there")
        self.size, self._tag = found.size, found.tag
        self._at = 0
        self._blocks: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._at))
        done = 0
        while done < count:
            number, begin = divmod(self._at, BLOCK)
            part = self._block(number)[begin : begin + count - done]
            view[done : done + part.size] = part.data
            done += part.size
            self._at += part.size
        return count

    def _block(self, number: int) -> npt.NDArray[np.uint8]:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        content = np.empty(min(BLOCK, self.size - number * BLOCK), np.uint8)
        self._store.read(self._name, number * BLOCK, content, self._tag)
        self._blocks[number] = content
        if len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return content
