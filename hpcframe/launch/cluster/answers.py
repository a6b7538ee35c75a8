"""The few answers that a cluster is made from. Pure."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from hpcframe.errors import InputError, nearest
from hpcframe.launch.catalogue import Catalogue, InstanceType
from hpcframe.launch.cluster import regions, sizing

HEAD_SUBNET, COMPUTE_SUBNET = "subnet-OF-THE-HEAD-NODE", "subnet-OF-THE-NODES"  # nobody has these: `validate` refuses
HEADS = {"x86_64": "m7i.2xlarge", "arm64": "m7g.2xlarge"}  # Slurm's controller needs no more for hundreds of nodes
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
DAYS = 30  # that a cluster is needed, if nothing is said
TAG = re.compile(r"[\w .:/=+@-]{1,256}")


def tags_of(project: str, team: str, environment: str, owner: str, until: str) -> dict[str, str]:
    """Tags that say whose something is, and until when: 30 days from now if not given. Raises InputError for what AWS
    would refuse."""
    last = until or (datetime.date.today() + datetime.timedelta(days=DAYS)).isoformat()
    tags = {"Project": project, "Team": team, "Environment": environment, "Owner": owner, "TimeToLive": last}
    for name, value in tags.items():
        if not TAG.fullmatch(value):
            raise InputError(f"the tag {name} is {value!r}: expected letters, digits, spaces and . : / = + @ -")
    try:
        datetime.date.fromisoformat(last)
    except ValueError:
        raise InputError(f"--until {until}: expected a day such as 2027-01-31") from None
    return tags


@dataclass(frozen=True)
class Answers:
    """What the user decides.

    Attributes:
        instances: types of the queue for tightly coupled jobs, on demand.
        nodes: at most, of each of them.
        spot: types of the queue of Spot instances; none: there is no such queue.
        spot_nodes: at most, of all of them together.
        bucket: that checkpoints and data are in.
        files: the file system that all nodes see.
        until: the day after which nobody needs the cluster any more.
    """

    region: str
    instances: tuple[str, ...]
    nodes: int
    bucket: str
    owner: str
    files: sizing.FileSystem
    spot: tuple[str, ...] = ()
    spot_nodes: int = 16
    head_subnet: str = HEAD_SUBNET
    compute_subnet: str = COMPUTE_SUBNET
    project: str = "hpcframe"
    team: str = "research"
    environment: str = "dev"
    until: str = ""

    def tags(self) -> dict[str, str]:
        """Of everything that the cluster consists of."""
        return tags_of(self.project, self.team, self.environment, self.owner, self.until)

    def check(self, known: Catalogue) -> None:
        """Raises InputError for an answer that no cluster can be made from."""
        if not regions.is_region(self.region):
            raise InputError(f"--region {self.region}: not a region{nearest(self.region, known.regions())}")
        if not BUCKET.fullmatch(self.bucket):
            raise InputError(f"--bucket {self.bucket}: the name of an S3 bucket has 3 to 63 of a-z, 0-9, . and -")
        if not sizing.is_capacity(self.files.capacity) or self.files.throughput not in sizing.PRICES:
            raise InputError(
                f"--fsx {self.files.capacity}:{self.files.throughput}: expected 1200 GiB or a multiple of 2400, and "
                f"{', '.join(map(str, sizing.PRICES))} MB/s for each TiB"
            )
        self.tags()
        kinds = [known.get(name) for name in (*self.instances, *self.spot)]
        if not self.instances:
            raise InputError("--instance: name at least one type; `hpcframe instances` lists them")
        _check_alike(kinds)
        _check_spot([known.get(name) for name in self.spot])
        _check_offered(kinds, self.region, known)

    def head(self, known: Catalogue) -> str:
        """The type of the head node."""
        return HEADS[known.get(self.instances[0]).architecture]


def _check_alike(kinds: list[InstanceType]) -> None:
    """Raises InputError where one program cannot run on all of them."""
    by_architecture: dict[str, list[str]] = {}
    for kind in kinds:
        by_architecture.setdefault(kind.architecture, []).append(kind.name)
    if len(by_architecture) > 1:
        told = "; ".join(f"{name}: {', '.join(types)}" for name, types in by_architecture.items())
        raise InputError(f"a cluster has processors of one kind, as its head node builds for all ({told}); make two")


def _check_spot(mixed: list[InstanceType]) -> None:
    """Raises InputError where AWS has no Spot of one, or jobs could not count on the cores of whichever it chooses."""
    never = [kind.name for kind in mixed if not kind.spot]
    if never:
        raise InputError(f"--spot {never[0]}: AWS has no Spot of it; `hpcframe instances` says of which there is")
    if len({kind.cores for kind in mixed}) > 1:
        told = ", ".join(f"{kind.name} has {kind.cores}" for kind in mixed)
        raise InputError(f"--spot: types of one queue have equally many cores ({told})")


def _check_offered(kinds: list[InstanceType], region: str, known: Catalogue) -> None:
    """Raises InputError where a region of which something is known does not have one."""
    for kind in kinds:
        if region in known.regions() and not kind.zones.get(region):
            raise InputError(f"--region {region}: {kind.name} is not offered there; it is in {', '.join(kind.zones)}")
