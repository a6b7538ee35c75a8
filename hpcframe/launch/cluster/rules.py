"""What hpcframe asks of a configuration beyond what ParallelCluster does. Pure.

A rule yields what is wrong, or what could not be told; one that yields nothing has passed. ParallelCluster's own
validators know neither which Availability Zones offer a type, nor what tightly coupled MPI needs, nor what it costs.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hpcframe.launch.catalogue import Catalogue, InstanceType
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.cluster import regions, sizing
from hpcframe.launch.cluster.document import Configuration, Queue, Resource, at, items
from hpcframe.launch.cluster.quotas import needed

TAGS = ("Project", "Team", "Environment", "Owner", "TimeToLive")
LOOK_UP = "aws ec2 describe-subnets --subnet-ids {} --query 'Subnets[].AvailabilityZoneId'"


@dataclass(frozen=True)
class Context:
    """What a configuration alone does not tell.

    Attributes:
        zones: ids of the Availability Zones of subnets; "": there is no such subnet; empty: not known.
        quotas: of the account, vCPUs by code; empty: not known.
    """

    catalogue: Catalogue
    zones: Mapping[str, str] = field(default_factory=dict)
    quotas: Mapping[str, float] = field(default_factory=dict)
    today: datetime.date = field(default_factory=datetime.date.today)


Rule = Callable[[Configuration, Context], Iterator[Finding]]


def fail(found: str, remedy: str) -> Finding:
    return Finding("FAIL", found, remedy)


def check(configuration: Configuration, context: Context) -> list[tuple[str, Finding]]:
    """What every rule has found, with its name; PASS where it found nothing."""
    results: list[tuple[str, Finding]] = []
    for name, rule in RULES.items():
        found = list(rule(configuration, context))
        results += [(name, each) for each in found] or [(name, Finding("PASS", (rule.__doc__ or "").rstrip(".")))]
    return results


# -- where ----------------------------------------------------------------------------------------------------------


def placeholders(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Every value is filled in."""
    for value in sorted(set(re.findall(r'"(subnet-(?:OF-)[A-Z-]+|\$\{\w+\})"', json.dumps(configuration.body)))):
        yield fail(
            f"{value} is still to be filled in",
            "write your own there: aws ec2 describe-subnets; or make a network: hpcframe cluster network --help",
        )


