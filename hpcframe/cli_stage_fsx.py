"""`hpcframe stage export | import | release`: FSx for Lustre does the copying, where it is linked to S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcframe.errors import HpcframeError, InputError

if TYPE_CHECKING:
    from hpcframe.staging.repository import Association, FileSystem, Kind

Where = Annotated[Path, typer.Argument(help="a file or folder on FSx for Lustre", show_default=False)]
Id = Annotated[str, typer.Option("--file-system", metavar="fs-...", help="by default the one that PATH is on")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="until the task has ended")]
Report = Annotated[str, typer.Option(metavar="s3://...", help="where FSx lists files that failed, below the link")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and stop")]


def export(path: Where, file_system: Id = "", wait: Wait = True, report: Report = "", dry_run: DryRun = False) -> None:
    """Have FSx write what is new below a path to the S3 bucket that it is linked to."""
    _check_exists(path)
    linked = _linked(path, file_system)
    inside = [str(linked.relative).lstrip("/")] if linked.relative.name else []  # no paths: all
    _task(linked, "EXPORT_TO_REPOSITORY", inside, f"{path} to {linked.url}", wait, report, dry_run)


def import_(path: Where, file_system: Id = "", wait: Wait = True, report: Report = "", dry_run: DryRun = False) -> None:
    """Have FSx show below a path what is in the S3 bucket that it is linked to; data comes when it is read."""
    linked = _linked(path, file_system)
    _task(linked, "IMPORT_METADATA_FROM_REPOSITORY", [linked.url], f"{linked.url} to {path}", wait, report, dry_run)


def release(path: Where, file_system: Id = "", dry_run: DryRun = False) -> None:
    """Give the room of files back whose data is proven to be in S3: it comes back when they are read."""
    _check_exists(path)
    linked = _linked(path, file_system)
    files, left = _files(path), 0
    for file in files:
        told, stays = _release(file, linked.url_of(file), dry_run)
        left += stays
        print(f"{file}: {told}", flush=True)
    if left and not dry_run:
        raise HpcframeError(f"{left} of {len(files)} file(s) were kept; `hpcframe stage export {path}`, then try again")


def _release(file: Path, url: str, dry_run: bool) -> tuple[str, bool]:
    """What was done with a file, or would be; and whether its data stays. An error of one is none of the others."""
    try:
        return _would_release(file, url) if dry_run else _do_release(file, url)
    except (HpcframeError, OSError) as error:
        return f"kept: {str(error).removeprefix(f'{file}: ')}", True


def _would_release(file: Path, url: str) -> tuple[str, bool]:
    from hpcframe.staging.archive import state_of

    state = state_of(file)
    if state.released:
        return "is released", False
    why = state.refusal
    return (f"would be kept: {why}" if why else f"would be compared with {url}, and released"), bool(why)


def _do_release(file: Path, url: str) -> tuple[str, bool]:
    from hpcframe.staging.archive import release as release_file
    from hpcframe.staging.comparing import differs

    why = release_file(file, url, differs)
    return (f"kept: {why}" if why else "released"), bool(why)


def _files(path: Path) -> list[Path]:
    """The files of a folder, and no links. Manifests come last: files are compared with them."""
    from hpcframe.checkpoint.manifest import NAME

    found = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
    return sorted(found, key=lambda each: (each.name == NAME, each))


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} is not there; give a file or folder on FSx for Lustre")


@dataclass(frozen=True)
class _Linked:
    """A path on a file system, as FSx names it, and where that is in S3."""

    fsx: Any
    mounted: FileSystem
    associations: list[Association]
    relative: PurePosixPath
    url: str

    def url_of(self, file: Path) -> str:
        from hpcframe.staging.repository import covering

        relative = self.mounted.relative(file)
        return covering(self.associations, relative, self.mounted).url_of(relative)


def _linked(path: Path, file_system: str) -> _Linked:
    from hpcframe.aws import client
    from hpcframe.staging.repository import associations, covering, file_system_of

    fsx = client("fsx")
    mounted = file_system_of(fsx, path, file_system)
    found, relative = associations(fsx, mounted), mounted.relative(path)
    return _Linked(fsx, mounted, found, relative, covering(found, relative, mounted).url_of(relative))


def _task(linked: _Linked, kind: Kind, paths: list[str], words: str, wait: bool, report: str, dry_run: bool) -> None:
    import secrets

    from hpcframe.staging import repository

    if dry_run:
        print(f"would begin a task of {linked.mounted.id}: {words}")
        return
    task = repository.start(linked.fsx, kind, linked.mounted, paths, secrets.token_hex(16), report)
    print(f"{task} of {linked.mounted.id} has begun: {words}", flush=True)
    look = repository.LOOK.format(task)
    if not wait:
        print(f"it goes on in FSx: {look}")
        return
    try:
        with shown() as show:
            ended = repository.wait(linked.fsx, task, show)
    except KeyboardInterrupt:
        raise HpcframeError(f"{task} goes on in FSx, only this command has ended: {look}") from None
    print(f"done: {ended.done} of {ended.total} file(s)")


@contextmanager
def shown() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("files", total=None)
        yield lambda now: progress.update(
            bar, description=now.state.lower(), total=now.total or None, completed=now.done + now.failed
        )
