"""A file in memory of which only the written pages take room."""

from __future__ import annotations

import io
import os
from pathlib import Path

from hpcframe.files import write_at

PAGE = 4096  # bytes


class SparseFile(io.RawIOBase):
    """A seekable binary file that can be as large as the disk: pages nobody wrote to are zeros, and not kept.

    HDF5 lays a file out here first, since it cannot take back what it could not write: after a failed write to a full
    disk it can neither close the file nor end the process in peace.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._written: set[tuple[int, int]] = set()
        self._size = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size; what is beyond it stays out of the copy, not out of memory."""
        self._size = self._position if size is None else size
        return self._size

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        given = memoryview(data).cast("B")
        for start, stop, page, within in self._parts(len(given)):
            self._pages.setdefault(page, bytearray(PAGE))[within : within + stop - start] = given[start:stop]
        self._written.add((self._position, self._position + len(given)))
        self._position += len(given)
        self._size = max(self._size, self._position)
        return len(given)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = memoryview(buffer).cast("B")
        count = max(0, min(len(wanted), self._size - self._position))
        for start, stop, page, within in self._parts(count):
            wanted[start:stop] = self._pages.get(page, bytes(PAGE))[within : within + stop - start]
        self._position += count
        return count

    def _parts(self, count: int) -> list[tuple[int, int, int, int]]:
        """The next `count` bytes, page by page: start and stop among them, the page, and the place within it."""
        parts, start = [], 0
        while start < count:
            page, within = divmod(self._position + start, PAGE)
            stop = min(count, start + PAGE - within)
            parts.append((start, stop, page, within))
            start = stop
        return parts

    def copy_to(self, path: Path) -> None:
        """Make a file of this content, with holes where there are no pages. Raises OSError. Not collective."""
        with open(path, "xb") as file:
            self.write_to(file.fileno())

    def write_to(self, file: int) -> None:
        """Write what was written here into an open file, and set its size. Raises OSError. Not collective."""
        for offset, content in self.extents():
            write_at(file, memoryview(content), offset)
        os.ftruncate(file, self._size)

    @property
    def size(self) -> int:
        """Bytes, holes included."""
        return self._size

    def extents(self) -> list[tuple[int, bytes]]:
        """The runs of bytes that were written: offset (bytes) and content. What lies between them, in the same page
        perhaps, is somebody else's."""
        runs: list[list[int]] = []
        for start, stop in sorted(self._written):
            if runs and start <= runs[-1][1]:
                runs[-1][1] = max(runs[-1][1], stop)
            else:
                runs.append([start, stop])
        return [(start, self._content(start, min(stop, self._size))) for start, stop in runs if start < self._size]

    def _content(self, start: int, stop: int) -> bytes:
        position, self._position = self._position, start
        content = bytearray(stop - start)
        self.readinto(memoryview(content))
        self._position = position
        return bytes(content)
