"""The network of a cluster, as a stack of CloudFormation: network.yaml beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcframe.aws import AwsError, explaining

TEMPLATE = Path(__file__).parent / "network.yaml"


def create(cloudformation: Any, name: str, zone: str, tags: Mapping[str, str]) -> None:
    """Begin to make it; all that it consists of gets the tags. Not collective. Raises AwsError."""
    with explaining(f"creating the stack {name}"):
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": "Zone", "ParameterValue": zone}],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )


def wait(cloudformation: Any, name: str) -> None:
    """Until it is there, some three minutes. Not collective. Raises AwsError where it failed."""
    from botocore.exceptions import WaiterError

    look = f"aws cloudformation describe-stack-events --stack-name {name}"
    try:
        with explaining(f"waiting for the stack {name}"):
            cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 10})
    except AwsError as error:
        failed = isinstance(error.__cause__, WaiterError)
        raise AwsError(
            f"the stack {name} was not made; {look}" if failed else f"{error}; {look}", error.code
        ) from error
