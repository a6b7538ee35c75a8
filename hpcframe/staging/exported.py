"""Before a cluster is deleted: what is on its file systems goes to S3 by FSx, and is proven to be there. No MPI."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcframe.aws import explaining
from hpcframe.checkpoint.manifest import NAME
from hpcframe.errors import HpcframeError
from hpcframe.staging import repository
from hpcframe.staging.location import RemoteCheckpoint, StoredObject
from hpcframe.staging.remote import faults
from hpcframe.staging.repository import Association, FileSystem, Progress
from hpcframe.staging.store import Store
from hpcframe.staging.url import Location

STEP = re.compile(r"(?:^|/)step-(\d+)$")


@dataclass(frozen=True)
class ExportedCheckpoint(RemoteCheckpoint):
    """A checkpoint as FSx copied its folder: the names are those of the file system.

    Attributes:
        folder: below the location.
    """

    folder: str = ""

    @property
    def name(self) -> str:
        return self.folder


@dataclass(frozen=True)
class Linked:
    """A file system of the cluster.

    Attributes:
        gib: its size.
        links: to S3.
    """

    id: str
    gib: int
    links: tuple[Association, ...]


def linked(fsx: Any, file_systems: Iterable[Mapping[str, Any]]) -> list[Linked]:
    """File systems and what of them is linked to S3. Not collective. Raises AwsError."""
    return [
        Linked(
            each["FileSystemId"],
            each.get("StorageCapacity", 0),
            tuple(repository.associations(fsx, _whole(each["FileSystemId"]))),
        )
        for each in file_systems
    ]


def _whole(file_system: str) -> FileSystem:
    """Where it is mounted does not matter here."""
    return FileSystem(file_system, Path("/"))


def export(fsx: Any, found: Linked, progress: Callable[[Progress], None]) -> int:
    """Have FSx copy what is new to S3, and wait; how many files it copied. Not collective.

    Raises:
        AwsError: also where one file failed.
    """
    folders = [str(link.folder).lstrip("/") for link in found.links]
    paths = [] if "" in folders else folders  # no paths: all
    task = repository.start(fsx, "EXPORT_TO_REPOSITORY", _whole(found.id), paths, uuid.uuid4().hex)
    return repository.wait(fsx, task, progress).done


def exported(objects: Iterable[StoredObject]) -> list[ExportedCheckpoint]:
    """The checkpoints among objects that FSx copied. Pure."""
    folders: dict[str, dict[str, StoredObject]] = {}
    for each in objects:
        folder, _, name = each.name.rpartition("/")
        if STEP.search(folder):
            folders.setdefault(folder, {})[name] = each
    return [
        ExportedCheckpoint(
            folder,
            int(STEP.search(folder)[1]),  # type: ignore[index] # it was found above
            "",
            {name: one.size for name, one in files.items()},
            files[NAME].modified,
            folder,
        )
        for folder, files in sorted(folders.items())
        if NAME in files
    ]


def proven(link: Association, streams: int, progress: Callable[[int], None]) -> Iterator[tuple[str, str]]:
    """URL of each checkpoint below a link, and "" or what is wrong with it: all of it is read. Not collective. Raises
    AwsError."""
    store = Store(Location.parse(link.url), streams=streams)
    for one in exported(store.list()):
        yield store.location.url(one.name), faults(store, one, streams, progress)


def delete_file_system(fsx: Any, file_system: str) -> None:
    """Begin to delete it. Not collective. Raises AwsError."""
    with explaining(f"deleting {file_system}"):
        fsx.delete_file_system(FileSystemId=file_system, LustreConfiguration={"SkipFinalBackup": True})


def refusal(found: Linked, retained: bool) -> str:
    """ "" or why the cluster must not be deleted yet. Pure.

    Args:
        retained: the file system outlives the cluster.
    """
    wrong = [link for link in found.links if link.state not in repository.LINKED]
    if wrong:
        told = ", ".join(f"{link.folder} is {link.state} {link.why}".rstrip() for link in wrong)
        return f"{found.id}: {told}; what is there cannot be exported"
    if retained or any(link.folder == repository.ROOT for link in found.links):
        return ""
    which = "only in part" if found.links else "not"
    return (
        f"{found.id} is {which} linked to S3, and would be deleted with the cluster; set its DeletionPolicy to Retain "
        f"(hpcframe cluster update), or link it: aws fsx create-data-repository-association --file-system-id {found.id}"
    )


def bytes_there(links: Iterable[Association]) -> int:
    """Of the checkpoints that are in S3 already, all of which will be read. Not collective. Raises AwsError."""
    return sum(one.bytes for link in links for one in exported(Store(Location.parse(link.url)).list()))


def check_proven(bad: Iterable[tuple[str, str]]) -> None:
    """Raises HpcframeError where something is wrong with a checkpoint in S3."""
    told = [f"{url}: {wrong}" for url, wrong in bad if wrong]
    if told:
        raise HpcframeError(
            f"the cluster stays: {len(told)} checkpoint(s) in S3 are not what was written: {'; '.join(told[:3])}; "
            f"copy them from the cluster (hpcframe stage push), or, if nobody needs them, remove them there "
            f"(aws s3 rm --recursive URL), then run this again"
        )
