"""FSx for Lustre linked to S3: which file belongs to which object, and tasks that export and import. No MPI.

FSx may also export by itself, at some time and in any order: that a file was written says nothing of S3. A task that
has succeeded does, and a look at the object does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from hpcframe.errors import InputError
from hpcframe.lustre import MOUNTS, mount_of
from hpcframe.staging.aws import AwsError, RefusedError, explaining

Kind = Literal["EXPORT_TO_REPOSITORY", "IMPORT_METADATA_FROM_REPOSITORY"]
ID = re.compile(r"fs-[0-9a-f]{8,}")
PATHS_AT_MOST = 100  # of a task
LOOK_EVERY = 10.0  # s
AT_WORK = {"PENDING", "EXECUTING", "CANCELING"}
LINK = "link one: aws fsx create-data-repository-association --file-system-id {0} --file-system-path /data ..."


@dataclass(frozen=True)
class FileSystem:
    """An FSx file system, and the folder where it is mounted."""

    id: str
    folder: Path

    def relative(self, path: Path) -> PurePosixPath:
        """A path as FSx names it: from the root of the file system. Raises InputError where it is elsewhere."""
        try:
            return PurePosixPath("/", path.resolve().relative_to(self.folder))
        except ValueError:
            raise InputError(f"{path} is not on {self.id}, which is mounted at {self.folder}") from None


@dataclass(frozen=True)
class Association:
    """A folder of the file system that is linked to a prefix in S3."""

    folder: PurePosixPath
    url: str

    def url_of(self, path: PurePosixPath) -> str:
        """The object of a file below the folder."""
        return "/".join([self.url.rstrip("/"), *path.relative_to(self.folder).parts])


@dataclass(frozen=True)
class Progress:
    """How far a task is: files in all, done and failed, as far as FSx says."""

    state: str
    total: int
    done: int
    failed: int


def file_system_of(fsx: Any, path: Path, given: str = "", mounts: Path = MOUNTS) -> FileSystem:
    """The file system that a path is on. Not collective.

    Args:
        fsx: boto3's client.
        given: its id; "": found by the name under which it is mounted.
        mounts: the table of mounted file systems.

    Raises:
        InputError: it is no FSx for Lustre, or the account has none of that name.
        AwsError.
    """
    mount = mount_of(path, mounts)
    if mount is None or mount.kind != "lustre":
        raise InputError(f"{path} is not on FSx for Lustre; `hpcframe stage push` brings it to S3 from anywhere")
    named = ID.search(given or mount.source)
    if given and named is None:
        raise InputError(f"--file-system {given}: expected an id such as fs-0123456789abcdef0")
    if named:
        return FileSystem(named[0], mount.folder)
    name = mount.source.rpartition(":/")[2]
    with explaining("listing file systems"):
        pages = fsx.get_paginator("describe_file_systems").paginate()
        found = [each for page in pages for each in page["FileSystems"]]
    for each in found:
        if each.get("LustreConfiguration", {}).get("MountName") == name:
            return FileSystem(each["FileSystemId"], mount.folder)
    raise InputError(f"no file system of this account is mounted as {name}; give --file-system fs-...")


def associations(fsx: Any, file_system: FileSystem) -> list[Association]:
    """All that is linked to S3. Not collective. Raises AwsError."""
    found: list[dict[str, Any]] = []
    request: dict[str, Any] = {"Filters": [{"Name": "file-system-id", "Values": [file_system.id]}]}
    while True:
        with explaining(f"listing what of {file_system.id} is linked to S3"):
            page = fsx.describe_data_repository_associations(**request)
        found += page["Associations"]
        if not page.get("NextToken"):
            break
        request["NextToken"] = page["NextToken"]
    return [
        Association(PurePosixPath(each["FileSystemPath"]), each["DataRepositoryPath"])
        for each in found
        if each.get("DataRepositoryPath", "").startswith("s3://")
    ]


def covering(linked: Iterable[Association], path: PurePosixPath, file_system: FileSystem) -> Association:
    """The link that a path is below, the nearest one. Raises InputError where none is."""
    above = [each for each in linked if path.is_relative_to(each.folder)]
    if not above:
        raise InputError(f"nothing links {path} of {file_system.id} to S3; {LINK.format(file_system.id)}")
    return max(above, key=lambda each: len(each.folder.parts))


def start(fsx: Any, kind: Kind, file_system: FileSystem, paths: Sequence[str], token: str) -> str:
    """Begin a task; its id. Not collective.

    Args:
        paths: of an export from the root of the file system; of an import URLs in S3.
        token: of the request: the same one begins no second task.

    Raises:
        InputError: too many paths.
        RefusedError: another task is at work, or the file system is not there.
        AwsError.
    """
    if len(paths) > PATHS_AT_MOST:
        raise InputError(f"{len(paths)} paths; a task takes {PATHS_AT_MOST}, so give the folder that they are in")
    try:
        with explaining(f"beginning a task of {file_system.id}"):
            answer = fsx.create_data_repository_task(
                Type=kind, FileSystemId=file_system.id, Paths=list(paths), Report={"Enabled": False},
                ClientRequestToken=token,
            )  # fmt: skip
    except AwsError as error:
        if error.code != "DataRepositoryTaskExecuting":
            raise
        raise RefusedError(
            f"{file_system.id}: another task is at work; wait for it: "
            f"aws fsx describe-data-repository-tasks --filters Name=file-system-id,Values={file_system.id}",
            error.code,
        ) from error
    return str(answer["DataRepositoryTask"]["TaskId"])


def wait(
    fsx: Any,
    task: str,
    progress: Callable[[Progress], None],
    pause: Callable[[], None] = lambda: time.sleep(LOOK_EVERY),
) -> Progress:
    """Wait for the end of a task, which goes on in FSx whatever happens here. Not collective.

    Raises:
        AwsError: it failed, or some files did.
    """
    while True:
        with explaining(f"asking for {task}"):
            (found,) = fsx.describe_data_repository_tasks(TaskIds=[task])["DataRepositoryTasks"]
        told = found.get("Status", {})
        counts = (told.get(key, 0) for key in ("TotalCount", "SucceededCount", "FailedCount"))
        now = Progress(found["Lifecycle"], *counts)
        progress(now)
        if now.state not in AT_WORK:
            break
        pause()
    if now.state != "SUCCEEDED" or now.failed:
        why = found.get("FailureDetails", {}).get("Message", f"{now.failed} of {now.total} files")
        raise AwsError(
            f"{task} ended as {now.state}: {why}; see to it that FSx may read and write the bucket, and start it again"
        )
    return now
