"""Answers that clusters of tests are made from: one for each kind of node, and a mix with Spot."""

import copy
from dataclasses import replace

from hpcframe.launch.cluster.answers import Answers
from hpcframe.launch.cluster.changes import Effect
from hpcframe.launch.cluster.sizing import FileSystem

SUBNET = "subnet-0123456789abcdef0"
SPOT_TYPES = ("c7a.48xlarge", "m7a.48xlarge", "r7a.48xlarge")  # of equally many cores

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
    "Spot mix": replace(_FIRST, spot=SPOT_TYPES),
}


def answers(name: str, **more: object) -> Answers:
    """Those of that name, with others in place of some."""
    return replace(CONFIGURATIONS[name], **more)


# -- parts of what a configuration is parsed to ---------------------------------------------------------------------


def queue(body, number=0):
    return body["Scheduling"]["SlurmQueues"][number]


def resource(body, number=0):
    return queue(body, number)["ComputeResources"][0]


def lustre(body):
    return body["SharedStorage"][0]["FsxLustreSettings"]


def terminate(body):
    body["Scheduling"]["SlurmSettings"].update(QueueUpdateStrategy="TERMINATE")


def larger_disk(body):
    queue(body)["ComputeSettings"]["LocalStorage"]["RootVolume"].update(Size=100)


CHANGED = {  # what is changed, and what that asks for
    "a tag": (lambda b: b["Tags"][1].update(Value="ocean"), Effect.LIVE),
    "more nodes": (lambda b: resource(b).update(MaxCount=16), Effect.LIVE),
    "fewer nodes": (lambda b: resource(b).update(MaxCount=2), Effect.STOP),
    "a queue more": (
        lambda b: b["Scheduling"]["SlurmQueues"].append({**copy.deepcopy(queue(b)), "Name": "more"}),
        Effect.LIVE,
    ),
    "a queue less": (lambda b: b["Scheduling"]["SlurmQueues"].pop(), Effect.STOP),
    "a disk of nodes": (
        lambda b: queue(b)["ComputeSettings"]["LocalStorage"]["RootVolume"].update(Size=100),
        Effect.DRAIN,
    ),
    "the script": (
        lambda b: queue(b)["CustomActions"]["OnNodeConfigured"].update(Script="s3://other/script"),
        Effect.DRAIN,
    ),
    "another type": (lambda b: resource(b).update(InstanceType="hpc7a.96xlarge"), Effect.STOP),
    "idle time": (lambda b: b["Scheduling"]["SlurmSettings"].update(ScaledownIdletime=20), Effect.STOP),
    "the head node": (lambda b: b["HeadNode"].update(InstanceType="m7i.4xlarge"), Effect.REPLACE),
    "the region": (lambda b: b.update(Region="us-east-1"), Effect.REPLACE),
    "no monitoring": (lambda b: b.pop("Monitoring"), Effect.REPLACE),
    "a larger file system": (lambda b: lustre(b).update(StorageCapacity=9600), Effect.DATA),
    "a file system that stays": (lambda b: b.pop("SharedStorage"), Effect.DRAIN),
    "another subnet": (lambda b: queue(b)["Networking"].update(SubnetIds=["subnet-2"]), Effect.DATA),
    "other types": (
        lambda b: resource(b, 1)["Instances"].pop(),
        Effect.STOP,
    ),
    "more nodes at least": (lambda b: resource(b).update(MinCount=2), Effect.STOP),
    "more nodes at least and at most": (lambda b: resource(b).update(MinCount=2, MaxCount=10), Effect.LIVE),
    "no placement group": (lambda b: queue(b)["Networking"].update(PlacementGroup={"Enabled": False}), Effect.STOP),
    "fewer nodes, whatever runs": (lambda b: (terminate(b), resource(b).update(MaxCount=2)), Effect.END),
    "a disk of nodes, whatever runs": (lambda b: (terminate(b), larger_disk(b)), Effect.END),
    "a disk of nodes, without a strategy": (
        lambda b: (b["Scheduling"]["SlurmSettings"].pop("QueueUpdateStrategy"), larger_disk(b)),
        Effect.STOP,
    ),
    "a file system in place of another": (lambda b: b["SharedStorage"][0].update(Name="fast"), Effect.DATA),
}
