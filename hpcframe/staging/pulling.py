"""A checkpoint from S3 for a run, read by ranks of all nodes at the same time. Collective: this module uses MPI."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

from hpcframe.aws import RefusedError
from hpcframe.checkpoint.folder import discard
from hpcframe.checkpoint.manifest import BadCheckpointError, Manifest
from hpcframe.errors import NoCheckpointError
from hpcframe.grid.agreement import collectively
from hpcframe.grid.communicator import Communicator, connect
from hpcframe.staging.download import Download, note_to_come, output_in, pull_file
from hpcframe.staging.location import RemoteCheckpoint, StoredObject, candidates
from hpcframe.staging.remote import meant, read_manifest, to_read
from hpcframe.staging.store import ARCHIVED, Store
from hpcframe.staging.url import Location

READERS_A_NODE = 8  # ranks that read: a process gets about 1 GB/s through the interpreter
STREAMS = 4  # requests at a time, of each


def pull_newest(
    url: str,
    folder: Path,
    comm: MPI.Intracomm,
    progress: Callable[[], None],
    first: Callable[[], None] = lambda: None,
) -> tuple[Path | None, str]:
    """Bring the newest checkpoint that a URL means, and that is what was written, into a folder. Collective.

    Args:
        url: a location in S3, or one run or one checkpoint there.
        folder: on a file system that all ranks see.
        progress: called for each piece that arrives: for a watchdog.
        first: collective; called before a checkpoint comes into the folder, where there is one. What a run needs
            beside it must be there before: once there is a checkpoint, the next start asks S3 no more.

    Returns:
        Its new path, None where there is none; and a line on those that were passed over.

    Raises:
        NoCheckpointError: on every rank, where none of several is what was written.
        HpcframeError: on every rank, where S3 or the disk says no.
    """
    shared, location = connect(comm), Location.parse(url)
    found: list[RemoteCheckpoint] = []
    with collectively(comm, f"looking for checkpoints in {url}"):
        if comm.rank == 0:
            _, choice, there = meant(url)
            location, found = choice.location, candidates(there)
    location, found = comm.bcast((location, found))
    store = Store(location, streams=STREAMS)
    bad: list[str] = []
    if found:
        first()
    for remote in found:
        path, reason = _pull(store, remote, folder, shared, progress)
        if path:
            return path, "; ".join(bad)
        bad.append(f"{store.location.url(remote.name)}: {reason}")
    if bad:
        raise NoCheckpointError(f"no checkpoint in {url} is what was written: {'; '.join(bad)}")
    return None, ""


def pull_output(url: str, run: Path, comm: MPI.Intracomm, progress: Callable[[], None]) -> None:
    """Bring the output at a location into the folder of a run that goes on from there, but what is there. Collective.

    Otherwise the run's own series and diagnostics, which begin where it does, would take the place of those in S3. What
    was archived there cannot be read at once, and is left out: no run waits for that.

    Raises:
        HpcframeError: on every rank, where S3 or the disk says no.
    """
    shared, store = connect(comm), Store(Location.parse(url), streams=STREAMS)
    found: list[StoredObject] = []
    with collectively(comm, f"looking for output in {url}"):
        if comm.rank == 0:
            found = [each for each in output_in(store) if not (run / each.name).exists()]
            note_to_come(store, run, found)
    found = comm.bcast(found)
    share, archived = _share(shared), 0
    with collectively(comm, f"reading the output in {url}"):
        for each in found[share]:
            archived += not _pull_unless_archived(store, each, run)
            progress()
    archived = comm.allreduce(archived)
    if archived and comm.rank == 0:
        print(
            f"hpcframe: {archived} file(s) of the output in {url} are archived there, and stay there: `aws s3api "
            f"restore-object` makes them readable, `hpcframe stage pull --output` then brings them",
            file=sys.stderr,
            flush=True,
        )


def _pull_unless_archived(store: Store, each: StoredObject, run: Path) -> bool:
    try:
        pull_file(store, each, run, STREAMS)
    except RefusedError as error:
        if error.code != ARCHIVED:
            raise
        return False
    return True


def _pull(
    store: Store, remote: RemoteCheckpoint, folder: Path, shared: Communicator, progress: Callable[[], None]
) -> tuple[Path | None, str]:
    """The path, or why the checkpoint is bad. Collective."""
    comm = shared.comm
    manifest, text, reason = _manifest(store, remote, comm)
    if manifest is None:
        return None, reason
    download = Download(folder, remote, manifest, comm.bcast(secrets.token_hex(4)))
    with collectively(comm, f"making {download.final}"):
        if comm.rank == 0:
            download.begin()
    reason = ""
    with collectively(comm, f"reading {store.location.url(remote.name)}"):
        mine = to_read(manifest)[_share(shared)]
        try:
            if mine:
                download.fetch(store, mine, STREAMS, lambda _: progress())
        except BadCheckpointError as error:
            reason = str(error)
    reason = next(filter(None, comm.allgather(reason)), "")
    with collectively(comm, f"completing {download.final}"):
        if comm.rank == 0:
            discard(download.partial) if reason else download.publish(text)
    return (None, reason) if reason else (download.final, "")


def _manifest(store: Store, remote: RemoteCheckpoint, comm: MPI.Intracomm) -> tuple[Manifest | None, str, str]:
    found: tuple[Manifest | None, str, str] = (None, "", "")
    with collectively(comm, f"reading the manifest of {store.location.url(remote.name)}"):
        if comm.rank == 0:
            try:
                found = (*read_manifest(store, remote), "")
            except BadCheckpointError as error:
                found = (None, "", str(error))
    return comm.bcast(found)


def _share(shared: Communicator) -> slice:
    """Which of the pieces this rank reads: every so many from its number among the readers; none where it is none."""
    reads = shared.node.rank < READERS_A_NODE
    readers = [rank for rank, reader in enumerate(shared.comm.allgather(reads)) if reader]
    return slice(readers.index(shared.comm.rank), None, len(readers)) if reads else slice(0, 0)
