"""`hpcframe cluster`: a cluster of AWS ParallelCluster, from its configuration to its end. No rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcframe import cli_cluster_life
from hpcframe.cli_cluster_life import File, Region, Suppress, Until, Zone
from hpcframe.errors import InputError

if TYPE_CHECKING:
    from hpcframe.launch.cluster.sizing import FileSystem

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Clusters of AWS ParallelCluster: their configuration, what is wrong with it, what it costs, and their life.",
)  # fmt: skip


@app.command()
def render(
    region: Region,
    instance: Annotated[
        list[str], typer.Option(help="type for tightly coupled jobs; as often as needed", show_default=False)
    ],
    bucket: Annotated[str, typer.Option(help="of S3: checkpoints and data", show_default=False)],
    owner: Annotated[str, typer.Option(help="who is asked about it: a tag", show_default=False)],
    nodes: Annotated[int, typer.Option(min=1, help="at most, of each type")] = 8,
    spot: Annotated[
        list[str] | None, typer.Option(help="type for a queue of Spot instances; as often as needed")
    ] = None,
    spot_nodes: Annotated[int, typer.Option(min=1, help="at most, of all Spot types together")] = 16,
    head_subnet: Annotated[str, typer.Option(help="of the head node", show_default=False)] = "",
    compute_subnet: Annotated[str, typer.Option(help="of the nodes", show_default=False)] = "",
    network: Annotated[str, typer.Option(help="stack of `hpcframe cluster network`, whose subnets are used")] = "",
    fsx: Annotated[
        str, typer.Option(metavar="GIB[:MB/S A TIB]", help="file system; computed with --for if not given")
    ] = "",
    simulation: Annotated[
        Path | None, typer.Option("--for", metavar="sim.toml", help="whose checkpoints the file system must take")
    ] = None,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="10m", help="with --for: how often, where sim.toml says steps")
    ] = "10m",
    project: str = "hpcframe",
    team: str = "research",
    environment: str = "dev",
    until: Until = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a file; nothing is overwritten", show_default=False)
    ] = None,
) -> None:
    """Print a configuration for tightly coupled MPI, with a comment on every value."""
    from hpcframe.launch.catalogue import catalogue
    from hpcframe.launch.cluster.answers import COMPUTE_SUBNET, HEAD_SUBNET, Answers
    from hpcframe.launch.cluster.rendering import render as rendered

    if network:
        head_subnet, compute_subnet = _subnets_of(network, region)
    answers = Answers(
        region, tuple(instance), nodes, bucket, owner, _files(fsx, simulation, checkpoint_every), tuple(spot or ()),
        spot_nodes, head_subnet or HEAD_SUBNET, compute_subnet or COMPUTE_SUBNET, project, team, environment, until,
    )  # fmt: skip
    text = rendered(answers, catalogue())
    if output is None:
        print(text, end="")
        return
    try:
        with open(output, "x") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{output} is there already, and may have been changed; remove it, or name another file"
        ) from None
    except OSError as error:
        raise InputError(f"{output}: {error}") from error
    print(f"wrote {output}; next: hpcframe cluster validate {output}")


def _subnets_of(stack: str, region: str) -> tuple[str, str]:
    from hpcframe.aws import client
    from hpcframe.launch.cluster import account

    found = account.outputs(client("cloudformation", region=region), stack)
    pairs = [
        ("HeadSubnet", "ComputeSubnet"),
        ("PublicSubnetId", "PrivateSubnetId"),
    ]  # ours; those of `pcluster configure`
    for head, compute in pairs:
        if head in found and compute in found:
            return found[head], found[compute]
    raise InputError(
        f"--network {stack}: its outputs are {', '.join(found) or 'none'}; expected HeadSubnet, ComputeSubnet"
    )


def _files(fsx: str, simulation: Path | None, every: str) -> FileSystem:
    from hpcframe.launch import durations
    from hpcframe.launch.cluster import sizing

    if fsx:
        size, _, speed = fsx.partition(":")
        if not size.isdecimal() or not (speed or "250").isdecimal():
            raise InputError(f"--fsx {fsx}: expected GiB, or GiB:MB/s a TiB, such as 4800:250")
        return sizing.FileSystem(int(size), int(speed or 250))
    if simulation is None:
        return sizing.FileSystem(1200, 250)
    from hpcframe.cli_needs import needs_in

    needs = needs_in(simulation, [])
    section, size_of_one = needs.configuration.checkpoint, needs.checkpoint_bytes() or needs.state_bytes()
    interval = section.every_seconds or durations.seconds(every)
    found = sizing.cheapest(size_of_one, interval, section.keep)
    print(
        f"checkpoints of {size_of_one / 1e9:.3g} GB every {interval:g} s, {section.keep} kept: "
        f"{found.capacity} GiB at {found.throughput} MB/s a TiB",
        file=sys.stderr,
    )
    return found


@app.command()
def validate(
    path: File,
    name: Annotated[str, typer.Option(help="of the cluster, which validators want")] = "check",
    zone: Zone = "",
    offline: Annotated[bool, typer.Option("--offline", help="ask AWS nothing")] = False,
    suppress: Suppress = None,
) -> None:
    """Look for what is wrong before it costs anything: hpcframe's rules, then ParallelCluster's. Exit code 1 if any
    fails."""
    from hpcframe.launch.cluster import cost
    from hpcframe.launch.cluster.document import load
    from hpcframe.launch.cluster.validation import ask, examine

    configuration = load(path)
    asked = ask(configuration, zone, offline)
    good = cli_cluster_life.show_findings(examine(configuration, name, asked, suppress or []))
    print()
    print(cost.table(cost.items_of(configuration, asked.context.catalogue)))
    raise typer.Exit(0 if good else 1)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="the configuration of a cluster at work", show_default=False)],
    after: Annotated[Path, typer.Argument(help="the changed one", show_default=False)],
) -> None:
    """What a change asks for: nothing, a drained queue, a stopped fleet, or a new cluster. Exit code 1 if it replaces
    something."""
    from hpcframe.launch.cluster.changes import Effect, changes, describe
    from hpcframe.launch.cluster.document import load

    found = changes(load(before), load(after))
    print(describe(found))
    raise typer.Exit(1 if any(change.effect >= Effect.REPLACE for change in found) else 0)


for life_command in (
    cli_cluster_life.network,
    cli_cluster_life.create,
    cli_cluster_life.update,
    cli_cluster_life.delete,
):
    app.command()(life_command)
