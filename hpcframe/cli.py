"""The `hpcframe` command. It starts ranks and is none itself: nothing here imports MPI or numba."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hpcframe.errors import HpcframeError, InputError
from hpcframe.version import version

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Stencil codes on many ranks.",
)  # fmt: skip

Configuration = Annotated[Path, typer.Argument(help="sim.toml; `hpcframe new heat` prints one", show_default=False)]
Ranks = Annotated[int, typer.Option("-n", "--ranks", min=1, help="ranks to start on this machine")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key (TOML value)")]


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
        str, typer.Option(metavar="auto|none|PATH", help="the checkpoint to go on from; auto: the newest, if any")
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
    from mpi4py import MPI

    from hpcframe.simulation.planning import explain

    print(explain(loaded, MPI.COMM_SELF, ranks))


@app.command()
def new(kernel: Annotated[str, typer.Argument(help="a shipped kernel", show_default=False)]) -> None:
    """Print the commented sim.toml of a shipped kernel."""
    from hpcframe.launch.samples import sample

    print(sample(kernel), end="")


@app.command()
def doctor() -> None:
    """Check this machine: PASS, SKIP or FAIL with the remedy. Exit code 1 if anything failed."""
    from hpcframe.launch.doctor import examine

    raise typer.Exit(examine())


def main() -> None:
    """Entry point. An error that hpcframe raises is a message, not a traceback."""
    try:
        app()
    except HpcframeError as error:
        print(f"hpcframe: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
