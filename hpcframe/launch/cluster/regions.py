"""Regions of AWS, their partitions and the ids of their Availability Zones. Pure."""

from __future__ import annotations

import re

REGION = re.compile(
    r"([a-z]{2}(?:-gov|-iso[bef]?)?)-(north|south|east|west|central|northeast|southeast|northwest|southwest)-(\d)"
)
PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov", "us-iso": "aws-iso", "us-isob": "aws-iso-b"}


def is_region(name: str) -> bool:
    """Whether it has the form of one."""
    return bool(REGION.fullmatch(name))


def partition(region: str) -> str:
    """The part of AWS that a region is in, which names of resources begin with.

    >>> partition("us-east-2"), partition("us-gov-west-1"), partition("cn-north-1")
    ('aws', 'aws-us-gov', 'aws-cn')
    """
    found = REGION.fullmatch(region)
    return PARTITIONS.get(found[1], "aws") if found else "aws"


def zone_prefix(region: str) -> str:
    """How the ids of a region's zones begin.

    >>> zone_prefix("us-east-2"), zone_prefix("ap-southeast-1"), zone_prefix("us-gov-west-1")
    ('use2-', 'apse1-', 'usgw1-')
    """
    found = REGION.fullmatch(region)
    if not found:
        return ""
    direction = "".join(word[0] for word in re.findall("north|south|east|west|central", found[2]))
    return f"{found[1].replace('-gov', 'g').replace('-', '')}{direction}{found[3]}-"
