"""What of a run is to be in S3 and is not yet, and how it gets there. No MPI."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hpcframe.aws import RefusedError
from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.folder import steps_in
from hpcframe.checkpoint.manifest import NAME, Extent, Manifest
from hpcframe.checkpoint.retention import to_remove
from hpcframe.checkpoint.verify import extents_of
from hpcframe.errors import HpcframeError
from hpcframe.staging.holds import Holds
from hpcframe.staging.local import Local, LocalCheckpoints, LocalOutput, Task, load, version_of
from hpcframe.staging.location import FOLDER, RemoteCheckpoint, checkpoints_in
from hpcframe.staging.options import Options
from hpcframe.staging.pieces import Piece, cut, cut_at_extents
from hpcframe.staging.pushed import read_pushed, write_pushed
from hpcframe.staging.state import FOLDER as STAGING
from hpcframe.staging.store import Store
from hpcframe.staging.upload import UPLOADS, DamagedFileError, FileUpload, Traffic, read

PROBE = f"{FOLDER}/probe"  # an object that is no checkpoint's and no output


def pieces_of(manifest: Manifest, index: int, size: int) -> list[Piece]:
    """The pieces (of about `size` bytes) of a file of a checkpoint, with the checksums of its manifest."""
    extents: list[Extent] = [extent for _, extent in extents_of(manifest) if extent.file == index]
    return cut_at_extents(manifest.files[index].length, extents, size)


class Pusher:
    """Brings the checkpoints and the output of one run to S3.

    A checkpoint is complete in S3 once the output of all steps up to it is there: a run that goes on from it elsewhere
    does not write that again.

    Attributes:
        run: its folder.
        checkpoints: the folder of its checkpoints.
        latest: the checkpoint that was completed in S3 last.
        pushed, files: how many checkpoints it completed, and files of the output.
        deferred: what the last look found, and left for later.
        begins: called with what is pushed from now on.
    """

    def __init__(
        self, checkpoints: Path, options: Options, store: Store, traffic: Traffic, nodes: int = 1, token: str = ""
    ) -> None:
        """Not collective; nothing is asked of S3 yet."""
        self.checkpoints, self.run = checkpoints, run_of(checkpoints)
        self.options, self.store, self.traffic = options, store, traffic
        self.latest: RemoteCheckpoint | None = None
        self.pushed = self.files = 0
        self.deferred: list[str] = []
        self.begins: Callable[[Task], None] = lambda _: None
        self._nodes, self._token = nodes, token
        self._uploads = self.run / STAGING / UPLOADS
        self._holds = Holds(self.run, token)
        self._local, self._output = LocalCheckpoints(checkpoints), LocalOutput(self.run)
        self._known: set[str] = set()  # names of complete checkpoints in S3
        self._partly: set[str] = set()  # of those that have files there, but no manifest
        self._begun = 0.0  # when the push of the latest that was completed was
        self._output_is_next = False

    def begin(self) -> None:
        """See what S3 has. Raises AwsError; OSError where the folder of the run cannot be written to."""
        self._uploads.mkdir(parents=True, exist_ok=True)
        found = checkpoints_in(self.store.list(f"{FOLDER}/"))
        self._known = {one.name for one in found if one.committed}
        self._partly = {one.name for one in found if not one.committed}
        begun = self._begun_ones() if "checkpoints" in self.options.push else set()
        self._holds.begin(next((one.step for one in self._missing() if one.name in begun), None))
        here = steps_in(self.checkpoints)
        self._remember([one for one in reversed(found) if one.committed and one.step in here], anew=True)

    def probe(self) -> None:
        """Do all that pushing takes once, as the options say, lest a permission be found missing after an hour.

        Raises RefusedError, AwsError.
        """
        self.store.put(PROBE, b"probe", crc32c(b"probe"))
        self.store.head(PROBE)
        upload = self.store.begin(PROBE)
        self.store.parts(PROBE, upload)
        self.store.abort(PROBE, upload)
        try:
            self.store.delete([PROBE])
        except RefusedError:
            if self.options.keep:  # else nothing is ever deleted, and this one is written over
                raise

    def release(self) -> None:
        """Nothing more is pushed. Raises OSError."""
        self._holds.release()

    # -- what there is to do ------------------------------------------------------------------------------------

    def pending(self, finishing: bool) -> list[Task]:
        """What is not in S3 yet, in the order in which it is best pushed. Raises OSError.

        A checkpoint that is partly there comes before newer ones, as otherwise none might ever be completed; else the
        newest: older ones are not worth the time. Checkpoints and output take turns.

        Args:
            finishing: all of it, now: nothing more comes.
        """
        self.deferred = []
        checkpoint = self._next(finishing) if "checkpoints" in self.options.push else None
        files = self._changed(finishing) if "output" in self.options.push else []
        if checkpoint is None:
            return files
        first: list[Task] = files if self._output_is_next else []
        if finishing:
            step = checkpoint.step
            first = [each for each in files if each.precedes(step) and not self._output.is_failing(each.name)]
        task = Task(checkpoint.path.name, checkpoint.path, checkpoint.size, checkpoint.step)
        done = {each.name for each in first}
        return [*first, task, *(each for each in files if each.name not in done)]

    def refused(self) -> list[str]:
        """Why something that is newer than all in S3 is not pushed, although it is there. Raises OSError."""
        checkpoints, output = "checkpoints" in self.options.push, "output" in self.options.push
        found = [one.refused for one in self._missing() if one.refused] if checkpoints else []
        return found + (self._output.refused() if output else [])

    def _missing(self) -> list[Local]:
        return self._local.newer_than(self._known)

    def _next(self, finishing: bool) -> Local | None:
        usable = [one for one in self._missing() if not one.refused]
        begun = self._begun_ones()
        for one in usable:
            if one.name in begun:
                return one
        early = bool(self._begun) and time.monotonic() - self._begun < self.options.every_seconds
        if usable and early and not finishing:
            self.deferred.append(usable[0].path.name)
            return None
        return usable[0] if usable else None

    def _begun_ones(self) -> set[str]:
        """Names of checkpoints that are partly in S3."""
        records = filter(None, map(read, self._uploads.glob("*.json")))
        return self._partly | {record.name.rpartition("/")[0] for record in records}

    def _changed(self, finishing: bool) -> list[Task]:
        tasks = self._output.changed(read_pushed(self.run, self._url).files)
        early = [] if finishing else [task for task in tasks if self._output.is_early(task.name)]
        self.deferred += [task.name for task in early]
        return [task for task in tasks if task not in early]

    # -- doing it -----------------------------------------------------------------------------------------------

    def push(self, task: Task) -> bool:
        """Whether it is in S3 now; False where it is gone meanwhile. Not collective.

        A checkpoint stays on the disk until it is there, also while pushing it fails, or `release` is called.

        Raises:
            StoppedError: asked to stop.
            DamagedFileError: it is not what was written; it is not tried again.
            AwsError, OSError: what was sent is not sent again.
        """
        self._output_is_next = task.step is not None
        self.begins(task)
        if task.step is None:
            self._push_file(task)
            return True
        self._holds.take(task.step)
        try:
            remote = self._push_checkpoint(task, task.step)
        except FileNotFoundError as error:
            if not (task.path / NAME).exists():
                self._holds.release()
                return False  # it made place for newer ones before it was held
            self._refuse_incomplete(task, error)
            raise
        except DamagedFileError as error:
            self._refuse(task, str(error))
            raise
        self._holds.release()
        if self.options.keep:
            retain(self.store, remote, self.options)
        return True

    def _push_checkpoint(self, task: Task, step: int) -> RemoteCheckpoint:
        manifest, text, remote = load(task.path)
        self._let_go_of_others(remote)
        begun = time.monotonic()
        for index, file in enumerate(manifest.files):
            pieces = pieces_of(manifest, index, self.options.part_size)
            self._upload(f"{remote.name}/{file.name}", task.path / file.name, pieces)
            self._partly.add(remote.name)
        self._push_output_before(step)
        self.store.put(f"{remote.name}/{NAME}", text, crc32c(text), only_new=True)
        self._known.add(remote.name)
        self._partly.discard(remote.name)
        self._begun, self.latest, self.pushed = begun, remote, self.pushed + 1
        self._remember([remote])
        return remote

    def _refuse(self, task: Task, reason: str) -> None:
        self._local.refuse(task.path, reason)
        self._holds.release()

    def _refuse_incomplete(self, task: Task, error: FileNotFoundError) -> None:
        """Raises DamagedFileError where a file of the checkpoint is not there."""
        manifest, _, _ = load(task.path)
        missing = [file.name for file in manifest.files if not (task.path / file.name).exists()]
        if missing:
            reason = f"{task.path}: {', '.join(missing)} is not there, so it was not sent"
            self._refuse(task, reason)
            raise DamagedFileError(reason) from error

    def _upload(self, name: str, path: Path, pieces: list[Piece]) -> None:
        FileUpload(self.store, self._uploads, name, path, pieces, self._nodes, self._token).run(self.traffic)

    def _push_output_before(self, step: int) -> None:
        """What cannot be read does not cost the checkpoint: that it is missing is said, as it is tried again alone."""
        files = self._output.changed(read_pushed(self.run, self._url).files) if "output" in self.options.push else []
        for each in files:
            if each.precedes(step):
                self.begins(each)
                try:
                    self._push_file(each)
                except (HpcframeError, OSError) as error:
                    if not isinstance(error, DamagedFileError | OSError) and not is_gone(error):
                        raise

    def _push_file(self, task: Task) -> None:
        """Unless it went before a checkpoint meanwhile."""
        version = version_of(task.path)
        if version is None or read_pushed(self.run, self._url).files.get(task.name) == version:
            return
        try:
            self._upload(task.name, task.path, cut(version[0], self.options.part_size))
        except DamagedFileError as error:
            self._output.refuse(task.name, version, str(error))
            raise
        except OSError:
            self._output.failed(task.name)
            raise
        self._output.pushed(task.name)
        self.files += 1
        pushed = read_pushed(self.run, self._url)
        pushed.files[task.name] = version
        write_pushed(self.run, pushed)

    @property
    def _url(self) -> str:
        return self.store.location.url()

    def _remember(self, checkpoints: list[RemoteCheckpoint], anew: bool = False) -> None:
        """They are complete in S3: for those who wait. Raises OSError."""
        pushed = read_pushed(self.run, self._url)
        if anew:
            pushed.checkpoints.clear()
        for one in checkpoints:
            pushed.add(one.name, one.step)
        write_pushed(self.run, pushed)

    def _let_go_of_others(self, remote: RemoteCheckpoint) -> None:
        """What is left of the upload of a checkpoint that is damaged, or gone from the disk, is completed by nobody."""
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


def is_gone(error: Exception) -> bool:
    """Whether a file was removed, or replaced, while it was looked at: the next look sees what is there."""
    return isinstance(error, FileNotFoundError) or (isinstance(error, HpcframeError) and "became shorter" in str(error))
