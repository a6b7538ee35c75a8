"""`hpcframe stage`: checkpoints and output between a file system and S3, on any machine, without MPI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcframe import cli_stage_fsx
from hpcframe.cli_progress import bar_of_bytes
from hpcframe.errors import HpcframeError, InputError

if TYPE_CHECKING:
    from hpcframe.staging.local import Task
    from hpcframe.staging.location import StoredObject
    from hpcframe.staging.pushing import Pusher
    from hpcframe.staging.state import State
    from hpcframe.staging.store import Store

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Checkpoints and output between this file system and S3: on any machine, without MPI.",
)  # fmt: skip

app.command()(cli_stage_fsx.export)
app.command("import")(cli_stage_fsx.import_)
app.command()(cli_stage_fsx.release)

Folder = Annotated[Path, typer.Argument(help="a run's folder, or its folder `checkpoints`", show_default=False)]
Url = Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", show_default=False)]
Streams = Annotated[int, typer.Option(min=1, max=256, help="requests at a time")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and stop")]

POLL = 0.5  # s


@app.command()
def push(
    folder: Folder,
    url: Annotated[str, typer.Argument(metavar="[s3://BUCKET/PREFIX]", help="where to; without: as its run said")] = "",
    streams: Annotated[int, typer.Option(min=0, max=256, help="requests at a time; 0: as its run said, or 16")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Push what is not in S3 yet: the newest checkpoint, and the output. What was sent is not sent again."""
    from hpcframe.checkpoint.description import readable_bytes
    from hpcframe.checkpoint.inspection import folder_of
    from hpcframe.staging.options import chosen_options
    from hpcframe.staging.pushing import Pusher, run_of
    from hpcframe.staging.store import Store
    from hpcframe.staging.upload import Traffic

    checkpoints = folder_of(folder)
    options, location = chosen_options(run_of(checkpoints), url, streams)
    traffic = Traffic(options.streams, options.bandwidth)
    pusher = Pusher(checkpoints, options, Store(location, options), traffic)
    pusher.begin()
    try:
        tasks = pusher.pending(finishing=True)
        for task in tasks if dry_run else ():
            print(f"would push {task.name}, {readable_bytes(task.size)}")
        while tasks and not dry_run:
            damaged = [task for task in tasks if not _push(pusher, task)]
            tasks = pusher.pending(finishing=True) if damaged else []  # instead of them, what is next best
        left = pusher.refused()
    finally:
        pusher.release()
    if left:
        raise HpcframeError("; ".join(left))
    if not pusher.pushed and not pusher.files and not dry_run:
        print(f"all is in {location.url()}")


def _push(pusher: Pusher, task: Task) -> bool:
    """Show the progress of it, and what came of it; False where it is damaged."""
    from hpcframe.checkpoint.description import readable_bytes
    from hpcframe.staging.upload import DamagedFileError

    try:
        with bar_of_bytes(task.size, task.name) as pusher.traffic.progress:
            pushed = pusher.push(task)
    except DamagedFileError:
        return False  # what is wrong is said in the end
    what = f"pushed {task.name}, {readable_bytes(task.size)}"
    print(what if pushed else f"{task.name} is gone: a run that goes on has removed it", flush=True)
    return True


@app.command()
def pull(
    url: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="or one checkpoint there")],
    folder: Annotated[Path, typer.Argument(help="a run's folder, made if missing", show_default=False)],
    output: Annotated[bool, typer.Option("--output", help="the output, too")] = False,
    streams: Streams = 16,
    dry_run: DryRun = False,
) -> None:
    """Bring the newest checkpoint that is what was written from S3 into a run's folder, to go on from."""
    from hpcframe.checkpoint.description import readable_bytes
    from hpcframe.checkpoint.manifest import BadCheckpointError
    from hpcframe.staging import download
    from hpcframe.staging.location import FOLDER
    from hpcframe.staging.remote import chosen

    store, found = chosen(url)
    bad = []
    for remote in found:
        size = readable_bytes(remote.bytes)
        if dry_run:
            print(f"would pull {remote.name}, {size}")
            break
        try:
            with bar_of_bytes(remote.bytes, f"step {remote.step}") as advance:
                path = download.pull(store, remote, folder / FOLDER, streams, advance)
        except BadCheckpointError as error:
            bad.append(f"{remote.name}: {error}")
            continue
        print(f"pulled {path}, {size}", flush=True)
        break
    else:
        raise HpcframeError(f"no checkpoint in {url} is what was written: {'; '.join(bad)}")
    if output:
        _pull_output(store, folder, streams, dry_run)