def partition(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Region, zones and names of resources are of one part of AWS."""
    region = configuration.region
    if not regions.is_region(region):
        yield fail(f"Region: {region or 'missing'} is no region", "write one such as us-east-2")
        return
    own = regions.partition(region)
    for name in sorted(set(re.findall(r"arn:([\w-]+):", json.dumps(configuration.body)))):
        if name != own:
            yield fail(f"a name begins with arn:{name}:, and {region} is in {own}", f"write arn:{own}:")
    for subnet, zone in context.zones.items():
        if zone and not zone.startswith(regions.zone_prefix(region)):
            yield fail(f"{subnet} is in {zone}, which is not in {region}", "use a subnet of that region")


def offered(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """The zone of the nodes has every type."""
    region = configuration.region
    for subnet in (subnet for subnet, zone in context.zones.items() if not zone):
        yield fail(f"{subnet} is not there in {region}", f"aws ec2 describe-subnets --region {region} lists yours")
    for queue in configuration.queues:
        for resource in queue.resources:
            for name in resource.types:
                yield from _offered(context, region, queue, resource, name)


def _offered(context: Context, region: str, queue: Queue, resource: Resource, name: str) -> Iterator[Finding]:
    kind = context.catalogue.find(name)
    if kind is None:
        yield Finding("SKIP", f"{name} is not in the catalogue", f"hpcframe instances --refresh {name}")
        return
    if region not in context.catalogue.regions():
        yield Finding("SKIP", f"the catalogue has no {region}", f"hpcframe instances --refresh --region {region}")
        return
    zones = kind.zones.get(region, [])
    if not zones:
        others = ", ".join(kind.zones)
        yield fail(f"{resource.where}: {name} is not offered in {region}", f"it is in {others}; or take another type")
        return
    for subnet in queue.subnets:
        zone = context.zones.get(subnet)
        if zone is None:
            where = f"{name} is in {', '.join(zones)} only; the zone of {subnet} is not known here"
            if len(zones) < 3:
                yield Finding("SKIP", where, f"give --zone, or look: {LOOK_UP.format(subnet)}")
        elif zone and zone not in zones:
            yield fail(
                f"{resource.where}: {name} is not offered in {zone}, where {subnet} is",
                f"use a subnet in {' or '.join(zones)}",
            )


# -- tightly coupled ------------------------------------------------------------------------------------------------


def efa(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Ranks talk by EFA, within one subnet and its zone, side by side."""
    for queue in configuration.queues:
        for resource in queue.resources:
            kinds = _kinds(resource, context)
            without = [kind.name for kind in kinds if not kind.efa]
            if resource.efa and without:
                yield fail(f"{resource.where}: {', '.join(without)} has no EFA", "Efa: Enabled: false, or another type")
            if not resource.efa and kinds and not without:
                yield fail(f"{resource.where}: EFA is off", "Efa: Enabled: true; it costs nothing")
            if resource.efa and len(queue.subnets) > 1:
                yield fail(f"{queue.where}: EFA does not leave a subnet, and it has {len(queue.subnets)}", "leave one")
            if resource.efa and not queue.spot and at(resource.placement, "Enabled") is not True:
                yield fail(
                    f"{resource.where}: its nodes are not placed side by side",
                    "Networking: PlacementGroup: Enabled: true",
                )


def smt(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """A rank has a core of its own."""
    for resource in configuration.resources:
        two = [kind.name for kind in _kinds(resource, context) if kind.threads_a_core > 1]
        if two and resource.section.get("DisableSimultaneousMultithreading") is not True:
            yield fail(
                f"{resource.where}: {', '.join(two)} shows two hardware threads a core, and ranks would share one",
                "DisableSimultaneousMultithreading: true",
            )


def alike(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """One program runs on all nodes, and a job may count on its cores."""
    head = context.catalogue.find(str(configuration.at("HeadNode", "InstanceType")))
    for resource in configuration.resources:
        kinds = _kinds(resource, context)
        for kind in kinds:
            if head and kind.architecture != head.architecture:
                yield fail(
                    f"{resource.where}: {kind.name} is {kind.architecture}, the head node {head.architecture}",
                    "take types of one architecture, or make two clusters",
                )
        if len({kind.cores for kind in kinds}) > 1:
            told = ", ".join(f"{kind.name} has {kind.cores}" for kind in kinds)
            yield fail(f"{resource.where}: its types have different numbers of cores ({told})", "take equal ones")


def underpopulated(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """No type has idle cores by design."""
    for resource in configuration.resources:
        for kind in _kinds(resource, context):
            full = _full(kind, context.catalogue)
            if full:
                yield Finding(
                    "PASS",
                    f"{resource.where}: {kind.name} costs what {full.name} does, {kind.cores} of {full.cores} cores",
                    f"{full.name} with --ranks-per-node {kind.cores} spreads ranks over dies as well, and can do more",
                )


def _full(kind: InstanceType, known: Catalogue) -> InstanceType | None:
    """The type that has more cores for the same money."""
    same = [
        each
        for each in known.types
        if (each.family, each.gib, each.price) == (kind.family, kind.gib, kind.price) and each.cores > kind.cores
    ]
    return max(same, key=lambda each: each.cores, default=None)


def exclusive(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Jobs do not share nodes."""
    for queue in configuration.queues:
        if queue.section.get("JobExclusiveAllocation") is not True:
            yield fail(f"{queue.where}: two jobs may share a node and its memory", "JobExclusiveAllocation: true")


# -- Spot, idle nodes, quotas ---------------------------------------------------------------------------------------


def spot(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Spot is asked for types that have it."""
    for queue in configuration.queues:
        if not queue.spot:
            continue
        for resource in queue.resources:
            never = [kind.name for kind in _kinds(resource, context) if not kind.spot]
            if never:
                yield fail(
                    f"{resource.where}: AWS has no Spot of {', '.join(never)}",
                    "CapacityType: ONDEMAND, or a type of which `hpcframe instances` says that there is",
                )


def memory_scheduling(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Preempted Spot jobs start again."""
    # github.com/aws/aws-parallelcluster, issues 5731 and 6641: jobs wait in BadConstraints for ever.
    on = configuration.at("Scheduling", "SlurmSettings", "EnableMemoryBasedScheduling") is True
    if on and any(queue.spot for queue in configuration.queues):
        yield fail(
            "EnableMemoryBasedScheduling with Spot: preempted jobs may wait in BadConstraints for ever",
            "EnableMemoryBasedScheduling: false; jobs have whole nodes",
        )


def idle(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Nothing runs while there are no jobs."""
    for resource in configuration.resources:
        if resource.least > 0:
            price = sum(filter(None, (_price(kind, configuration) for kind in _kinds(resource, context)[:1])))
            cost = f", {resource.least * price:.2f} USD an hour" if price else ""
            yield fail(f"{resource.where}: {resource.least} node(s) run without a job{cost}", "MinCount: 0")
    minutes = configuration.at("Scheduling", "SlurmSettings", "ScaledownIdletime")
    if isinstance(minutes, int) and not 1 <= minutes <= 60:
        yield fail(f"ScaledownIdletime: {minutes}: nodes without a job stay", "10 (minutes)")


def _price(kind: InstanceType, configuration: Configuration) -> float:
    found = kind.price_in(configuration.region)
    return found[0] if found else 0.0


def updates(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """A changed queue lets its jobs end."""
    strategy = configuration.at("Scheduling", "SlurmSettings", "QueueUpdateStrategy")
    if strategy != "DRAIN":
        what = "ends running jobs" if strategy == "TERMINATE" else "needs all queues stopped"
        yield fail(f"QueueUpdateStrategy: {strategy or 'missing'}: a change of a queue {what}", "DRAIN")


def quotas(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """The account's quotas are enough for all nodes at once."""
    for quota, processors in needed(configuration, context.catalogue).items():
        has = context.quotas.get(quota.code)
        ask = (
            f"aws service-quotas request-service-quota-increase --service-code ec2 --region {configuration.region} "
            f"--quota-code {quota.code} --desired-value {processors}"
        )
        if has is None:
            look = ask.replace("request-service-quota-increase", "get-service-quota").partition(" --desired")[0]
            yield Finding("SKIP", f"all nodes at once need {processors} vCPUs of {quota.name}", look)
        elif has < processors:
            yield fail(f"all nodes at once need {processors} vCPUs of {quota.name}, the account has {has:g}", ask)


# -- files ----------------------------------------------------------------------------------------------------------


def files(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Checkpoints are on FSx for Lustre that survives, and reaches S3."""
    lustre = [(name, each) for name, each in _stores(configuration) if each.get("StorageType") == "FsxLustre"]
    if not lustre:
        yield fail("no node has FSx for Lustre: ranks would write checkpoints through one server", "add SharedStorage")
    for name, store in lustre:
        section = store.get("FsxLustreSettings")
        if at(section, "FileSystemId"):
            yield Finding(
                "SKIP",
                f"{name} exists already",
                f"aws fsx describe-file-systems --file-system-ids {at(section, 'FileSystemId')}",
            )
            continue
        yield from _lustre(name, section)


def _stores(configuration: Configuration) -> Iterator[tuple[str, Mapping[str, object]]]:
    for store in configuration.storage:
        yield f"storage {store.get('Name', '?')}", store


def _lustre(name: str, section: object) -> Iterator[Finding]:
    kind, size, speed = (at(section, key) for key in ("DeploymentType", "StorageCapacity", "PerUnitStorageThroughput"))
    if kind != "PERSISTENT_2":
        yield fail(
            f"{name}: {kind or 'SCRATCH_2'} loses data with a server, or is slower", "DeploymentType: PERSISTENT_2"
        )
    elif not isinstance(size, int) or not sizing.is_capacity(size):
        yield fail(f"{name}: StorageCapacity: {size}", f"1200, or a multiple of {sizing.STEP} (GiB)")
    elif speed not in sizing.PRICES:
        yield fail(
            f"{name}: PerUnitStorageThroughput: {speed}", f"one of {', '.join(map(str, sizing.PRICES))} (MB/s a TiB)"
        )
    if at(section, "DeletionPolicy") != "Retain":
        yield fail(f"{name}: it is deleted with the cluster, or with its line here", "DeletionPolicy: Retain")
    links = list(items(at(section, "DataRepositoryAssociations")))
    if not links:
        yield fail(
            f"{name}: nothing links it to S3", "add DataRepositoryAssociations, as `hpcframe cluster render` does"
        )
    for link in links:
        if link.get("AutoExportPolicy"):
            yield fail(
                f"{name}: AutoExportPolicy excludes export tasks, which say when a file is in S3",
                "leave it out: `hpcframe stage export` and `hpcframe cluster delete` export, and wait for it",
            )


# -- safety ---------------------------------------------------------------------------------------------------------


def encrypted(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """All disks are encrypted."""
    roots = [("HeadNode", configuration.at("HeadNode"))]
    roots += [(queue.where, queue.section.get("ComputeSettings")) for queue in configuration.queues]
    for where, section in roots:
        if at(section, "LocalStorage", "RootVolume", "Encrypted") is not True:
            yield fail(f"{where}: its root volume is not encrypted", "LocalStorage: RootVolume: Encrypted: true")
    head = configuration.at("HeadNode")
    on_efs = at(head, "SharedStorageType") == "Efs"
    if on_efs and at(head, "SharedStorageEfsSettings", "Encrypted") is not True:
        yield fail("HeadNode: /home is not encrypted", "SharedStorageEfsSettings: Encrypted: true")
    for name, store in _stores(configuration):
        kind = str(store.get("StorageType"))
        if kind in ("Ebs", "Efs") and at(store, f"{kind}Settings", "Encrypted") is not True:
            yield fail(f"{name}: it is not encrypted", f"{kind}Settings: Encrypted: true")


def private(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Nobody reaches a node but by Session Manager."""
    if configuration.at("HeadNode", "Ssh", "KeyName"):
        yield fail("HeadNode: an SSH key", "leave Ssh out: aws ssm start-session --target INSTANCE")
    if configuration.at("HeadNode", "Networking", "ElasticIp"):
        yield fail("HeadNode: a public address", "leave ElasticIp out")
    for queue in configuration.queues:
        if at(queue.section, "Networking", "AssignPublicIp"):
            yield fail(f"{queue.where}: public addresses", "leave AssignPublicIp out")
    policies = [str(each.get("Policy")) for each in items(configuration.at("HeadNode", "Iam", "AdditionalIamPolicies"))]
    if not any("AmazonSSMManagedInstanceCore" in policy for policy in policies):
        yield fail(
            "HeadNode: Session Manager may not reach it", "Iam: AdditionalIamPolicies: AmazonSSMManagedInstanceCore"
        )
    if configuration.at("Imds", "ImdsSupport") != "v2.0":
        yield fail("any request from a node may read the credentials of its role", "Imds: ImdsSupport: v2.0")


def buckets(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Nodes may write to the buckets that are named, and to no other."""
    sections = [("HeadNode", configuration.at("HeadNode"))]
    sections += [(queue.where, queue.section) for queue in configuration.queues]
    for where, section in sections:
        access = list(items(at(section, "Iam", "S3Access")))
        if not access and not at(section, "Iam", "InstanceRole") and not at(section, "Iam", "InstanceProfile"):
            yield fail(f"{where}: checkpoints cannot be staged", "Iam: S3Access: BucketName, EnableWriteAccess: true")
        for each in access:
            if "*" in str(each.get("BucketName")):
                yield fail(f"{where}: S3Access to {each['BucketName']}: buckets of others, too", "name your bucket")


def tagged(configuration: Configuration, context: Context) -> Iterator[Finding]:
    """Tags say whose it is, and until when."""
    tags = configuration.tags
    missing = [name for name in TAGS if not tags.get(name)]
    if missing:
        yield fail(f"Tags: {', '.join(missing)} missing", "add them: nobody knows later what a cluster was for")
    until = tags.get("TimeToLive")
    if until:
        try:
            over = datetime.date.fromisoformat(until) < context.today
        except ValueError:
            yield fail(f"Tags: TimeToLive: {until} is no date", "write one such as 2027-01-31")
        else:
            if over:
                yield fail(f"Tags: TimeToLive: {until} is over", "write a later day, or delete the cluster")


def _kinds(resource: Resource, context: Context) -> list[InstanceType]:
    return [kind for name in resource.types if (kind := context.catalogue.find(name))]


RULES: dict[str, Rule] = {
    "filled in": placeholders,
    "partition": partition,
    "offered": offered,
    "EFA": efa,
    "SMT": smt,
    "alike": alike,
    "cores": underpopulated,
    "exclusive": exclusive,
    "Spot": spot,
    "memory": memory_scheduling,
    "idle": idle,
    "updates": updates,
    "quotas": quotas,
    "files": files,
    "encrypted": encrypted,
    "private": private,
    "buckets": buckets,
    "tags": tagged,
}
