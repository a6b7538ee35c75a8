"""FSx for Lustre linked to S3: which file belongs to which object, and tasks that export and import. No MPI.

FSx may also export by itself, at some time and in any order: that a file was written says nothing of S3. A task that
has succeeded says that FSx copied it, and only reading the object says that it is there: see `archive` and `comparing`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from hpcframe.aws import AwsError, RefusedError, explaining
from hpcframe.errors import InputError
from hpcframe.lustre import MOUNTS, mount_of

Kind = Literal["EXPORT_TO_REPOSITORY", "IMPORT_METADATA_FROM_REPOSITORY"]
ID = re.compile(r"fs-[0-9a-f]{8,}")
PATHS_AT_MOST = 100  # of a task
LOOK_EVERY = 10.0  # s
LOOKS_IN_VAIN = 6  # one after another, each of several attempts; a short outage does not end hours of waiting
AT_WORK = {"PENDING", "EXECUTING", "CANCELING"}
ROOT = PurePosixPath("/")
LINKED = {"AVAILABLE", "UPDATING"}  # states of a link in which FSx copies
LOOK = "aws fsx describe-data-repository-tasks --task-ids {0}"
LINK = "link one: aws fsx create-data-repository-association --file-system-id {0} --file-system-path /data ..."


@dataclass(frozen=True)
class FileSystem:
    """An FSx file system.

    Attributes:
        folder: where it is mounted here.
        mounted: what of it is: "/", or a folder of it.
    """

    id: str
    folder: Path
    mounted: PurePosixPath = ROOT

    def relative(self, path: Path) -> PurePosixPath:
        """A path as FSx names it: from the root of the file system. Raises InputError where it is elsewhere."""
        try:
            return self.mounted / path.resolve().relative_to(self.folder)
        except ValueError:
            raise InputError(f"{path} is not on {self.id}, which is mounted at {self.folder}") from None


@dataclass(frozen=True)
class Association:
    """A folder of the file system that is linked to a prefix in S3.

    Attributes:
        state: as FSx calls it.
        why: what FSx says is wrong with it.
    """

    folder: PurePosixPath
    url: str
    state: str = "AVAILABLE"
    why: str = ""

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

    @property
    def in_words(self) -> str:
        return f"{self.state}, {self.done} of {self.total} file(s) done, {self.failed} failed"


def file_system_of(fsx: Any, path: Path, given: str = "", mounts: Path = MOUNTS) -> FileSystem:
    """The file system that a path is on. Not collective.

    Args:
        fsx: boto3's client.
        given: its id; "": found by the name from which it is mounted.
        mounts: the table of mounted file systems.

    Raises:
        InputError: it is no FSx for Lustre, or another one than `given`, or the account has none of that name.
        AwsError.
    """
    mount = mount_of(path, mounts)
    if mount is None or mount.kind != "lustre":
        raise InputError(f"{path} is not on FSx for Lustre; `hpcframe stage push` brings it to S3 from anywhere")
    server, _, place = mount.source.partition(":/")  # as in fs-0123456789abcdef0.fsx.us-east-2.amazonaws.com@tcp:/name
    name, _, below = place.partition("/")
    named = ID.match(server)
    if given and not ID.fullmatch(given):
        raise InputError(f"--file-system {given}: expected an id such as fs-0123456789abcdef0")
    if given and named and named[0] != given:
        raise InputError(f"{path} is on {named[0]}, not on {given}; leave --file-system out, or give a path on {given}")
    found = given or (named[0] if named else _id_of(fsx, name))
    return FileSystem(found, mount.folder, PurePosixPath("/", below))


def _id_of(fsx: Any, name: str) -> str:
    """The id of the file system that is mounted by a name."""
    with explaining("listing file systems"):
        pages = fsx.get_paginator("describe_file_systems").paginate()
        found = [each for page in pages for each in page["FileSystems"]]
    for each in found:
        if each.get("LustreConfiguration", {}).get("MountName") == name:
            return str(each["FileSystemId"])
    raise InputError(
        f"no file system of this account and region is mounted as {name}; set AWS_REGION, or give --file-system fs-..."
    )


def associations(fsx: Any, file_system: FileSystem) -> list[Association]:
    """All that is linked to S3. Not collective. Raises AwsError."""
    with explaining(f"listing what of {file_system.id} is linked to S3"):
        of_it = {"Name": "file-system-id", "Values": [file_system.id]}
        pages = _pages(fsx.describe_data_repository_associations, Filters=[of_it])
        found = [each for page in pages for each in page["Associations"]]
    return [
        Association(
            PurePosixPath(each["FileSystemPath"]),
            each["DataRepositoryPath"],
            each.get("Lifecycle", "AVAILABLE"),
            each.get("FailureDetails", {}).get("Message", ""),
        )
        for each in found
        if each.get("DataRepositoryPath", "").startswith("s3://")
    ]


def _pages(describe: Callable[..., Any], **what: Any) -> Iterator[Any]:
    """All answers, page by page: boto3 has no paginator for what concerns data repositories."""
    page = describe(**what)
    yield page
    while page.get("NextToken"):
        page = describe(**what, NextToken=page["NextToken"])
        yield page


def covering(linked: Sequence[Association], path: PurePosixPath, file_system: FileSystem) -> Association:
    """The link that a path is below, the nearest one. Not collective. Raises InputError where none is, or none that
    works."""
    above = [each for each in linked if path.is_relative_to(each.folder)]
    if not above:
        there = f" (linked are {', '.join(str(each.folder) for each in linked)})" if linked else ""
        raise InputError(f"nothing links {path} of {file_system.id} to S3{there}; {LINK.format(file_system.id)}")
    nearest = max(above, key=lambda each: len(each.folder.parts))
    if nearest.state not in LINKED:
        why = f"{nearest.state}: {nearest.why}" if nearest.why else nearest.state
        look = f"aws fsx describe-data-repository-associations --filters Name=file-system-id,Values={file_system.id}"
        raise InputError(
            f"the link of {nearest.folder} of {file_system.id} to {nearest.url} is {why}; "
            f"wait until it is AVAILABLE, or let FSx read and write the bucket; {look}"
        )
    return nearest


def start(fsx: Any, kind: Kind, file_system: FileSystem, paths: Sequence[str], token: str, report: str = "") -> str:
    """Begin a task; its id. Not collective.

    Args:
        paths: of an export from the root of the file system; of an import URLs in S3; none: all that is linked.
        token: of the request: the same one begins no second task.
        report: URL below a linked prefix, where FSx lists the files that it could not copy; "": it lists none.

    Raises:
        InputError: too many paths.
        RefusedError: another task is at work, or the file system is not there.
        AwsError.
    """
    if len(paths) > PATHS_AT_MOST:
        raise InputError(f"{len(paths)} paths; a task takes {PATHS_AT_MOST}, so give the folder that they are in")
    what = {"Paths": list(paths)} if paths else {}
    listing = {"Enabled": True, "Path": report, "Format": "REPORT_CSV_20191124", "Scope": "FAILED_FILES_ONLY"}
    try:
        with explaining(f"beginning a task of {file_system.id}"):
            answer = fsx.create_data_repository_task(
                Type=kind, FileSystemId=file_system.id, **what, Report=listing if report else {"Enabled": False},
                ClientRequestToken=token,
            )  # fmt: skip
    except AwsError as error:
        if error.code != "DataRepositoryTaskExecuting":
            raise
        told = f"FSx takes no further task for {file_system.id} now: {_at_work(fsx, file_system)}"
        raise RefusedError(told, error.code) from error
    return str(answer["DataRepositoryTask"]["TaskId"])


def _at_work(fsx: Any, file_system: FileSystem) -> str:
    """Which tasks are, and how to look at them."""
    filters = [
        {"Name": "file-system-id", "Values": [file_system.id]},
        {"Name": "task-lifecycle", "Values": ["PENDING", "EXECUTING"]},
    ]
    try:
        with explaining(f"listing tasks of {file_system.id}"):
            pages = _pages(fsx.describe_data_repository_tasks, Filters=filters)
            tasks = [each for page in pages for each in page["DataRepositoryTasks"]]
    except AwsError:  # who it is would be good to know; that somebody is matters
        tasks = []
    if not tasks:
        look = f"aws fsx describe-data-repository-tasks --filters Name=file-system-id,Values={file_system.id}"
        return f"another task is at work; wait for it: {look}"
    told = ", ".join(f"{each['TaskId']} ({each['Type']}, {_progress(each).in_words})" for each in tasks)
    return f"at work is {told}; wait for it: {LOOK.format(tasks[0]['TaskId'])}"


def _progress(task: Any) -> Progress:
    told = task.get("Status", {})
    return Progress(task["Lifecycle"], *(told.get(key, 0) for key in ("TotalCount", "SucceededCount", "FailedCount")))


def wait(
    fsx: Any,
    task: str,
    progress: Callable[[Progress], None],
    pause: Callable[[], None] = lambda: time.sleep(LOOK_EVERY),
) -> Progress:
    """Wait for the end of a task, which goes on in FSx whatever happens here. Not collective.

    Args:
        progress: is told after each look.
        pause: between looks.

    Raises:
        AwsError: the task failed or was canceled, or some files failed; or FSx cannot be asked any more.
    """
    while (now := _progress(found := _look(fsx, task, pause))).state in AT_WORK:
        progress(now)
        pause()
    progress(now)
    if now.state != "SUCCEEDED" or now.failed:
        raise AwsError(_failure(found, now))
    return now


def _look(fsx: Any, task: str, pause: Callable[[], None]) -> Any:
    """What FSx says of a task now; after a pause, where it could not be asked at once."""
    for attempt in range(LOOKS_IN_VAIN):
        try:
            with explaining(f"asking for {task}"):
                found = fsx.describe_data_repository_tasks(TaskIds=[task])["DataRepositoryTasks"]
            if not found:  # just begun, and not known everywhere yet
                raise AwsError(f"asking for {task}: FSx does not know it")
            return found[0]
        except AwsError as error:
            if isinstance(error, RefusedError) or attempt + 1 == LOOKS_IN_VAIN:
                raise type(error)(f"{error}; {task} goes on in FSx: {LOOK.format(task)}", error.code) from error
        pause()


def _failure(task: Any, ended: Progress) -> str:
    """What became of a task that did not do all, and what helps."""
    told = f"{task['TaskId']} ended as {ended.in_words}"
    if ended.state == "CANCELED":
        return f"{told}: somebody canceled it; start it again"
    why = task.get("FailureDetails", {}).get("Message", "FSx gives no reason")
    report = task.get("Report", {})
    listed = "--report s3://... has FSx list the files"
    if report.get("Path"):
        listed = f"{report['Path'].rstrip('/')}/{task['TaskId']}/failures.csv lists the files"
    return f"{told}: {why}; {listed}; see to it that FSx may read and write the bucket, and start it again"
