"""What of a run is to be in S3 and is not yet, and how it gets there. No MPI."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.folder import steps_in
from hpcframe.checkpoint.manifest import NAME, BadCheckpointError, Extent, Manifest, check_extents, decode
from hpcframe.checkpoint.record import BrokenRecordError, read_record, write_record
from hpcframe.checkpoint.retention import to_remove
from hpcframe.checkpoint.verify import extents_of
from hpcframe.errors import HpcframeError
from hpcframe.files import explained
from hpcframe.staging.location import FOLDER, RemoteCheckpoint, checkpoints_in, identity_of
from hpcframe.staging.options import Options
from hpcframe.staging.pieces import Piece, cut, cut_at_extents
from hpcframe.staging.state import FOLDER as STAGING
from hpcframe.staging.store import Store
from hpcframe.staging.upload import UPLOADS, DamagedFileError, FileUpload, Traffic, read

HOLDS = "holds"  # a file for each step that must stay on the disk until it is in S3
PUSHED = "pushed.json"
OUTPUT = ("output/*.h5", "output/series.xdmf", "diagnostics.csv", "summary.json")
GROWING = {"output/series.xdmf", "diagnostics.csv", "summary.json"}  # change all the time: pushed now and then
NOW_AND_THEN = 60.0  # s


class Pushed(msgspec.Struct):
    """What was pushed of the output: size (bytes) and time of change (ns) of each file, and where to."""

    url: str = ""
    files: dict[str, tuple[int, int]] = {}


@dataclass(frozen=True)
class Task:
    """Something to push: a checkpoint's folder, or a file of the output."""

    name: str
    path: Path
    size: int  # bytes
    step: int | None = None


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


def pieces_of(manifest: Manifest, index: int, size: int) -> list[Piece]:
    """The pieces (of about `size` bytes) of a file of a checkpoint, with the checksums of its manifest."""
    extents: list[Extent] = [extent for _, extent in extents_of(manifest) if extent.file == index]
    return cut_at_extents(manifest.files[index].length, extents, size)


