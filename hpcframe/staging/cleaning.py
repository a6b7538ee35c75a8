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
        limit: what came after it may be under way.
    """

    uploads: list[Unfinished]
    checkpoints: list[RemoteCheckpoint]
    limit: datetime.datetime


def leftovers(store: Store, older_than: datetime.timedelta, beginning: str = "") -> Leftovers:
    """What was left at a location before a while; younger ones may be under way. Not collective. Raises AwsError.

    Args:
        beginning: of the names of all that is looked at.
    """
    return _left_before(store, datetime.datetime.now(datetime.UTC) - older_than, beginning)


def _left_before(store: Store, limit: datetime.datetime, beginning: str) -> Leftovers:
    """Uploads are listed first: one that is completed meanwhile is then seen as an object that just came."""
    unfinished = list(store.unfinished(beginning))
    uploads = [upload for upload in unfinished if _is_left(store, upload, limit)]
    under_way = {upload.name.rpartition("/")[0] for upload in unfinished if upload not in uploads}
    objects = list(store.list(beginning))
    checkpoints = [
        one
        for one in checkpoints_in(objects)
        if one.committed is None and one.name not in under_way and _latest(objects, one) <= limit
    ]
    return Leftovers(uploads, checkpoints, limit)


def _is_left(store: Store, upload: Unfinished, limit: datetime.datetime) -> bool:
    """Whether nothing of it came since. A slow one may have been begun long ago, and be under way."""
    if upload.begun > limit:
        return False
    parts = store.parts(upload.name, upload.upload)
    return parts is not None and all(part.arrived <= limit for part in parts.values())


def _latest(objects: list[StoredObject], checkpoint: RemoteCheckpoint) -> datetime.datetime:
    """When the last of its files came."""
    return max(each.modified for each in objects if each.name.startswith(f"{checkpoint.name}/"))


def remove(store: Store, found: Leftovers) -> Leftovers:
    """Let go of all that, but of what somebody went on with since it was found; what was let go of. Not collective.

    Raises:
        AwsError: also where S3 keeps parts all the same.
    """
    uploads = [upload for upload in found.uploads if _abort(store, upload, found.limit)]
    checkpoints = [checkpoint for checkpoint in found.checkpoints if _delete(store, checkpoint, found.limit)]
    return Leftovers(uploads, checkpoints, found.limit)


def _abort(store: Store, upload: Unfinished, limit: datetime.datetime) -> bool:
    """Whether it was still left."""
    if not _is_left(store, upload, limit):
        return False
    for _ in range(ABORTS):
        store.abort(upload.name, upload.upload)
        if not store.parts(upload.name, upload.upload):
            return True
    raise AwsError(f"S3 still has parts of {store.location.url(upload.name)}; run this again in a while")


def _delete(store: Store, checkpoint: RemoteCheckpoint, limit: datetime.datetime) -> bool:
    """Whether it was still left: a run that comes back may have completed it, or be about to."""
    still = _left_before(store, limit, f"{checkpoint.name}/").checkpoints
    for one in still:
        store.delete(f"{one.name}/{name}" for name in one.sizes)
    return bool(still)
