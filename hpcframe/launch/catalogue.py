"""What is known of instance types: what they have, where they are offered, what they cost. Pure, but for reading files.

The table is in instances.json beside this file; `hpcframe instances --refresh` asks AWS, and writes one that is used
instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from hpcframe.errors import HpcframeError, InputError, nearest

SHIPPED = Path(__file__).parent / "instances.json"


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """The memory of a node.

    Attributes:
        triad: GB/s (1e9 B/s) of the STREAM triad on the whole node.
        source: where that is from.
        dies: groups of cores with a last-level cache each; the cores of one have successive numbers. 0: not known.
    """

    triad: float
    source: str
    dies: int = 0

    @property
    def is_measured(self) -> bool:
        """Else it may be faster: what is derived from it is no bound."""
        return "not measured" not in self.source


class InstanceType(msgspec.Struct, frozen=True, omit_defaults=True):
    """An instance type.

    Attributes:
        name: such as hpc8a.96xlarge.
        architecture: x86_64 or arm64.
        threads_a_core: hardware threads.
        gib: of memory.
        gbps: of its network, all cards together.
        efa: network cards that may have an Elastic Fabric Adapter; 0: none.
        nvme: GB on its own disks.
        spot: whether it may be had as Spot.
        zones: Availability Zones that offer it, by region and id, which means the same in all accounts.
        price: USD an hour on demand with Linux, by region.
        priced: when and by whom.
    """

    name: str
    architecture: str
    cores: int
    threads_a_core: int
    gib: float
    gbps: float
    efa: int
    spot: bool
    nvme: int = 0
    memory: Memory | None = None
    zones: dict[str, list[str]] = {}
    price: dict[str, float] = {}
    priced: str = ""

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def processors(self) -> int:
        """Hardware threads, which AWS calls vCPUs and limits by quotas."""
        return self.cores * self.threads_a_core

    def price_in(self, region: str) -> tuple[float, str] | None:
        """USD an hour on demand, and of which region: of another one where this region's is not known, as prices differ
        by some 10 to 30 % between regions."""
        where = region if region in self.price else next(iter(self.price), "")
        return (self.price[where], where) if where else None


class Catalogue(msgspec.Struct, frozen=True):
    """Instance types, and how old this is."""

    dated: str
    source: str
    types: list[InstanceType]

    def find(self, name: str) -> InstanceType | None:
        return next((kind for kind in self.types if kind.name == name), None)

    def get(self, name: str) -> InstanceType:
        """Raises InputError where it is not here."""
        found = self.find(name)
        if found is None:
            sizes = ", ".join(kind.name for kind in self.types if kind.family == name)
            there = (
                f"; it comes as {sizes}" if sizes else nearest(name, (kind.name for kind in self.types), or_all=False)
            )
            raise InputError(
                f"{name}: not in the catalogue{there or '; `hpcframe instances` lists it'}, and "
                f"`hpcframe instances --refresh {name}` asks AWS for a type"
            )
        return found

    def regions(self) -> set[str]:
        """All where something is offered."""
        return {region for kind in self.types for region in kind.zones}


def own() -> Path:
    """Where a refreshed catalogue is."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "hpcframe" / "instances.json"


def catalogue() -> Catalogue:
    """The refreshed one, or else the one that came with hpcframe. Not collective. Raises HpcframeError where it cannot
    be read."""
    refreshed = own()
    return _read(refreshed if refreshed.exists() else SHIPPED)


@cache
def _read(path: Path) -> Catalogue:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Catalogue)
    except (OSError, msgspec.MsgspecError) as error:
        raise HpcframeError(
            f"{path}: {error}; remove it to use the catalogue that came with hpcframe, or: hpcframe instances --refresh"
        ) from error


def written(types: Iterable[InstanceType], dated: str, source: str) -> bytes:
    """A catalogue as it is in a file: a line a type, so that a difference can be read."""
    lines = ",\n".join(f"  {msgspec.json.encode(kind).decode()}" for kind in types)
    head = msgspec.json.encode({"dated": dated, "source": source}).decode()[:-1]
    return f'{head}, "types": [\n{lines}\n]}}\n'.encode()