class Pusher:
    """Brings the checkpoints and the output of one run to S3.

    Attributes:
        run: its folder.
        checkpoints: the folder of its checkpoints.
        latest: the checkpoint that was completed in S3 last.
    """

    def __init__(
        self, checkpoints: Path, options: Options, store: Store, traffic: Traffic, nodes: int = 1, token: str = ""
    ) -> None:
        """Not collective; nothing is asked of S3 yet."""
        self.checkpoints, self.run = checkpoints, run_of(checkpoints)
        self.options, self.store, self.traffic = options, store, traffic
        self.latest: RemoteCheckpoint | None = None
        self._nodes, self._token = nodes, token
        self._uploads = self.run / STAGING / UPLOADS
        self._known: set[str] = set()  # names of complete checkpoints in S3
        self._names: dict[tuple[str, int], str] = {}  # of local checkpoints, by path and time of the manifest
        self._refused: set[str] = set()  # damaged ones
        self._begun = 0.0  # when the latest checkpoint was
        self._looked: dict[str, float] = {}  # when growing files were pushed

    def begin(self) -> None:
        """See what S3 has. Raises AwsError; OSError where the folder of the run cannot be written to."""
        for folder in (self._uploads, self.run / STAGING / HOLDS):
            folder.mkdir(parents=True, exist_ok=True)
        self._known = {one.name for one in checkpoints_in(self.store.list(f"{FOLDER}/")) if one.committed}

    # -- what there is to do ------------------------------------------------------------------------------------

    def pending(self, finishing: bool) -> list[Task]:
        """What is not in S3 yet, the newest checkpoint first: older ones are not worth the time. Raises OSError.

        Args:
            finishing: all of it, now: nothing more comes.
        """
        tasks = []
        if "checkpoints" in self.options.push:
            waited = time.monotonic() - self._begun >= self.options.every_seconds
            tasks += self._newest() if finishing or waited or not self._begun else []
        if "output" in self.options.push:
            tasks += self._changed(finishing)
        return tasks

    def _newest(self) -> list[Task]:
        for step, path in steps_in(self.checkpoints).items():
            try:
                name = self._name_of(path)
            except (BadCheckpointError, FileNotFoundError):  # what it is not, a restart says; or it is gone
                continue
            if name in self._known:
                return []
            if name not in self._refused:
                manifest, _, _ = load(path)
                return [Task(path.name, path, sum(file.length for file in manifest.files), step)]
        return []

    def _name_of(self, path: Path) -> str:
        """A manifest may be long, so it is read once."""
        key = str(path), (path / NAME).stat().st_mtime_ns
        if key not in self._names:
            self._names[key] = load(path)[2].name
        return self._names[key]

    def _changed(self, finishing: bool) -> list[Task]:
        before = self._pushed().files
        tasks = []
        for pattern in OUTPUT:
            for path in sorted(self.run.glob(pattern)):
                name = str(path.relative_to(self.run))
                status = path.stat()
                early = name in GROWING and time.monotonic() - self._looked.get(name, -NOW_AND_THEN) < NOW_AND_THEN
                if before.get(name) != (status.st_size, status.st_mtime_ns) and (finishing or not early):
                    tasks.append(Task(name, path, status.st_size))
        return tasks

    # -- doing it -----------------------------------------------------------------------------------------------

    def push(self, task: Task) -> bool:
        """Whether it is in S3 now; False where it is gone meanwhile. Not collective.

        Raises:
            StoppedError: asked to stop.
            DamagedFileError: the checkpoint is not what was written; it is not tried again.
            AwsError, OSError: what was sent is not sent again.
        """
        if task.step is None:
            self._push_file(task)
            return True
        hold = self.run / STAGING / HOLDS / str(task.step)
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        try:
            self._push_checkpoint(task)
        except FileNotFoundError:
            if task.path.exists():
                raise
            return False  # it made place for newer ones before it was held
        finally:
            hold.unlink(missing_ok=True)
        return True

    def _push_checkpoint(self, task: Task) -> None:
        manifest, text, remote = load(task.path)
        self._let_go_of_others(remote)
        self._begun = time.monotonic()
        try:
            for index, file in enumerate(manifest.files):
                pieces = pieces_of(manifest, index, self.options.part_size)
                self._upload(f"{remote.name}/{file.name}", task.path / file.name, pieces)
        except DamagedFileError:
            self._refused.add(remote.name)
            raise
        self.store.put(f"{remote.name}/{NAME}", text, crc32c(text), only_new=True)
        self._known.add(remote.name)
        self.latest = remote
        if self.options.keep:
            retain(self.store, remote, self.options)

    def _upload(self, name: str, path: Path, pieces: list[Piece]) -> None:
        FileUpload(self.store, self._uploads, name, path, pieces, self._nodes, self._token).run(self.traffic)

    def _push_file(self, task: Task) -> None:
        status = task.path.stat()
        self._upload(task.name, task.path, cut(status.st_size, self.options.part_size))
        self._looked[task.name] = time.monotonic()
        pushed = self._pushed()
        pushed.files[task.name] = (status.st_size, status.st_mtime_ns)
        write_record(self.run / STAGING / PUSHED, msgspec.to_builtins(pushed))

    def _pushed(self) -> Pushed:
        """Of another location nothing is known."""
        try:
            pushed = read_record(self.run / STAGING / PUSHED, Pushed)
        except BrokenRecordError:
            pushed = None
        url = self.store.location.url()
        return pushed if pushed and pushed.url == url else Pushed(url, {})

    def _let_go_of_others(self, remote: RemoteCheckpoint) -> None:
        """Uploads of older checkpoints, which an interruption left, are completed by nobody."""
        for place in self._uploads.glob("*.json"):
            record = read(place)
            if record and record.name.startswith(f"{FOLDER}/") and not record.name.startswith(f"{remote.name}/"):
                self.store.abort(record.name, record.upload)
                place.unlink(missing_ok=True)


def retain(store: Store, latest: RemoteCheckpoint, options: Options) -> None:
    """Delete checkpoints of the same run that a newer one makes superfluous, manifests first. Raises AwsError."""
    found = [one for one in checkpoints_in(store.list(f"{FOLDER}/{latest.run}/")) if one.committed]
    steps = {one.step for one in found}
    going = set(to_remove(list(steps), options.keep, options.keep_every, (), {latest.step}))
    twice = {one.name for one in found if one.step == latest.step and one.name != latest.name}
    for one in found:
        if one.step in going or one.name in twice:
            delete(store, one)


def delete(store: Store, checkpoint: RemoteCheckpoint) -> None:
    """Without a manifest it is none any more, for everybody at once. Raises AwsError."""
    store.delete([f"{checkpoint.name}/{NAME}"])
    store.delete(f"{checkpoint.name}/{name}" for name in checkpoint.sizes if name != NAME)


def run_of(checkpoints: Path) -> Path:
    """The folder of the run that a folder of checkpoints belongs to: where what is known of staging is kept."""
    return checkpoints.parent if checkpoints.name == FOLDER else checkpoints


def held(run: Path) -> set[int]:
    """Steps whose checkpoints are on their way to S3, and must stay until they are there. Raises HpcframeError."""
    folder = run / STAGING / HOLDS
    with explained(folder):
        return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()} if folder.is_dir() else set()


def is_gone(error: Exception) -> bool:
    """Whether a file was removed, or replaced, while it was looked at: the next look sees what is there."""
    return isinstance(error, FileNotFoundError) or (isinstance(error, HpcframeError) and "became shorter" in str(error))
