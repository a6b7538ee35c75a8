"""What the AWS account tells of a configuration: zones of its subnets, quotas, outputs of a network's stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hpcframe.aws import AwsError, RefusedError, explaining


def zones(ec2: Any, subnets: Iterable[str]) -> dict[str, str]:
    """Ids of the Availability Zones of subnets; "" for one that is not there. Not collective. Raises AwsError."""
    wanted = sorted(set(subnets))
    with explaining(f"asking for {', '.join(wanted)}"):
        by_id = [{"Name": "subnet-id", "Values": wanted}]
        found = ec2.describe_subnets(Filters=by_id)["Subnets"] if wanted else []
    return {**dict.fromkeys(wanted, ""), **{each["SubnetId"]: each["AvailabilityZoneId"] for each in found}}


def quotas(service_quotas: Any, codes: Iterable[str]) -> dict[str, float]:
    """vCPUs by code of a quota of EC2. Not collective. Raises AwsError."""
    found = {}
    for code in codes:
        with explaining(f"asking for the quota {code}"):
            answer = service_quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)
        found[code] = float(answer["Quota"]["Value"])
    return found


def outputs(cloudformation: Any, stack: str) -> Mapping[str, str]:
    """Of a stack of CloudFormation, by name. Not collective. Raises AwsError."""
    with explaining(f"asking for the stack {stack}"):
        found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}


def zone_name(ec2: Any, zone: str) -> str:
    """How this account calls a zone: us-east-2b, say, for use2-az2. Not collective.

    Raises:
        RefusedError: the region has no such zone.
        AwsError.
    """
    with explaining("asking for Availability Zones"):
        found = ec2.describe_availability_zones()["AvailabilityZones"]
    names = {each["ZoneId"]: str(each["ZoneName"]) for each in found}
    if zone not in names:
        raise RefusedError(f"--zone {zone}: this region has {', '.join(sorted(names))}")
    return names[zone]


def file_systems(fsx: Any, cluster: str) -> list[Mapping[str, Any]]:
    """FSx for Lustre that ParallelCluster made for a cluster. Not collective. Raises AwsError."""
    with explaining("listing file systems"):
        pages = fsx.get_paginator("describe_file_systems").paginate()
        found = [each for page in pages for each in page["FileSystems"]]
    tag = {"Key": "parallelcluster:cluster-name", "Value": cluster}
    return [each for each in found if each.get("FileSystemType") == "LUSTRE" and tag in each.get("Tags", [])]


def check(ec2: Any) -> None:
    """Raises AwsError where AWS does not answer, or takes no credentials of here. Not collective."""
    with explaining("asking AWS"):
        ec2.describe_availability_zones()


def is_there(fsx: Any, file_system: str) -> bool:
    """Whether a file system is still being deleted. Not collective. Raises AwsError; also where that failed."""
    try:
        with explaining(f"asking for {file_system}"):
            found = fsx.describe_file_systems(FileSystemIds=[file_system])["FileSystems"]
    except AwsError as error:
        if error.code == "FileSystemNotFound":
            return False
        raise
    if any(each.get("Lifecycle") == "FAILED" for each in found):
        look = f"aws fsx describe-file-systems --file-system-ids {file_system}"
        raise AwsError(f"{file_system} could not be deleted; {look} says why")
    return bool(found)


def delete_security_groups(ec2: Any, cluster: str) -> list[str]:
    """Delete what ParallelCluster retains beside a file system, and a network cannot be deleted with; their ids. Not
    collective. Raises AwsError."""
    with explaining(f"deleting security groups of {cluster}"):
        by_tag = [{"Name": "tag:parallelcluster:cluster-name", "Values": [cluster]}]
        found = [each["GroupId"] for each in ec2.describe_security_groups(Filters=by_tag)["SecurityGroups"]]
        for group in found:
            ec2.delete_security_group(GroupId=group)
    return found
