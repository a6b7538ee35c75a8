"""Rules by which S3 itself tidies up and moves what is old to cheaper storage. Pure, but for reading and writing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from hpcframe.aws import AwsError, explaining
from hpcframe.errors import InputError
from hpcframe.staging.store import Store
from hpcframe.staging.url import Location

AT_ONCE = ("STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR")
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # cannot be read before somebody has had the object restored
TIERS = (*AT_ONCE, *ARCHIVES)
NO_RULES = "NoSuchLifecycleConfiguration"


def rules(
    location: Location, incomplete_days: int, tiers: Sequence[tuple[str, int]] = (), output_days: int = 0
) -> list[dict[str, Any]]:
    """The rules for a location, as S3 has them.

    Args:
        incomplete_days: after so many an upload that nobody completes is let go of.
        tiers: storage classes, and after how many days objects move there: to an archive the output alone, as no
            restart can read a checkpoint there.
        output_days: after so many the output is deleted; 0: never. Checkpoints are deleted by `keep` alone, as only
            that knows which are superfluous.
    """
    name = f"hpcframe-{hashlib.sha256(location.url().encode()).hexdigest()[:12]}"
    everything: dict[str, Any] = {
        "ID": name,
        "Status": "Enabled",
        "Filter": {"Prefix": location.prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": incomplete_days},
    }
    actions: dict[str, Any] = {"Expiration": {"Days": output_days}} if output_days else {}
    for rule, kinds in ((everything, AT_ONCE), (actions, ARCHIVES)):
        transitions = [{"StorageClass": kind, "Days": days} for kind, days in tiers if kind in kinds]
        rule |= {"Transitions": transitions} if transitions else {}
    if not actions:
        return [everything]
    output = {"ID": f"{name}-output", "Status": "Enabled", "Filter": {"Prefix": location.key("output/")}}
    return [everything, output | actions]


def read_tier(text: str) -> tuple[str, int]:
    """A storage class and days, written CLASS:DAYS. Raises InputError.

    >>> read_tier("STANDARD_IA:30")
    ('STANDARD_IA', 30)
    """
    kind, _, days = text.partition(":")
    if kind not in TIERS or not days.isdecimal():
        raise InputError(f"--tier {text}: expected CLASS:DAYS with a class of {', '.join(TIERS)}")
    return kind, int(days)


def merged(there: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rules of a bucket with ours in it: in the place of those that hpcframe wrote for this location before."""
    base = str(ours[0]["ID"])
    kept = [dict(rule) for rule in there if rule.get("ID") not in (base, f"{base}-output")]
    return [*kept, *map(dict, ours)]


def apply(store: Store, ours: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write rules into the bucket; all that it has now. Rules of others stay. Not collective. Raises AwsError."""
    bucket = store.location.bucket
    there: list[dict[str, Any]] = []
    try:
        with explaining(f"reading the lifecycle rules of {bucket}"):
            there = store.client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except AwsError as error:
        if error.code != NO_RULES:
            raise
    whole = merged(there, ours)
    with explaining(f"writing the lifecycle rules of {bucket}"):
        store.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": whole})
    return whole
