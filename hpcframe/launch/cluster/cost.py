"""What a cluster costs an hour: while nothing runs, and at most. Pure.

Prices are of us-east-1 in 2025, from the pricing pages of EBS, FSx for Lustre, CloudWatch and VPC; those of instances
are the catalogue's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpcframe.launch.catalogue import Catalogue
from hpcframe.launch.cluster import sizing
from hpcframe.launch.cluster.document import Configuration, Resource, at

HOURS_A_MONTH = 730
GP3 = 0.08  # USD for a GiB a month
DASHBOARD = 3.0  # USD a month
GATEWAY = 0.045 + 0.005  # USD an hour of a NAT gateway and its address, without what passes it


@dataclass(frozen=True)
class Item:
    """A line of the bill, USD an hour.

    Attributes:
        idle: without a job.
        most: with all nodes.
        note: where the price is from, or what is not in it.
    """

    what: str
    idle: float
    most: float
    note: str = ""


def items_of(configuration: Configuration, known: Catalogue) -> list[Item]:
    """What is paid for. What depends on use is in notes only."""
    return [
        *_head(configuration, known),
        *_nodes(configuration, known),
        *_files(configuration),
        *_watching(configuration),
    ]


def _head(configuration: Configuration, known: Catalogue) -> Iterator[Item]:
    name = str(configuration.at("HeadNode", "InstanceType"))
    cost, note = _instance(name, configuration, known)
    size = at(configuration.at("HeadNode"), "LocalStorage", "RootVolume", "Size") or 40
    cost += size * GP3 / HOURS_A_MONTH
    yield Item(f"head node {name}, {size} GiB", cost, cost, note)


def _instance(name: str, configuration: Configuration, known: Catalogue) -> tuple[float, str]:
    kind = known.find(name)
    found = kind.price_in(configuration.region) if kind else None
    if not kind or not found:
        return 0.0, f"the price of {name} is not known: hpcframe instances --refresh {name}"
    cost, where = found
    return cost, f"{kind.priced}, {where}"


def _nodes(configuration: Configuration, known: Catalogue) -> Iterator[Item]:
    for queue in configuration.queues:
        for resource in queue.resources:
            dearest = _dearest(resource, configuration, known)
            cost, note = _instance(dearest, configuration, known)
            if queue.spot:
                note += "; Spot costs less, as a rule"
            what = f"{resource.most} x {dearest}, {queue.where}"
            yield Item(what, resource.least * cost, resource.most * cost, note)


def _dearest(resource: Resource, configuration: Configuration, known: Catalogue) -> str:
    return max(resource.types, key=lambda name: _instance(name, configuration, known)[0], default="?")


def _files(configuration: Configuration) -> Iterator[Item]:
    for store in configuration.storage:
        section = store.get("FsxLustreSettings")
        size, speed = at(section, "StorageCapacity"), at(section, "PerUnitStorageThroughput")
        if isinstance(size, int) and speed in sizing.PRICES:
            cost = sizing.FileSystem(size, speed).dollars_a_month / HOURS_A_MONTH
            yield Item(f"FSx for Lustre {store.get('Name')}, {size} GiB", cost, cost, "until it is deleted, too")


def _watching(configuration: Configuration) -> Iterator[Item]:
    cost = DASHBOARD / HOURS_A_MONTH
    yield Item("CloudWatch dashboard", cost, cost, "besides logs, EFS and traffic, which depend on use")


def table(found: list[Item]) -> str:
    """As lines for people.

    >>> print(table([Item("head node", 0.5, 0.5, "x")]))
    USD an hour      idle    at most
    head node        0.50       0.50  x
    in all           0.50       0.50
    """
    whole = Item("in all", sum(item.idle for item in found), sum(item.most for item in found))
    width = max(15, *(len(item.what) for item in found))
    lines = [f"{'USD an hour':{width}}  {'idle':>4}    at most"]
    for item in [*found, whole]:
        lines.append(f"{item.what:{width}}{item.idle:6.2f} {item.most:10.2f}  {item.note}".rstrip())
    return "\n".join(lines)
