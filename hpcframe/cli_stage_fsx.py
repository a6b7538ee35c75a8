"""`hpcframe stage export | import | release`: FSx for Lustre does the copying, where it is linked to S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcframe.errors import HpcframeError

if TYPE_CHECKING:
    from hpcframe.staging.repository import FileSystem, Kind

Where = Annotated[Path, typer.Argument(help="a file or folder on FSx for Lustre", show_default=False)]
Id = Annotated[str, typer.Option("--file-system", metavar="fs-...", help="by default the one that PATH is on")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="until the task has ended")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and stop")]


def export(path: Where, file_system: Id = "", wait: Wait = True, dry_run: DryRun = False) -> None:
    """Have FSx write what is new below a path to the S3 bucket that it is linked to."""
    fsx, mounted, relative, url = _linked(path, file_system)
    _task(fsx, "EXPORT_TO_REPOSITORY", mounted, str(relative).lstrip("/"), f"{path} to {url}", wait, dry_run)


def import_(path: Where, file_system: Id = "", wait: Wait = True, dry_run: DryRun = False) -> None:
    """Have FSx show below a path what is in the S3 bucket that it is linked to; data comes when it is read."""
    fsx, mounted, _, url = _linked(path, file_system)
    _task(fsx, "IMPORT_METADATA_FROM_REPOSITORY", mounted, url, f"{url} to {path}", wait, dry_run)


def release(path: Where, file_system: Id = "", dry_run: DryRun = False) -> None:
    """Give the room of files back whose data is proven to be in S3: it comes back when they are read."""
    from hpcframe.staging.archive import release as release_file
    from hpcframe.staging.comparing import differs
    from hpcframe.staging.repository import associations, covering

    fsx, mounted, _, _ = _linked(path, file_system)
    linked, left = associations(fsx, mounted), 0
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for file in files:
        relative = mounted.relative(file)
        url = covering(linked, relative, mounted).url_of(relative)
        why = "" if dry_run else release_file(file, url, differs)
        left += bool(why)
        print(f"{file}: {f'kept: {why}' if why else 'would be compared and released' if dry_run else 'released'}")
    if left:
        raise HpcframeError(f"{left} of {len(files)} file(s) were kept; `hpcframe stage export {path}`, then try again")


def _linked(path: Path, file_system: str) -> tuple[Any, FileSystem, Any, str]:
    """The client, the file system, the path as FSx names it, and where that is in S3."""
    from hpcframe.staging.aws import client
    from hpcframe.staging.repository import associations, covering, file_system_of

    fsx = client("fsx")
    mounted = file_system_of(fsx, path, file_system)
    relative = mounted.relative(path)
    return fsx, mounted, relative, covering(associations(fsx, mounted), relative, mounted).url_of(relative)


def _task(fsx: Any, kind: Kind, mounted: FileSystem, what: str, words: str, wait: bool, dry_run: bool) -> None:
    import secrets

    from hpcframe.staging import repository

    if dry_run:
        print(f"would begin a task of {mounted.id}: {words}")
        return
    task = repository.start(fsx, kind, mounted, [what], secrets.token_hex(16))
    look = f"aws fsx describe-data-repository-tasks --task-ids {task}"
    print(f"{task} of {mounted.id} has begun: {words}", flush=True)
    if not wait:
        print(f"it goes on in FSx: {look}")
        return
    try:
        with _shown() as show:
            ended = repository.wait(fsx, task, show)
    except KeyboardInterrupt:
        raise HpcframeError(f"{task} goes on in FSx, only this command has ended: {look}") from None
    print(f"done: {ended.done} of {ended.total} file(s)")


@contextmanager
def _shown() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("files", total=None)
        yield lambda now: progress.update(
            bar, description=now.state.lower(), total=now.total or None, completed=now.done
        )
