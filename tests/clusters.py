"""Answers that clusters of tests are made from: one for each kind of node, and a mix with Spot."""

from dataclasses import replace

from hpcframe.launch.cluster.answers import Answers
from hpcframe.launch.cluster.sizing import FileSystem

SUBNET = "subnet-0123456789abcdef0"
EFA_OF_SPOT = ("c7a.48xlarge", "m7a.48xlarge", "r7a.48xlarge")  # of equally many cores

_FIRST = Answers(
    region="us-east-2",
    instances=("hpc8a.96xlarge",),
    nodes=8,
    bucket="hpcframe-data",
    owner="me",
    files=FileSystem(4800, 250),
    head_subnet=SUBNET,
    compute_subnet=SUBNET,
)

CONFIGURATIONS = {
    "hpc8a": _FIRST,
    "hpc7a": replace(_FIRST, instances=("hpc7a.96xlarge",)),
    "hpc6a": replace(_FIRST, instances=("hpc6a.48xlarge",)),
    "hpc6id": replace(_FIRST, instances=("hpc6id.32xlarge",), files=FileSystem(1200, 1000)),
    "hpc7g": replace(_FIRST, region="us-east-1", bucket="hpcframe-data-us-east-1", instances=("hpc7g.16xlarge",)),
    "c8gn": replace(_FIRST, instances=("c8gn.48xlarge",)),
    "r7iz": replace(_FIRST, instances=("r7iz.32xlarge",)),
    "Spot mix": replace(_FIRST, spot=EFA_OF_SPOT),
}


def answers(name: str, **more: object) -> Answers:
    """Those of that name, with others in place of some."""
    return replace(CONFIGURATIONS[name], **more)
