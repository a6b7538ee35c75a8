"""How many vCPUs of which quota of EC2 a cluster needs. Pure.

Source: codes of `aws service-quotas list-service-quotas --service-code ec2`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcframe.launch.catalogue import Catalogue
from hpcframe.launch.cluster.document import Configuration


@dataclass(frozen=True)
class Quota:
    """A quota of EC2 in a region, in vCPUs."""

    code: str
    name: str


ON_DEMAND = {
    "hpc": Quota("L-F7808C92", "Running On-Demand HPC instances"),
    "p": Quota("L-417A185B", "Running On-Demand P instances"),
    "g": Quota("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "x": Quota("L-7295265B", "Running On-Demand X instances"),
}
P5_SPOT = Quota("L-C4BD4855", "All P5 Spot Instance Requests")
SPOT = {
    "p": Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    "g": Quota("L-3819A6DF", "All G and VT Spot Instance Requests"),
    "x": Quota("L-E3A00192", "All X Spot Instance Requests"),
}
STANDARD = Quota("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances")
STANDARD_SPOT = Quota("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests")


def quota_of(name: str, spot: bool) -> Quota:
    """The quota that an instance type counts against.

    >>> quota_of("hpc7a.96xlarge", spot=False).code, quota_of("c7a.48xlarge", spot=True).code
    ('L-F7808C92', 'L-34B43A08')
    """
    letters = name[: next(index for index, letter in enumerate(name) if not letter.isalpha())]
    if spot and name.startswith("p5"):
        return P5_SPOT
    if spot:
        return SPOT.get(letters, STANDARD_SPOT)
    return ON_DEMAND.get(letters, STANDARD)


def needed(configuration: Configuration, known: Catalogue) -> dict[Quota, int]:
    """vCPUs of each quota, with the head node and all nodes at once. Types that are not known count nothing."""
    counts: dict[Quota, int] = {}
    head = configuration.at("HeadNode", "InstanceType")
    wanted = [(str(head), False, 1)] if head else []
    for queue in configuration.queues:
        for resource in queue.resources:
            largest = max(
                resource.types, key=lambda name: kind.processors if (kind := known.find(name)) else 0, default=""
            )
            wanted.append((largest, queue.spot, resource.most))
    for name, spot, count in wanted:
        kind = known.find(name)
        if kind:
            quota = quota_of(name, spot)
            counts[quota] = counts.get(quota, 0) + kind.processors * count
    return counts
