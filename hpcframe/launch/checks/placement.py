"""The cluster placement group of an EC2 instance: nodes of one group are near each other in the network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hpcframe.errors import InputError
from hpcframe.launch.checks.finding import Finding
from hpcframe.metadata import DEFAULT, ENDPOINT, FIRMWARE, Metadata, MetadataError, metadata_host

TOKEN = f"$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://{DEFAULT}/latest/api/token)"
BY_HAND = (
    f'curl -s -H "X-aws-ec2-metadata-token: {TOKEN}" http://{DEFAULT}/latest/meta-data/placement/group-name; '
    "404 where there is none"
)
NEAR = "nodes of one run belong into one, or messages take longer (ParallelCluster: PlacementGroup: {Enabled: true})"
HOP = (
    "in a container, the answer may need a second hop: modify-instance-metadata-options --http-put-response-hop-limit 2"
)


def group(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Finding:
    """Not collective. `root` is the folder that holds /sys."""
    try:
        host = metadata_host(environment, root / FIRMWARE.relative_to("/"))
    except InputError as error:
        return Finding("FAIL", str(error), f"correct {ENDPOINT}, or unset it")
    if host is None:
        return Finding("SKIP", "not an EC2 instance, or its metadata is switched off")
    service = Metadata(host)
    try:
        name, kind, zone = (_text(service, path) for path in GROUP_TYPE_ZONE)
    except MetadataError as error:
        return Finding("SKIP", f"no metadata: {error}", HOP)
    if not name:
        return Finding("PASS", f"none ({kind} in {zone})", NEAR)
    return Finding("PASS", f"{name} ({kind} in {zone})")


GROUP_TYPE_ZONE = ("placement/group-name", "instance-type", "placement/availability-zone")


def _text(service: Metadata, path: str) -> str:
    return (service.read(path) or b"").decode("utf-8", "replace").strip()
