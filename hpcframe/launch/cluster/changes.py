"""What a change of a configuration asks for. Pure.

Source: the update policies of ParallelCluster's schema (3.16); tests compare with those of the version installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from hpcframe.launch.cluster.document import Configuration


class Effect(IntEnum):
    """What a change asks for, the mildest first."""

    LIVE = 0
    DRAIN = 1
    END = 2
    STOP = 3
    REPLACE = 4
    DATA = 5


MEANING = {
    Effect.LIVE: "live: jobs go on",
    Effect.DRAIN: "the queue is drained: its jobs end, then its nodes are replaced (QueueUpdateStrategy: DRAIN)",
    Effect.END: "running jobs of the queue are ended (QueueUpdateStrategy: TERMINATE)",
    Effect.STOP: "the fleet must be stopped: pcluster update-compute-fleet --status STOP_REQUESTED, when no job runs",
    Effect.REPLACE: "not possible in place: make a second cluster, and delete this one",
    Effect.DATA: "replaces data: export first (hpcframe stage export), then make a second file system or cluster",
}

QUEUE, RESOURCE = r"Scheduling/SlurmQueues\[\]", r"Scheduling/SlurmQueues\[\]/ComputeResources\[\]"
STORE = r"SharedStorage\[\]"
ANY = r"(/.*|\[\].*)?"

# The first that fits a path counts; what none fits is not possible in place.
POLICIES: Sequence[tuple[str, Effect]] = [
    # the head node
    (r"HeadNode/Networking/(Additional)?SecurityGroups(\[\])?", Effect.LIVE),
    (r"HeadNode/(Ssh|Dcv)/AllowedIps", Effect.LIVE),
    (rf"HeadNode/CustomActions/OnNodeUpdated{ANY}", Effect.LIVE),
    (r"HeadNode/Iam/InstanceProfile", Effect.REPLACE),
    (rf"HeadNode/Iam{ANY}", Effect.LIVE),
    # Slurm
    (rf"Scheduling/(ScalingStrategy|SlurmSettings/(QueueUpdateStrategy|ExternalSlurmdbd{ANY}))", Effect.LIVE),
    (rf"Scheduling/SlurmSettings/(CustomSlurmSettings(IncludeFile)?{ANY}|Database/DatabaseName)", Effect.LIVE),
    (
        rf"Scheduling/SlurmSettings/(ScaledownIdletime|EnableMemoryBasedScheduling|Database{ANY}|MungeKeySecretArn)",
        Effect.STOP,
    ),
    # queues
    (rf"{QUEUE}/Name|{RESOURCE}/Name", Effect.REPLACE),
    (rf"({QUEUE}|{RESOURCE})/(HealthChecks|CustomSlurmSettings){ANY}", Effect.LIVE),
    (rf"{QUEUE}/(JobExclusiveAllocation|Networking/(Additional)?SecurityGroups(\[\])?)", Effect.LIVE),
    (rf"{QUEUE}/Iam/InstanceProfile", Effect.STOP),
    (rf"{QUEUE}/Iam{ANY}", Effect.LIVE),
    (rf"{RESOURCE}/(Static|Dynamic)NodePriority", Effect.LIVE),
    (rf"{RESOURCE}/(InstanceType|Instances{ANY}|DisableSimultaneousMultithreading)", Effect.STOP),
    (rf"{QUEUE}/Networking/AssignPublicIp", Effect.REPLACE),
    (rf"{QUEUE}/.*", Effect.DRAIN),
    # files
    (rf"{STORE}/(Name|StorageType)", Effect.DATA),
    (rf"{STORE}/MountDir", Effect.STOP),
    (rf"{STORE}/EbsSettings/(Iops|Throughput|DeletionPolicy)", Effect.LIVE),
    (rf"{STORE}/EfsSettings/(ThroughputMode|ProvisionedThroughput|DeletionPolicy)", Effect.LIVE),
    (
        rf"{STORE}/FsxLustreSettings/(WeeklyMaintenanceStartTime|AutomaticBackupRetentionDays|"
        r"DailyAutomaticBackupStartTime|DataCompressionType|DeletionPolicy)",
        Effect.LIVE,
    ),
    (
        rf"{STORE}/FsxLustreSettings/DataRepositoryAssociations\[\]/"
        r"(ImportedFileChunkSize|AutoExportPolicy|AutoImportPolicy)(\[\])?",
        Effect.LIVE,
    ),
    (rf"{STORE}/FsxLustreSettings/DataRepositoryAssociations\[\]/.*", Effect.REPLACE),
    (rf"{STORE}/.*", Effect.DATA),
    # all of it
    (r"Monitoring/Logs/CloudWatch/(RetentionInDays|DeletionPolicy)|Monitoring/(Dashboards|Alarms)/.*", Effect.LIVE),
    (r"Monitoring/DetailedMonitoring", Effect.STOP),
    (r"Iam/(Roles/LambdaFunctionsRole|PermissionsBoundary)|AdditionalResources", Effect.LIVE),
    (r"Tags\[\](/Value)?", Effect.LIVE),
    (r"DeploymentSettings/DisableSudoAccessForDefaultUser", Effect.STOP),
]


@dataclass(frozen=True)
class Change:
    """A value that differs.

    Attributes:
        where: its path, with names of queues, resources and file systems.
        before, after: None: it is not there.
    """

    where: str
    before: Any
    after: Any
    effect: Effect


def policy(path: str) -> Effect:
    """What a change at a path of the schema asks for; lists are written with [].

    >>> policy("Scheduling/SlurmQueues[]/ComputeResources[]/Efa/Enabled").name, policy("Region").name
    ('DRAIN', 'REPLACE')
    """
    return next((effect for pattern, effect in POLICIES if re.fullmatch(pattern, path)), Effect.REPLACE)


def changes(before: Configuration, after: Configuration) -> list[Change]:
    """All that differs, what asks for most first."""
    found = [_in_context(each, before, after) for each in _differences(before.body, after.body, "", "")]
    return sorted(found, key=lambda change: -change.effect)


def _in_context(change: Change, before: Configuration, after: Configuration) -> Change:
    """A change, with what it asks for beside the others."""
    effect = change.effect
    if change.where.endswith("/SubnetIds") and any(_is_made(store) for store in before.storage):
        effect = Effect.DATA  # the file system is in the subnet of the queues, and would be made anew in another
    elif re.fullmatch(r"SharedStorage\[[^]]*\]", change.where) and change.after is None:
        folders = [store.get("MountDir") for store in after.storage]
        effect = Effect.DATA if _is_made(change.before) and change.before.get("MountDir") in folders else effect
    elif change.where.endswith("/MinCount") and effect is Effect.LIVE:
        effect = effect if _grows_alike(change, before, after) else Effect.STOP
    elif re.search(r"/PlacementGroup(/|$)", change.where) and not _is_on(change.after):
        return replace(change, effect=Effect.STOP)  # whatever the strategy is: the group is deleted
    if effect in (Effect.DRAIN, Effect.STOP) and _can_end(change, effect):
        drains = effect is Effect.DRAIN or change.where.startswith("SharedStorage")
        effect = _by_strategy(Effect.DRAIN if drains else Effect.STOP, after)
    return replace(change, effect=effect)


def _is_made(store: Mapping[str, Any]) -> bool:
    """Whether ParallelCluster makes the file system, which therefore is in its hands."""
    settings = next((value for key, value in store.items() if key.endswith("Settings")), None) or {}
    return not any(key.endswith("Id") and key != "KmsKeyId" for key in settings)


def _is_on(placement: Any) -> bool:
    return placement is True or (isinstance(placement, Mapping) and placement.get("Enabled") is True)


def _grows_alike(change: Change, before: Configuration, after: Configuration) -> bool:
    """Whether the most of a resource grows by as much as its least does: else nodes that are there become others."""
    most = [_counts(configuration).get(change.where.removesuffix("/MinCount"), 0) for configuration in (before, after)]
    return most[1] - most[0] >= (change.after or 0) - (change.before or 0)


def _counts(configuration: Configuration) -> dict[str, int]:
    """The most nodes of each resource, by its path."""
    return {
        f"Scheduling/SlurmQueues[{queue.name}]/ComputeResources[{resource.section.get('Name')}]": resource.most
        for queue in configuration.queues
        for resource in queue.resources
    }


def _can_end(change: Change, effect: Effect) -> bool:
    """Whether QueueUpdateStrategy has a say: in what drains, in nodes that go, and in what is mounted."""
    if re.search(r"^SharedStorage\[[^]]*\](/MountDir)?$", change.where):
        return True
    fewer = re.search(r"/(MinCount|MaxCount)$|SlurmQueues\[[^]]*\](/ComputeResources\[[^]]*\])?$", change.where)
    return effect is Effect.DRAIN or bool(fewer)


def _by_strategy(effect: Effect, after: Configuration) -> Effect:
    strategy = after.at("Scheduling", "SlurmSettings", "QueueUpdateStrategy")
    if strategy == "TERMINATE":
        return Effect.END
    return effect if strategy == "DRAIN" else Effect.STOP


def _differences(before: Any, after: Any, path: str, where: str) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(key), after.get(key), _below(path, key), _below(where, key))
    elif _named(before) or _named(after):
        yield from _of_lists(before or [], after or [], path, where)
    elif isinstance(before or after, Mapping):  # a section that came or went: what is in it did
        for key, value in (before or after).items():
            old, new = (value, None) if before else (None, value)
            yield from _differences(old, new, _below(path, key), _below(where, key))
    else:
        listed = isinstance(before or after, list) and isinstance((before or after)[0], Mapping)
        yield Change(where, before, after, _effect(path + "[]" * listed, before, after))


def _of_lists(before: Sequence[Any], after: Sequence[Any], path: str, where: str) -> Iterator[Change]:
    """Elements belong together by their names; one that came or went is one change."""
    old, new = ({_name(each): each for each in elements} for elements in (before, after))
    for name in dict.fromkeys([*old, *new]):
        here = f"{where}[{name}]"
        if name in old and name in new:
            yield from _differences(old[name], new[name], f"{path}[]", here)
        else:
            yield Change(here, old.get(name), new.get(name), _coming(f"{path}[]", old.get(name), new.get(name)))


def _coming(path: str, before: Any, after: Any) -> Effect:
    """What an element of a list asks for that came or went."""
    if re.fullmatch(rf"{QUEUE}|{RESOURCE}", path):
        return Effect.STOP if after is None else Effect.LIVE
    if re.fullmatch(STORE, path):
        return Effect.DATA if after is None and not _stays(before) else Effect.STOP
    if path == "Tags[]" or path.endswith("DataRepositoryAssociations[]"):
        return Effect.LIVE
    return policy(path)


def _stays(store: Mapping[str, Any]) -> bool:
    """Whether a file system outlives its line in the configuration."""
    settings = next((value for key, value in store.items() if key.endswith("Settings")), None) or {}
    return settings.get("DeletionPolicy") in ("Retain", "Snapshot") or not _is_made(store)


def _effect(path: str, before: Any, after: Any) -> Effect:
    counted = re.fullmatch(rf"{RESOURCE}/(MinCount|MaxCount)", path)
    if counted and isinstance(before, int) and isinstance(after, int) and after >= before:
        return Effect.LIVE  # nodes are added only
    return Effect.STOP if counted else policy(path)


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) and _name(each) for each in value)


def _name(element: Mapping[str, Any]) -> str:
    return str(element.get("Name") or element.get("Key") or "")


def _below(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def describe(found: Sequence[Change]) -> str:
    """For people: what each change asks for, and then all of them together."""
    if not found:
        return "no difference"
    lines = []
    for effect in sorted({change.effect for change in found}, reverse=True):
        lines.append(MEANING[effect])
        for change in found:
            if change.effect is effect:
                lines.append(f"  {change.where}: {_short(change.before)} -> {_short(change.after)}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
