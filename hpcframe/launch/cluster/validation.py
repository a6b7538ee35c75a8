"""All that is known to be wrong with a configuration: by hpcframe's rules, with what the account tells, and by
ParallelCluster itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcframe.aws import AwsError, client
from hpcframe.launch.catalogue import catalogue
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.cluster import account, pcluster
from hpcframe.launch.cluster.document import Configuration
from hpcframe.launch.cluster.quotas import needed
from hpcframe.launch.cluster.rendering import SCRIPT
from hpcframe.launch.cluster.rule import Context
from hpcframe.launch.cluster.rules import check

MEANT = {"KeyPairValidator"}  # warns that there is no SSH key: logins are by Session Manager


@dataclass(frozen=True)
class Asked:
    """What could be asked.

    Attributes:
        troubles: "" or why AWS does not answer.
    """

    context: Context
    troubles: str = ""


def ask(configuration: Configuration, zone: str = "", offline: bool = False) -> Asked:
    """What the account tells. Not collective.

    Args:
        zone: id of the zone of all subnets; "": it is asked for.
    """
    known = catalogue()
    subnets = {subnet for queue in configuration.queues for subnet in queue.subnets}
    given = {subnet: zone for subnet in subnets} if zone else {}
    if offline:
        return Asked(Context(known, given), "--offline")
    region = configuration.region
    try:
        ec2 = client("ec2", region=region)
        head = str(configuration.at("HeadNode", "Networking", "SubnetId") or "")
        real = [subnet for subnet in (*subnets, head) if subnet.startswith("subnet-") and "-OF-" not in subnet]
        account.check(ec2)
        zones = {**account.zones(ec2, real), **given}
    except AwsError as error:
        return Asked(Context(known, given), str(error))
    try:
        limits = account.quotas(
            client("service-quotas", region=region), [quota.code for quota in needed(configuration, known)]
        )
    except AwsError:  # that they are not known is what the rule says then, and how to look
        limits = {}
    return Asked(Context(known, zones, limits))


def examine(
    configuration: Configuration, name: str, asked: Asked, suppressed: Sequence[str], at_work: bool = False
) -> list[tuple[str, Finding]]:
    """What every check has found, with its name. Not collective.

    Args:
        name: of the cluster.
        at_work: it is there, and is to be updated.
        suppressed: validators of ParallelCluster to leave out, as in type:KeyPairValidator.

    Raises:
        PclusterError: ParallelCluster is there, and cannot be used.
    """
    return [*check(configuration, asked.context), *_by_pcluster(configuration, name, asked, suppressed, at_work)]


def _by_pcluster(
    configuration: Configuration, name: str, asked: Asked, suppressed: Sequence[str], at_work: bool
) -> list[tuple[str, Finding]]:
    program = pcluster.find()
    if program is None:
        return [("pcluster", Finding("SKIP", "its schema and validators: it is not here", pcluster.INSTALL))]
    number = pcluster.version(program)
    told = ".".join(map(str, number))
    if pcluster.is_slow(number):
        slow = f"version {told} slows tightly coupled jobs down (aws-parallelcluster, issue 7095)"
        return [("pcluster", Finding("FAIL", slow, f"{pcluster.INSTALL}, for a newer one"))]
    wrong = pcluster.schema_errors(program, configuration.path)
    if wrong:
        return [("schema", Finding("FAIL", text, f"look at the User Guide of version {told}")) for text in wrong]
    taken = ("schema", Finding("PASS", f"ParallelCluster {told} takes it"))
    if asked.troubles:
        why = f"those of ParallelCluster ask AWS: {asked.troubles}"
        return [taken, ("validators", Finding("SKIP", why, "mend that, and run this again"))]
    messages = pcluster.validate(program, name, configuration.path, configuration.region, suppressed, at_work)
    return [taken, *_findings(messages)]


def _findings(messages: Sequence[pcluster.Message]) -> list[tuple[str, Finding]]:
    errors = [(each.kind, Finding("FAIL", each.text)) for each in messages if each.level == "ERROR"]
    warnings = [each for each in messages if each.level == "WARNING" and not _is_meant(each)]
    advice = [(each.kind, Finding("PASS", f"a warning: {each.text}")) for each in warnings]
    return [*errors, *advice] or [("validators", Finding("PASS", "they have nothing against it"))]


def _is_meant(message: pcluster.Message) -> bool:
    """Whether a warning is about what is meant so: also that the script of nodes is not in S3 yet, as `create` puts it
    there once all is valid."""
    return message.kind in MEANT or SCRIPT in message.text
