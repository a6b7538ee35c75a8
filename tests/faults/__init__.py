"""Faults at the border to the operating system: Python's side of faults.c, which describes them.

The library is built once, by the C compiler at hand, and preloaded into a program that a test starts:

    environment = {**os.environ, **faults.environment("path=checkpoints,nth=3,action=kill")}

A program that has it preloaded can arm it itself, for one call after another in the same process:

    with faults.armed("call=fsync,path=checkpoints,action=errno:EIO") as fault: ...
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")


def missing() -> str:
    """Why no faults can be made here; "" where they can."""
    if sys.platform != "linux":
        return "faults are made by preloading a library, which is done here for Linux only"
    return "" if compiler() else "faults need a C compiler, and there is none (cc, gcc, clang)"


def compiler() -> str | None:
    """The C compiler."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)


@functools.cache
def library() -> Path:
    """The library, built if it is not there already: once for a user and a version of the source."""
    name = f"hpcframe-faults-{os.getuid()}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    path = Path(tempfile.gettempdir(), name)
    if not path.exists() or path.stat().st_uid != os.getuid():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder, name)
            command = [str(compiler()), "-O2", "-Wall", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-ldl"]
            subprocess.run(command, check=True)
            built.replace(path)  # other processes may be building the same
    return path


def environment(description: str = "") -> dict[str, str]:
    """What a program's environment needs for a fault, or to arm faults itself."""
    former = os.environ.get("LD_PRELOAD", "")
    settings = {"LD_PRELOAD": f"{library()} {former}".strip()}
    return {**settings, "HPCFRAME_TEST_FAULT": description} if description else settings


@dataclass(frozen=True)
class Call:
    """A call that was counted: which, of what rank and process, the how many-th there, and the path.

    A rename's path is "<from> -> <to>".
    """

    call: str
    rank: int
    number: int
    process: int
    path: str


def calls(log: Path) -> list[Call]:
    """What a fault's `log` noted, in the order in which the calls were made."""
    found = []
    for line in log.read_text(errors="surrogateescape").splitlines() if log.exists() else []:
        call, rank, number, process, path = line.split("\t", 4)
        found.append(Call(call, int(rank), int(number), int(process), path))
    return found


class Fault:
    """A fault in this process.

    Attributes:
        hurt: how many calls were hurt since it was armed.
        seen: how many there were that its call and path describe.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)  # what is preloaded
        self._library.hpcframe_hurt.restype = self._library.hpcframe_seen.restype = ctypes.c_long

    def arm(self, description: str) -> None:
        if self._library.hpcframe_fault(os.fsencode(description)):
            raise ValueError(f"not a fault: {description}")

    @property
    def hurt(self) -> int:
        return int(self._library.hpcframe_hurt())

    @property
    def seen(self) -> int:
        return int(self._library.hpcframe_seen())


@contextmanager
def armed(description: str) -> Iterator[Fault]:
    """A fault in this process, which has the library preloaded, within the block."""
    fault = Fault()
    fault.arm(description)
    try:
        yield fault
    finally:
        fault.arm("")
