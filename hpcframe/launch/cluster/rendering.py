"""From answers to a configuration of ParallelCluster, in which a comment explains every value. Pure.

Sources: AWS ParallelCluster User Guide, "Cluster configuration file" (3.16); "Get started with EFA and MPI", EC2 User
Guide; FSx for Lustre User Guide, "Linking your file system to an Amazon S3 bucket".
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from hpcframe.launch.catalogue import Catalogue, InstanceType
from hpcframe.launch.cluster.answers import Answers
from hpcframe.launch.cluster.regions import partition

SCRIPT = "hpcframe/node-configured"  # below the bucket: what scripts/node-configured is there
MOUNTED = "/fsx"


def render(answers: Answers, known: Catalogue) -> str:
    """The file. Raises InputError for an answer that no cluster can be made from."""
    answers.check(known)
    parts = [
        _general(answers),
        _head(answers, known),
        _scheduling(answers, known),
        _storage(answers),
        _monitoring(),
        _tags(answers.tags()),
    ]
    return "\n".join(parts)


def _general(answers: Answers) -> str:
    return textwrap.dedent(f"""\
        # A cluster for tightly coupled MPI, by `hpcframe cluster render`. It is yours to change; after that:
        #   hpcframe cluster validate FILE      what is wrong with it, before it costs anything
        #   hpcframe cluster diff OLD NEW       what a change to a cluster at work asks for
        #   hpcframe cluster create NAME FILE   says what comes and what it costs, and asks
        Region: {answers.region}  # where all of it is; types and prices differ between regions
        Image:
          Os: alinux2023  # has the drivers of EFA and Lustre that AWS tests first
        Imds:
          ImdsSupport: v2.0  # the credentials of the nodes' role are given by token only
        """)


def _head(answers: Answers, known: Catalogue) -> str:
    head = known.get(answers.head(known))
    policy = f"arn:{partition(answers.region)}:iam::aws:policy/AmazonSSMManagedInstanceCore"
    return textwrap.dedent(f"""\
        HeadNode:
          InstanceType: {head.name}  # {head.cores} cores and {head.gib:g} GiB: Slurm, logins and builds, no ranks
          Imds:
            Secured: true  # of its users only root and the first one may ask for the role's credentials
          SharedStorageType: Efs  # /home is on EFS: it outlives a fault of this node, and many nodes read it at once
          SharedStorageEfsSettings:
            Encrypted: true  # at rest; it cannot be switched on later
          LocalStorage:
            RootVolume:
              Size: 100  # GiB: compilers, containers and logs
              VolumeType: gp3  # 3,000 requests a second at any size
              Encrypted: true  # at rest
          Networking:
            SubnetId: {answers.head_subnet}  # private: nobody reaches it but by Session Manager
          CustomActions:
            OnNodeConfigured:
              Script: s3://{answers.bucket}/{SCRIPT}  # `hpcframe cluster create` puts it there
        """) + textwrap.indent(_role(answers, policy), "  ")


def _role(answers: Answers, policy: str = "") -> str:
    """What nodes may do."""
    login = f"  AdditionalIamPolicies:\n    - Policy: {policy}  # login without SSH\n" if policy else ""
    return (
        f"Iam:\n{login}"
        "  S3Access:\n"
        f"    - BucketName: {answers.bucket}  # checkpoints are staged there: docs/staging.md\n"
        "      EnableWriteAccess: true  # else they could only be read\n"
    )


def _scheduling(answers: Answers, known: Catalogue) -> str:
    text = textwrap.dedent("""\
        Scheduling:
          Scheduler: slurm  # hpcframe submit, status and cancel talk to it
          ScalingStrategy: all-or-nothing  # a job of 8 nodes starts 8 or none: 7 that wait for one are paid for
          SlurmSettings:
            ScaledownIdletime: 10  # minutes: then a node that has no job is given back
            QueueUpdateStrategy: DRAIN  # a changed queue lets its jobs end
            EnableMemoryBasedScheduling: false  # jobs have whole nodes; preempted Spot jobs start again
            CustomSlurmSettings:
              - PriorityType: priority/multifactor  # so that a job's queue counts
              - PriorityWeightPartition: 100000  # and counts more than anything else
              - MessageTimeout: 60  # s: hundreds of nodes that start at once answer slowly
          SlurmQueues:
        """)
    text += textwrap.indent(_queue("mpi", answers, _on_demand(answers, known), spot=False), "    ")
    if answers.spot:
        text += textwrap.indent(_queue("spot", answers, _spot(answers, known), spot=True), "    ")
    return text


def _queue(name: str, answers: Answers, resources: str, spot: bool) -> str:
    capacity = "SPOT  # for much less, but AWS may take nodes back: hpcframe requeues and goes on"
    capacity = capacity if spot else "ONDEMAND  # one node that is taken back ends a tightly coupled job on all"
    strategy = (
        "AllocationStrategy: price-capacity-optimized  # cheap, and least likely to be taken back\n" if spot else ""
    )
    first = "10  # after the queue mpi" if spot else "100  # before a queue of Spot"
    return f"- Name: {name}  # hpcframe submit --partition {name}\n" + textwrap.indent(
        f"CapacityType: {capacity}\n{strategy}"
        "JobExclusiveAllocation: true  # jobs do not share nodes, nor the bandwidth of their memory\n"
        "ComputeSettings:\n"
        "  LocalStorage:\n"
        "    RootVolume:\n"
        "      Size: 60  # GiB: the system; data is on FSx\n"
        "      VolumeType: gp3  # 3,000 requests a second at any size\n"
        "      Encrypted: true  # at rest\n"
        f"ComputeResources:\n{resources}"
        "Networking:\n"
        "  SubnetIds:\n"
        f"    - {answers.compute_subnet}  # one, so one Availability Zone: EFA does not leave it\n"
        f"{_placement(spot)}"
        "CustomActions:\n"
        "  OnNodeConfigured:\n"
        f"    Script: s3://{answers.bucket}/{SCRIPT}  # installs Python, and tests EFA and {MOUNTED}\n"
        f"{_role(answers)}"
        "CustomSlurmSettings:\n"
        f"  PriorityJobFactor: {first}\n",
        "  ",
    )


def _placement(spot: bool) -> str:
    if spot:
        return "  PlacementGroup:\n    Enabled: false  # Spot capacity is rarely side by side: jobs would wait for it\n"
    return "  PlacementGroup:\n    Enabled: true  # nodes side by side: the lowest latency between them\n"


def _on_demand(answers: Answers, known: Catalogue) -> str:
    return "".join(_resource(_name(kind), [kind], answers.nodes) for kind in map(known.get, answers.instances))


def _spot(answers: Answers, known: Catalogue) -> str:
    return _resource("mixed", [known.get(name) for name in answers.spot], answers.spot_nodes)


def _name(kind: InstanceType) -> str:
    """Of a compute resource: in names of nodes, so without a dot."""
    return kind.name.replace(".", "-").removesuffix("xlarge") + ("x" if kind.name.endswith("xlarge") else "")


def _resource(name: str, kinds: list[InstanceType], most: int) -> str:
    efa = all(kind.efa for kind in kinds)
    one = kinds[0]
    if len(kinds) == 1:
        types = f"  InstanceType: {one.name}  # {_has(one)}\n"
    else:
        types = "  Instances:  # AWS chooses: the more types, the sooner it has some\n"
        types += "".join(f"    - InstanceType: {kind.name}  # {_has(kind)}\n" for kind in kinds)
    threads = any(kind.threads_a_core > 1 for kind in kinds)
    smt = "  DisableSimultaneousMultithreading: true  # a rank a core: a second thread has no bandwidth of its own\n"
    return textwrap.indent(
        f"- Name: {name}  # in the names of its nodes\n{types}"
        "  MinCount: 0  # nothing runs, and nothing costs, while there are no jobs\n"
        f"  MaxCount: {most}  # nodes that can run at once, and so what it can cost\n"
        + (smt if threads else "")
        + ("  Efa:\n    Enabled: true  # the network between ranks; without it they talk by TCP\n" if efa else ""),
        "  ",
    )


def _has(kind: InstanceType) -> str:
    return f"{kind.cores} cores, {kind.gib:g} GiB, {kind.gbps:g} Gbps"


def _storage(answers: Answers) -> str:
    files = answers.files
    return textwrap.dedent(f"""\
        SharedStorage:
          - Name: scratch  # what it is called in the console
            StorageType: FsxLustre  # parallel: each server takes its part of a file
            MountDir: {MOUNTED}  # checkpoints, output and data: all ranks write to it at once
            FsxLustreSettings:
              DeploymentType: PERSISTENT_2  # a server that fails is replaced, and nothing is lost; always encrypted
              StorageCapacity: {files.capacity}  # GiB; 1200, or a multiple of 2400
              PerUnitStorageThroughput: {files.throughput}  # MB/s a TiB: {files.rate:.0f} MB/s in all
              DataCompressionType: LZ4  # costs no time, and smooth fields take less room
              DeletionPolicy: Retain  # it outlives the cluster, and costs until it is deleted
              DataRepositoryAssociations:
                - Name: all  # of the link
                  FileSystemPath: /  # all of {MOUNTED}: it shows what is in S3, and reads that when it is asked for
                  DataRepositoryPath: s3://{answers.bucket}/fsx  # where the files of {MOUNTED} are in S3
                  BatchImportMetaDataOnCreate: true  # what is there already, too
                  AutoImportPolicy: [NEW, CHANGED, DELETED]  # and what others put there or remove
                  # No AutoExportPolicy: it excludes the export tasks that `hpcframe stage export` and
                  # `hpcframe cluster delete` wait for, and says nothing of when a file is in S3.
        """)


def _monitoring() -> str:
    return textwrap.dedent("""\
        Monitoring:
          Logs:
            CloudWatch:
              Enabled: true  # of Slurm, and of how nodes started: there after they are gone
              RetentionInDays: 30  # then they are deleted
              DeletionPolicy: Retain  # also after the cluster is gone: what went wrong is asked then
          Dashboards:
            CloudWatch:
              Enabled: true  # the head node and its errors at a glance, for 3 USD a month
          Alarms:
            Enabled: true  # the head node: processor, memory, disk
        """)


def _tags(tags: Mapping[str, str]) -> str:
    meant = {
        "Project": "what it is for: a budget can be set on this tag",
        "Team": "who pays",
        "Environment": "dev, test or prod",
        "Owner": "who is asked",
        "TimeToLive": "the day after which nobody needs it",
    }
    lines: Iterable[str] = (
        f'  - Key: {key}  # of the five that hpcframe asks for\n    Value: "{value}"  # {meant[key]}\n'
        for key, value in tags.items()
    )
    return "Tags:  # of everything that the cluster consists of\n" + "".join(lines)
