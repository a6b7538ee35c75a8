"""The `hpcframe` command. It starts ranks and is none itself: nothing here imports MPI or numba.

What takes a while to load is imported by the command that needs it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpcframe import cli_cluster, cli_instances, cli_slurm, cli_stage
from hpcframe.cli_progress import bar_of_bytes
from hpcframe.errors import HpcframeError, InputError
from hpcframe.version import version

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Stencil codes on many ranks.",
)  # fmt: skip

checkpoint = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Look at checkpoints, check them, remove some: on any machine, without MPI.",
)  # fmt: skip
app.add_typer(checkpoint, name="checkpoint")
app.add_typer(cli_stage.app, name="stage")
app.add_typer(cli_cluster.app, name="cluster")
for command in (cli_slurm.submit, cli_slurm.status, cli_slurm.cancel, cli_instances.instances):
    app.command()(command)

Configuration = Annotated[Path, typer.Argument(help="sim.toml; `hpcframe new heat` prints one", show_default=False)]
Ranks = Annotated[int, typer.Option("-n", "--ranks", min=1, help="ranks to start on this machine")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key (TOML value)")]

Checkpoints = Annotated[
    Path, typer.Argument(help="a run's folder, its folder `checkpoints`, or one checkpoint", show_default=False)
]
CheckpointFolder = Annotated[
    Path, typer.Argument(help="a run's folder, or its folder `checkpoints`", show_default=False)
]
Threads = Annotated[int, typer.Option(min=0, help="threads that read; 0: one a core, 8 at most")]


@app.callback(invoke_without_command=True)
def hpcframe(show_version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if show_version:
        print(version())
        raise typer.Exit


@app.command()
def run(
    configuration: Configuration,
    ranks: Ranks = 1,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nothing changes it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="explain what would be done, and stop")] = False,
    restart: Annotated[
        str,
        typer.Option(metavar="auto|none|PATH|s3://...", help="the checkpoint to go on from; auto: the newest, if any"),
    ] = "auto",
) -> None:
    """Run a simulation on this machine. On a cluster: srun -n 512 python -m hpcframe.run sim.toml"""
    from hpcframe.launch import local

    if dry_run:
        _explain(configuration, overrides, ranks)
        return
    if ranks > local.cores():
        print(f"{ranks} ranks take turns on {local.cores()} core(s): right for a test, slow for a run", file=sys.stderr)
    program = [sys.executable, "-m", "hpcframe.run", str(configuration), f"--restart={restart}"]
    raise typer.Exit(local.run(ranks, [*program, *(f"--set={text}" for text in overrides)]))


def _explain(configuration: Path, overrides: list[str], ranks: int) -> None:
    """A dry run takes one process, for any number of ranks."""
    from hpcframe.simulation.configuration import load

    loaded = load(configuration, overrides)
    os.environ.setdefault("OMPI_MCA_ess_singleton_isolated", "1")  # or Open MPI 4 starts a daemon, and needs a shell
    from mpi4py import MPI

    from hpcframe.simulation.planning import explain

    print(explain(loaded, MPI.COMM_SELF, ranks))


@app.command()
def new(kernel: Annotated[str, typer.Argument(help="a shipped kernel", show_default=False)]) -> None:
    """Print the commented sim.toml of a shipped kernel."""
    from hpcframe.launch.samples import sample

    print(sample(kernel), end="")


@app.command()
def doctor(
    nodes: Annotated[bool, typer.Option("--nodes", help="all nodes of this Slurm job, and where they differ")] = False,
) -> None:
    """Check this machine: PASS, SKIP or FAIL with the remedy. Exit code 1 if anything failed."""
    if nodes:
        from hpcframe.launch.allocation import examine_nodes

        raise typer.Exit(examine_nodes())
    from hpcframe.launch.doctor import examine

    raise typer.Exit(examine())


@checkpoint.command("ls")
def list_checkpoints(path: Checkpoints) -> None:
    """List what is there, the newest first. Reads manifests only: `verify` reads the data."""
    from hpcframe.checkpoint.description import table
    from hpcframe.checkpoint.inspection import earlier_runs, entries_at

    print(table(entries_at(path)))
    for folder in earlier_runs(path):
        print(f"of an earlier run: {folder}")


@checkpoint.command()
def show(
    path: Checkpoints, as_json: Annotated[bool, typer.Option("--json", help="print the manifest as JSON")] = False
) -> None:
    """Show what is in a checkpoint; of several, in the newest."""
    import json

    from hpcframe.checkpoint.description import in_words
    from hpcframe.checkpoint.inspection import checkpoints_at, read_body

    found = checkpoints_at(path)[0]
    manifest, body = read_body(found)
    print(json.dumps(body) if as_json else f"checkpoint  {found}\n{in_words(manifest)}")


@checkpoint.command()
def verify(path: Checkpoints, threads: Threads = 0) -> None:
    """Read all data, and compare it with its checksums. Exit code 1 if any checkpoint is bad."""
    from hpcframe.checkpoint.inspection import THREADS, bytes_to_read, checkpoints_at, faults

    paths, bad = checkpoints_at(path), 0
    with bar_of_bytes(sum(map(bytes_to_read, paths))) as advance:
        for found in paths:
            wrong = list(faults(found, threads or THREADS, advance))
            if wrong and not found.exists():
                print(f"{found}: removed meanwhile, by a run that goes on", flush=True)
                continue
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            print(f"{found}: {f'bad: {wrong[0]}{more}' if wrong else 'ok'}", flush=True)
            bad += bool(wrong)
    raise typer.Exit(1 if bad else 0)


@checkpoint.command()
def prune(
    path: CheckpointFolder,
    keep: Annotated[int, typer.Option(min=1, help="how many of the latest stay", show_default=False)],
    every: Annotated[int, typer.Option(min=0, help="those whose step is a multiple of this stay; 0: none")] = 0,
    pin: Annotated[list[int], typer.Option(metavar="STEP", help="this step stays; give it as often as needed")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be removed, and stop")] = False,
    threads: Threads = 0,
) -> None:
    """Remove older checkpoints. The newest that verifies stays, always; nothing is asked."""
    from hpcframe.checkpoint.description import readable_bytes
    from hpcframe.checkpoint.inspection import THREADS, folder_of, plan_pruning, remove_planned

    plan = plan_pruning(folder_of(path), keep, every, pin, threads or THREADS)
    for bad, reason in plan.bad.items():
        print(f"{bad}: left, though bad: {reason}", file=sys.stderr)
    if not dry_run:
        remove_planned(plan)
    did = "would remove" if dry_run else "removed"
    for gone, size in plan.removed.items():
        print(f"{did} {gone}, {readable_bytes(size)}")
    total = readable_bytes(sum(plan.removed.values()))
    print(f"{did} {len(plan.removed)} checkpoint(s), {total}; the newest that verifies is of step {plan.newest}")


def main() -> None:
    """Entry point. An error that hpcframe raises is a message, not a traceback."""
    try:
        app()
    except HpcframeError as error:
        print(f"hpcframe: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
