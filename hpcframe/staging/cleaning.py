"""What interrupted uploads leave in S3, where nobody sees it and it is paid for. No MPI."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from hpcframe.aws import AwsError
from hpcframe.staging.location import RemoteCheckpoint, StoredObject, checkpoints_in
from hpcframe.staging.store import Store, Unfinished

ABORTS = 3  # times: a part that was under way while an upload was aborted may be there afterwards


@dataclass(frozen=True)
class Leftovers:
    """What nobody will complete any more.

    Attributes:
        uploads: begun and not ended.
        checkpoints: files without a manifest.
    """

    uploads: list[Unfinished]
    checkpoints: list[RemoteCheckpoint]


def leftovers(store: Store, older_than: datetime.timedelta, beginning: str = "") -> Leftovers:
    """What was left at a location before a while; younger ones may be under way. Not collective. Raises AwsError.

    Args:
        beginning: of the names of all that is looked at.
    """
    limit = datetime.datetime.now(datetime.UTC) - older_than
    uploads = [upload for upload in store.unfinished(beginning) if upload.begun <= limit]
    objects = list(store.list(beginning))
    under_way = {upload.name.rpartition("/")[0] for upload in store.unfinished(beginning) if upload.begun > limit}
    checkpoints = [
        one
        for one in checkpoints_in(objects)
        if one.committed is None and one.name not in under_way and _latest(objects, one) <= limit
    ]
    return Leftovers(uploads, checkpoints)


def _latest(objects: list[StoredObject], checkpoint: RemoteCheckpoint) -> datetime.datetime:
    """When the last of its files came."""
    return max(each.modified for each in objects if each.name.startswith(f"{checkpoint.name}/"))


def remove(store: Store, found: Leftovers) -> None:
    """Let go of all that. Not collective. Raises AwsError; also where S3 keeps parts all the same."""
    for upload in found.uploads:
        for _ in range(ABORTS):
            store.abort(upload.name, upload.upload)
            if not store.parts(upload.name, upload.upload):
                break
        else:
            raise AwsError(f"S3 still has parts of {store.location.url(upload.name)}; run this again in a while")
    for checkpoint in found.checkpoints:
        store.delete(f"{checkpoint.name}/{name}" for name in checkpoint.sizes)
