"""What of a run is on the disk, checkpoints and output, and what is known against pushing it. No MPI."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpcframe.checkpoint.folder import steps_in
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError, Manifest, check_extents, decode
from hpcframe.staging.location import RemoteCheckpoint, identity_of
from hpcframe.staging.pushed import Version

DIAGNOSTICS = "diagnostics.csv"
OUTPUT = ("output/series.xdmf", DIAGNOSTICS, "summary.json", "output/*.h5")
GROWING = {"output/series.xdmf", DIAGNOSTICS, "summary.json"}  # change all the time: pushed now and then
NOW_AND_THEN = 60.0  # s
OF_STEP = re.compile(r"output/step-(\d+)\.h5")


@dataclass(frozen=True)
class Task:
    """Something to push: a checkpoint's folder, or a file of the output."""

    name: str
    path: Path
    size: int  # bytes
    step: int | None = None

    def precedes(self, step: int) -> bool:
        """Whether it is output that a run which goes on from the checkpoint of a step does not write again."""
        match = OF_STEP.fullmatch(self.name)
        return self.name == DIAGNOSTICS or (match is not None and int(match[1]) <= step)


@dataclass(frozen=True)
class Local:
    """A checkpoint on the disk.

    Attributes:
        name: what it is called in S3; "" where its manifest does not tell.
        size: bytes of its files.
        refused: why it cannot be pushed; "" where nothing is known against it.
    """

    step: int
    path: Path
    name: str = ""
    size: int = 0
    refused: str = ""


def load(path: Path) -> tuple[Manifest, bytes, RemoteCheckpoint]:
    """The manifest of a local checkpoint, its text, and what the checkpoint is called in S3. Not collective.

    Raises:
        BadCheckpointError: the manifest is not right.
        OSError: it cannot be read.
    """
    text = (path / NAME).read_bytes()
    try:
        manifest = decode(text.decode())
    except UnicodeDecodeError as error:
        raise BadCheckpointError(f"{NAME} is not text: {error}") from error
    check_extents(manifest)
    return manifest, text, RemoteCheckpoint(manifest.run, manifest.step, identity_of(json.loads(text)["manifest"]))


class LocalCheckpoints:
    """Those in a folder. A manifest may be long, so it is read once."""

    def __init__(self, folder: Path) -> None:
        """Not collective; nothing is looked at yet."""
        self.folder = folder
        self._seen: dict[tuple[Path, int], Local] = {}  # by path and time of the manifest

    def newer_than(self, known: Collection[str]) -> list[Local]:
        """Those that are newer than all that are known in S3, the newest first. Raises OSError."""
        found, steps = [], steps_in(self.folder)
        for step, path in steps.items():
            one = self._look_at(step, path)
            if one and one.name in known:
                break
            found += [one] if one else []
        self._seen = {key: one for key, one in self._seen.items() if key[0] in steps.values()}
        return found

    def _look_at(self, step: int, path: Path) -> Local | None:
        """None: it is gone."""
        try:
            key = path, (path / NAME).stat().st_mtime_ns
            if key not in self._seen:
                self._seen[key] = _read(step, path)
            return self._seen[key]
        except OSError as error:
            return Local(step, path, refused=f"{path}: {error}") if path.exists() else None

    def refuse(self, path: Path, reason: str) -> None:
        """Not to push a checkpoint as it is now."""
        self._seen = {key: replace(one, refused=reason) if key[0] == path else one for key, one in self._seen.items()}


def _read(step: int, path: Path) -> Local:
    """Raises OSError."""
    try:
        manifest, _, remote = load(path)
    except BadCheckpointError as error:
        return Local(step, path, refused=f"{path}: {error}")
    return Local(step, path, remote.name, sum(file.length for file in manifest.files))


def output_of(run: Path) -> dict[str, Version]:
    """The files of a run's output, those that grow first, which are few. Raises OSError."""
    paths = [path for pattern in OUTPUT for path in sorted(run.glob(pattern))]
    found = {str(path.relative_to(run)): version_of(path) for path in paths}
    return {name: version for name, version in found.items() if version}


def version_of(path: Path) -> Version | None:
    """None where there is no such file. Raises OSError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


class LocalOutput:
    """The output of a run, and which of it could not be pushed."""

    def __init__(self, run: Path) -> None:
        """Not collective; nothing is looked at yet."""
        self.run = run
        self._pushed_at: dict[str, float] = {}
        self._failing: set[str] = set()
        self._refused: dict[str, tuple[Version | None, str]] = {}

    def changed(self, before: Mapping[str, Version]) -> list[Task]:
        """What is not as it was pushed; what could not be read comes last, so that it keeps nothing else up."""
        found = {name: new for name, new in output_of(self.run).items() if before.get(name) != new}
        tasks = [Task(name, self.run / name, new[0]) for name, new in found.items() if not self._is_refused(name, new)]
        return sorted(tasks, key=lambda task: task.name in self._failing)

    def is_early(self, name: str) -> bool:
        """Whether a file that changes all the time was pushed lately."""
        return name in GROWING and time.monotonic() - self._pushed_at.get(name, -NOW_AND_THEN) < NOW_AND_THEN

    def is_failing(self, name: str) -> bool:
        return name in self._failing

    def pushed(self, name: str) -> None:
        self._pushed_at[name] = time.monotonic()
        self._failing.discard(name)

    def failed(self, name: str) -> None:
        """It could not be read."""
        self._failing.add(name)

    def refuse(self, name: str, version: Version | None, reason: str) -> None:
        """Not to push a file as it is now."""
        self._refused[name] = version, reason

    def _is_refused(self, name: str, version: Version) -> bool:
        return name in self._refused and self._refused[name][0] == version

    def refused(self) -> list[str]:
        """Why files that are still as they were are not pushed. Raises OSError."""
        return [reason for name, (was, reason) in self._refused.items() if version_of(self.run / name) == was]