def _pull_output(store: Store, folder: Path, streams: int, dry_run: bool) -> None:
    """What is there stays. Raises InputError in the end where not all is there that S3 has."""
    from hpcframe.staging.download import output_in

    found, left = output_in(store), 0
    for each in found:
        told, stays = _pull_file(store, each, folder, streams, dry_run)
        left += stays
        print(told, flush=True)
    if left and not dry_run:
        raise InputError(f"{left} of {len(found)} file(s) of the output were not pulled: see above; then pull again")


def _pull_file(store: Store, each: StoredObject, folder: Path, streams: int, dry_run: bool) -> tuple[str, bool]:
    """What was done with a file, or would be; and whether it is still not here."""
    from hpcframe.aws import AwsError
    from hpcframe.checkpoint.description import readable_bytes
    from hpcframe.staging import download
    from hpcframe.staging.store import ARCHIVED

    path = folder / each.name
    if path.exists():
        return _keep_file(store, each, folder, dry_run)
    if not dry_run:
        download.note_to_come(store, folder, [each])
        try:
            download.pull_file(store, each, folder, streams)
        except AwsError as error:
            if error.code != ARCHIVED:
                raise
            return f"did not pull {path}: {error}", True
    return f"{'would pull' if dry_run else 'pulled'} {path}, {readable_bytes(each.size)}", False


def _keep_file(store: Store, each: StoredObject, folder: Path, dry_run: bool) -> tuple[str, bool]:
    """Of a file that is here already: whether it is the one in S3, and so need not be pushed again."""
    from hpcframe.staging import download

    path, url = folder / each.name, store.location.url(each.name)
    version, same = download.version_of(path), download.holds(store, each.name, path)
    if same is False:
        return f"kept {path}, which is not {url}: move it away to have that", True
    if same and not dry_run:
        download.note(store, folder, {each.name: version})
    return f"kept {path}, which is {url}" + ("" if same else ", by its size"), False


@app.command("ls")
def list_(url: Url) -> None:
    """List the checkpoints in S3, the newest of each run first, and what interrupted uploads left."""
    from hpcframe.staging.description import table
    from hpcframe.staging.remote import meant

    store, choice, found = meant(url)
    print(table(found) if found else f"{url} holds no checkpoints")
    unfinished = list(store.unfinished(choice.beginning))
    if unfinished:
        print(f"unfinished uploads: {len(unfinished)}; `hpcframe stage gc {url}` lets go of old ones")


@app.command()
def verify(
    url: Url,
    quick: Annotated[
        bool, typer.Option("--quick", help="compare S3's own checksums of files, without reading")
    ] = False,
    streams: Streams = 16,
) -> None:
    """Read all checkpoints in S3, and compare them with their checksums. Exit code 1 if any is bad."""
    from hpcframe.staging.remote import faults, faults_by_sums, meant

    store, _, there = meant(url, streams)
    found = [one for one in there if one.committed]
    if not found:
        raise InputError(f"{url}: no complete checkpoint is there; `hpcframe stage ls` shows what is")
    bad = 0
    with bar_of_bytes(0 if quick else sum(remote.bytes for remote in found)) as advance:
        for remote in found:
            wrong = faults_by_sums(store, remote) if quick else faults(store, remote, streams, advance)
            print(f"{store.location.url(remote.name)}: {f'bad: {wrong}' if wrong else 'ok'}", flush=True)
            bad += bool(wrong)
    raise typer.Exit(1 if bad else 0)


