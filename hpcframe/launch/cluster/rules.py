"""What hpcframe asks of a configuration beyond what ParallelCluster does. Pure.

A rule yields what is wrong, or what could not be told; one that yields nothing has passed. ParallelCluster's own
validators know neither which Availability Zones offer a type, nor what tightly coupled MPI needs, nor what it costs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from hpcframe.launch.catalogue import Catalogue, InstanceType
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.cluster import regions, safety
from hpcframe.launch.cluster.document import Configuration, Queue, Resource, at
from hpcframe.launch.cluster.quotas import needed
from hpcframe.launch.cluster.rule import Context, Rule, fail

LOOK_UP = "aws ec2 describe-subnets --subnet-ids {} --query 'Subnets[].AvailabilityZoneId'"


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
    "files": safety.files,
    "encrypted": safety.encrypted,
    "private": safety.private,
    "buckets": safety.buckets,
    "tags": safety.tagged,
}
