"""What Slurm says of its partitions and their nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpcframe.errors import InputError, nearest
from hpcframe.launch import durations
from hpcframe.launch.catalogue import Memory, catalogue
from hpcframe.launch.slurm import ask

# Partition, time limit, its default, number of nodes, processors, sockets, cores a socket, threads a core, memory
# (MiB), names, features: the last may contain anything.
FORMAT = "%P|%l|%L|%D|%c|%X|%Y|%Z|%m|%N|%f"
INSTANCE = re.compile(r"[a-z]+\d[a-z0-9-]*\.(?:\d*x?large|medium|small|metal(?:-\w+)?)")


@dataclass(frozen=True)
class NodeType:
    """Nodes of a partition that are all alike.

    Attributes:
        is_default: of the partition: jobs that name none go there.
        time_limit: of a job there (s); None: there is none.
        default_time: limit of a job that asks for none (s); None: `time_limit`.
        processors: what Slurm hands out: hardware threads, or cores where it knows no threads.
        memory: bytes a node.
        names: of the nodes, as Slurm writes them.
    """

    partition: str
    is_default: bool
    time_limit: int | None
    default_time: int | None
    count: int
    processors: int
    sockets: int
    cores_a_socket: int
    threads_a_core: int
    memory: int
    names: str
    features: tuple[str, ...]

    @property
    def cores(self) -> int:
        """Of a node."""
        return max(1, min(self.processors, self.sockets * self.cores_a_socket))

    @property
    def knows_cores(self) -> bool:
        """Whether Slurm knows that hardware threads are none. ParallelCluster tells it of processors only, each a
        socket, which are hardware threads where there are two a core; hpc instances have one."""
        told = self.cores_a_socket * self.threads_a_core > 1 or self.processors == 1
        return told or (self.instance or "").startswith("hpc")

    @property
    def instance(self) -> str | None:
        """The AWS instance type, which ParallelCluster writes into the features, or an administrator into the name."""
        told = {feature for feature in self.features if INSTANCE.fullmatch(feature)}
        if told:
            return told.pop() if len(told) == 1 else None
        names = re.sub(r"\W", "", self.names)
        known = (kind.name for kind in catalogue().types)
        return next((name for name in known if name.replace(".", "") in names), None)

    @property
    def known_memory(self) -> Memory | None:
        """How fast its memory is, where that is known."""
        known = catalogue().find(self.instance or "")
        return known.memory if known else None


def node_types() -> list[NodeType]:
    """Those of all partitions. Not collective.

    Raises:
        InputError: there is no Slurm.
        HpcframeError: it does not answer.
    """
    return parse(ask(["sinfo", "--noheader", "--exact", f"--format={FORMAT}"]))


def parse(text: str) -> list[NodeType]:
    """What `sinfo` prints in `FORMAT`. A "+" after a number is Slurm's word for "at least"."""
    return [_node_type(line.split("|", 10)) for line in text.splitlines() if line.count("|") >= 10]


def _node_type(columns: Sequence[str]) -> NodeType:
    partition, limit, default, *numbers, names, features = (column.strip() for column in columns)
    count, processors, sockets, cores, threads, memory = (int(number.rstrip("+")) for number in numbers)
    return NodeType(
        partition=partition.rstrip("*"),
        is_default=partition.endswith("*"),
        time_limit=durations.limit(limit),
        default_time=durations.limit(default),
        count=count,
        processors=processors,
        sockets=sockets,
        cores_a_socket=cores,
        threads_a_core=threads,
        memory=memory << 20,
        names=names,
        features=() if features == "(null)" else tuple(features.split(",")),
    )


def choose(types: Sequence[NodeType], partition: str | None, spot: bool, constraint: str | None) -> list[NodeType]:
    """The node types that a job may land on.

    Args:
        partition: its name; None: the one for Spot where that is asked for, and else Slurm's default.
        constraint: a feature that the nodes must have, or several in Slurm's words, such as "a|b": then those nodes
            come that have one of them at least.

    Raises:
        InputError: there is no such partition, none to choose, or no such feature in it.
    """
    names = list(dict.fromkeys(kind.partition for kind in types))
    name = partition or (_spot_partition(names) if spot else _default_partition(types, names))
    if name not in names:
        raise InputError(
            f"--partition {name}: there is none of that name{nearest(name, names, or_all=False)}; "
            f"there are {', '.join(names)}"
        )
    there = [kind for kind in types if kind.partition == name]
    if constraint is None:
        return there
    features = list(dict.fromkeys(feature for kind in there for feature in kind.features))
    named = re.findall(r"[^&|()\[\]]+", re.sub(r"\*\d+", "", constraint))  # in "a|b", or in "[rack1*2&rack2*4]"
    unknown = next((name for name in named if name not in features), None)
    if unknown is not None:
        raise InputError(
            f"--constraint {constraint}: no node of partition {name} has this feature"
            f"{nearest(unknown, features) or '; they have none'}"
        )
    return [kind for kind in there if set(named) & set(kind.features)]


def _default_partition(types: Sequence[NodeType], names: Sequence[str]) -> str:
    default = next((kind.partition for kind in types if kind.is_default), None)
    if default is None:
        raise InputError(f"this Slurm has no default partition; give --partition, one of: {', '.join(names)}")
    return default


def _spot_partition(names: Sequence[str]) -> str:
    alike = [name for name in names if "spot" in name.lower()]
    if len(alike) != 1:
        found = f"{len(alike)} partitions have" if alike else "no partition has"
        raise InputError(f"--spot: {found} 'spot' in the name; give --partition, one of: {', '.join(names)}")
    return alike[0]