@app.command()
def gc(
    url: Url,
    older_than: Annotated[float, typer.Option(metavar="HOURS", min=0, help="what is younger may be under way")] = 24.0,
    dry_run: DryRun = False,
) -> None:
    """Let go of what interrupted uploads left in S3: parts that nobody sees and that are paid for."""
    import datetime

    from hpcframe.checkpoint.description import readable_bytes
    from hpcframe.staging.cleaning import leftovers, remove
    from hpcframe.staging.remote import meant

    store, choice, _ = meant(url)
    found = leftovers(store, datetime.timedelta(hours=older_than), choice.beginning)
    gone = found if dry_run else remove(store, found)
    did = "would let go of" if dry_run else "let go of"
    for upload in gone.uploads:
        print(f"{did} the upload of {upload.name}, begun {upload.begun:%Y-%m-%d %H:%M}")
    for checkpoint in gone.checkpoints:
        print(f"{did} {checkpoint.name}, {readable_bytes(checkpoint.bytes)}, which was never completed")
    kept = len(found.uploads) - len(gone.uploads) + len(found.checkpoints) - len(gone.checkpoints)
    if kept:
        print(f"kept {kept} upload(s) or checkpoint(s) that somebody went on with meanwhile")
    if not found.uploads and not found.checkpoints:
        print(f"nothing older than {older_than:g} h was left in {url}")


@app.command()
def wait(
    folder: Folder, seconds: Annotated[float, typer.Option(min=0, help="at most; 0: as long as it takes")] = 0.0
) -> None:
    """Wait until the run that goes on in a folder has brought all to S3 that is there now. Exit code 1 if it cannot."""
    from hpcframe.checkpoint.inspection import folder_of
    from hpcframe.files import explained
    from hpcframe.staging import state
    from hpcframe.staging.goal import Goal
    from hpcframe.staging.pushing import run_of

    checkpoints = folder_of(folder)
    run = run_of(checkpoints)
    end, shown = time.monotonic() + (seconds or float("inf")), ""
    with explained(run):
        said = state.read(run)
        if said is None:
            remedy = f"`hpcframe stage push {run} s3://BUCKET/PREFIX` does"
            raise InputError(f"{run}: nothing was staged from here; {remedy}")
        goal = Goal(checkpoints, run, said.url, said.push)
        while missing := goal.missing():
            _refuse_waiting(run, said, missing, f"after {seconds:g} s" if time.monotonic() > end else "")
            text = said.error or said.current or ", ".join(missing)
            if text != shown:
                print(text, flush=True)
                shown = text
            time.sleep(POLL)
            said = state.read(run) or said  # before what is missing, as it may end at any time
    print(f"all is in S3, in {said.url}")


def _refuse_waiting(run: Path, said: State, missing: list[str], late: str) -> None:
    """Raises HpcframeError where what is missing does not come, or is late."""
    what, why = ", ".join(missing), "; ".join(filter(None, [said.error, *said.left]))
    if not said.is_alive:
        told = f": {why}" if why else ""
        raise HpcframeError(
            f"{run}: {what} is not in {said.url}, and nobody pushes it any more{told}; `hpcframe stage push {run}` does"
        )
    if any(name in reason for name in missing for reason in said.left):
        raise HpcframeError(f"{run}: {what} is not in {said.url}: {why}")
    if late:
        raise HpcframeError(f"{run}: {what} is not in {said.url} {late}{f': {why}' if why else ''}")


@app.command()
def lifecycle(
    url: Url,
    incomplete_days: Annotated[int, typer.Option(min=1, help="until an unfinished upload is let go of")] = 2,
    tier: Annotated[
        list[str], typer.Option(metavar="CLASS:DAYS", help="storage class to move to, and when; as often as needed")
    ] = [],  # noqa: B006
    output_days: Annotated[int, typer.Option(min=0, help="until output is deleted; 0: never")] = 0,
    write: Annotated[bool, typer.Option("--apply", help="write the rules into the bucket")] = False,
) -> None:
    """Print the rules by which S3 tidies a location up and moves it to cheaper storage, or write them."""
    import json

    from hpcframe.staging.lifecycle import apply, read_tier, rules
    from hpcframe.staging.store import Store
    from hpcframe.staging.url import Location

    location = Location.parse(url)
    ours = rules(location, incomplete_days, [read_tier(text) for text in tier], output_days)
    whole = apply(Store(location), ours) if write else ours
    print(json.dumps({"Rules": whole}, indent=2))
    if write:
        print(f"written to {location.bucket}: {len(ours)} rule(s) of {len(whole)} are hpcframe's")
