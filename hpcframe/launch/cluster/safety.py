"""Rules on what must not be lost, seen or forgotten: files, disks, access, tags. Pure; see `rules`."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.cluster import sizing
from hpcframe.launch.cluster.document import Configuration, at, items
from hpcframe.launch.cluster.rule import Context, fail

TAGS = ("Project", "Team", "Environment", "Owner", "TimeToLive")

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
