"""`hpcframe instances`: instance types, what they cost, and which of them suits a simulation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpcframe.errors import InputError

if TYPE_CHECKING:
    from hpcframe.launch.catalogue import Catalogue, InstanceType
    from hpcframe.launch.ranking import Prediction, Work

REGION = "us-east-2"  # has all hpc types but those with Graviton


def instances(
    names: Annotated[list[str] | None, typer.Argument(metavar="[TYPE]...", help="all if not given")] = None,
    simulation: Annotated[
        Path | None, typer.Option("--for", metavar="sim.toml", help="rank them for this simulation", show_default=False)
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help=f"of offers and prices, {REGION}; with --refresh as often as needed")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="as few as it needs if not given", show_default=False)
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="in all; a rank a core if not given", show_default=False)
    ] = None,
    by: Annotated[Literal["cost", "time"], typer.Option(help="the order")] = "cost",
    refresh: Annotated[bool, typer.Option("--refresh", help="ask AWS anew for these types, or for all")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="with --refresh: say what would be asked, and stop")
    ] = False,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key of sim.toml (TOML value)")
    ] = [],  # noqa: B006 - typer reads it, nothing changes it
) -> None:
    """List instance types, or rank them for a simulation by what time and money it takes."""
    from hpcframe.launch.catalogue import catalogue

    regions = region or [REGION]
    if refresh:
        _refresh(names or [], regions, dry_run)
        return
    known = catalogue()
    kinds = [known.get(name) for name in names] if names else known.types
    if simulation is None:
        _list(known, kinds, regions[0])
    else:
        _rank(simulation, overrides, kinds, regions[0], nodes, ranks, by)


def _list(known: Catalogue, kinds: list[InstanceType], region: str) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("type", no_wrap=True)
    for title in ("cores", "GiB", "GB/s", "Gbps", "EFA", "NVMe GB", "USD/h"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("Spot")
    table.add_column(f"zones in {region}")
    elsewhere = False
    for kind in kinds:
        price = kind.price_in(region)
        elsewhere |= bool(price and price[1] != region)
        cost = f"{price[0]:.2f}{'' if price[1] == region else '*'}" if price else "?"
        speed = f"{kind.memory.triad:g}" if kind.memory else "?"
        table.add_row(
            kind.name, str(kind.cores), f"{kind.gib:g}", speed, f"{kind.gbps:g}", str(kind.efa or "-"),
            str(kind.nvme or "-"), cost, "yes" if kind.spot else "no", ", ".join(kind.zones.get(region, ["-"])),
        )  # fmt: skip
    _print(table)
    star = "; * price of another region" if elsewhere else ""
    print(f"GB/s: STREAM triad of a node; types and zones of {known.dated}, prices of that day or older{star}")


def _print(table: object) -> None:
    """As wide as it is: a row is a line, in a file, too."""
    from rich.console import Console

    Console(width=200, soft_wrap=True).print(table)


def _refresh(names: list[str], regions: list[str], dry_run: bool) -> None:
    from hpcframe.aws import client
    from hpcframe.launch.catalogue import catalogue, own, written
    from hpcframe.launch.refresh import refreshed

    old = catalogue()
    count = len({*names, *(kind.name for kind in old.types)})
    print(f"asking EC2 and the price list for {count} types in {', '.join(regions)}")
    if dry_run:
        print(f"would write {own()}")
        return
    types, today, troubles = refreshed(old, regions, names, lambda service, region: client(service, region=region))
    path = own()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(written(types, today, f"EC2 of {', '.join(regions)}; others: {old.source} of {old.dated}"))
    for trouble in troubles[:3]:
        print(trouble)
    if troubles:
        print(f"{len(troubles)} price(s) stay as they were")
    print(f"wrote {path}; remove it to use what came with hpcframe")


def _rank(
    simulation: Path, overrides: list[str], kinds: list[InstanceType], region: str, nodes: int | None,
    ranks: int | None, by: str,
) -> None:  # fmt: skip
    from rich.table import Table

    from hpcframe.launch.ranking import rank
    from hpcframe.simulation.planning import in_bytes

    work = _work(simulation, overrides)
    here = [kind for kind in kinds if region in kind.zones and kind.memory]
    if not here:
        raise InputError(
            f"--region {region}: nothing known is offered there; hpcframe instances --refresh --region {region}"
        )
    found, left = rank(work, here, region, nodes, ranks, by)
    steps = f"{work.steps} steps" if work.steps else "steps are counted at the start of a run"
    print(f"fields {in_bytes(work.memory)}, moved {in_bytes(work.moved)} a step, {steps}")
    table = Table(box=None, pad_edge=False)
    table.add_column("type", no_wrap=True)
    for title in ("nodes", "ranks", "step", "limited by", "whole run", "USD"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found:
        table.add_row(*_row(one, region))
    _print(table)
    for reason in left:
        print(f"not: {reason}")
    print("a roofline of memory and network: start, output and checkpoints come on top. * price elsewhere")


def _row(one: Prediction, region: str) -> list[str]:
    from hpcframe.launch import durations

    cost = "?" if one.dollars is None else f"{one.dollars:.2f}{'' if one.where == region else '*'}"
    whole = "?" if one.seconds is None else durations.in_words(one.seconds)
    return [one.kind.name, str(one.nodes), str(one.ranks), f"{one.step * 1e3:.3g} ms", one.limited, whole, cost]


def _work(simulation: Path, overrides: list[str]) -> Work:
    """What a simulation asks of machines."""
    from hpcframe.cli_needs import needs_in, steps_of
    from hpcframe.grid.decomposition import decompose, surface
    from hpcframe.launch.ranking import Work

    needs = needs_in(simulation, overrides)
    shape, periodic = needs.configuration.grid.shape, needs.configuration.boundary.periodic
    layers = sum(
        max(field.halo) * field.dtype.itemsize * math.prod(field.components) for field in needs.state
    )  # bytes a step sends for each cell of a cut, and each way

    def sent(nodes: int) -> float:
        plan = decompose(shape, periodic, range(nodes))
        return 2 * surface(plan.shape, plan.layout, plan.periodic) * layers / nodes

    memory = needs.memory_a_rank(needs.decomposition(1))
    return Work(memory, needs.bytes_a_point * math.prod(shape), sent, steps_of(needs, memory))
