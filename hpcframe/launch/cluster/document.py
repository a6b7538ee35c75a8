"""A configuration of ParallelCluster as it is in a file. Pure, but for reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcframe.errors import InputError


@dataclass(frozen=True)
class Resource:
    """Nodes of a queue that are alike, or as good as that.

    Attributes:
        where: its path, for messages.
        types: instance types; AWS chooses between several.
        least, most: nodes.
        placement: the placement group that its section or its queue's names; None: neither does.
        section: all of it.
    """

    where: str
    types: tuple[str, ...]
    least: int
    most: int
    efa: bool
    placement: Mapping[str, Any] | None
    section: Mapping[str, Any]


@dataclass(frozen=True)
class Queue:
    """A queue, which is a partition of Slurm.

    Attributes:
        spot: of Spot instances.
        section: all of it.
    """

    where: str
    name: str
    spot: bool
    subnets: tuple[str, ...]
    resources: tuple[Resource, ...]
    section: Mapping[str, Any]


@dataclass(frozen=True)
class Configuration:
    """What a file says.

    Attributes:
        path: the file.
        body: all of it.
    """

    path: Path
    body: Mapping[str, Any]

    def at(self, *keys: str) -> Any:
        """What is at a path of keys; None where nothing is."""
        return at(self.body, *keys)

    @property
    def region(self) -> str:
        return str(self.body.get("Region", ""))

    @property
    def queues(self) -> tuple[Queue, ...]:
        return tuple(_queue(section) for section in items(self.at("Scheduling", "SlurmQueues")))

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Of all queues."""
        return tuple(resource for queue in self.queues for resource in queue.resources)

    @property
    def storage(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(items(self.at("SharedStorage")))

    @property
    def tags(self) -> dict[str, str]:
        return {str(tag.get("Key")): str(tag.get("Value")) for tag in items(self.at("Tags"))}


def load(path: Path) -> Configuration:
    """Not collective. Raises InputError where it cannot be read, or is no mapping."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}; `hpcframe cluster render --help` says how to make one") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Configuration:
    """Raises InputError where it is no YAML, or no mapping."""
    import yaml

    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if not isinstance(body, dict):
        raise InputError(f"{path}: expected a configuration of ParallelCluster, which begins with `Region:`")
    return Configuration(path, body)


def at(section: Any, *keys: str) -> Any:
    """What is below a section at a path of keys; None where nothing is."""
    for key in keys:
        section = section.get(key) if isinstance(section, Mapping) else None
    return section


def items(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings in a list; what is none, ParallelCluster's schema refuses."""
    yield from (each for each in value if isinstance(each, Mapping)) if isinstance(value, Sequence) else ()


def _queue(section: Mapping[str, Any]) -> Queue:
    name = str(section.get("Name", "?"))
    subnets = at(section, "Networking", "SubnetIds")
    return Queue(
        where=f"queue {name}",
        name=name,
        spot=section.get("CapacityType") == "SPOT",
        subnets=tuple(map(str, subnets)) if isinstance(subnets, list) else (),
        resources=tuple(_resource(name, section, each) for each in items(section.get("ComputeResources"))),
        section=section,
    )


def _resource(queue: str, of_queue: Mapping[str, Any], section: Mapping[str, Any]) -> Resource:
    one, several = section.get("InstanceType"), [each.get("InstanceType") for each in items(section.get("Instances"))]
    return Resource(
        where=f"queue {queue}, {section.get('Name', '?')}",
        types=tuple(str(name) for name in [one, *several] if name),
        least=_count(section.get("MinCount"), 0),
        most=_count(section.get("MaxCount"), 10),  # ParallelCluster's default
        efa=at(section, "Efa", "Enabled") is True,
        placement=at(section, "Networking", "PlacementGroup") or at(of_queue, "Networking", "PlacementGroup"),
        section=section,
    )


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default
