"""Asks AWS what instance types have, where they are offered and what they cost."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hpcframe.aws import AwsError, explaining
from hpcframe.errors import InputError
from hpcframe.launch.catalogue import Catalogue, InstanceType

PRICES_IN = "us-east-1"  # AWS tells all prices from there


def from_ec2(told: Mapping[str, Any], zones: Mapping[str, Sequence[str]], known: InstanceType | None) -> InstanceType:
    """A type as EC2 describes it. Pure.

    Args:
        told: one of DescribeInstanceTypes.
        zones: that offer it, by region.
        known: what else is known of it: the speed of its memory, which AWS does not tell, and prices.
    """
    network = told["NetworkInfo"]
    processor = told["VCpuInfo"]
    return InstanceType(
        name=told["InstanceType"],
        architecture=next(name for name in told["ProcessorInfo"]["SupportedArchitectures"] if name.endswith("64")),
        cores=processor["DefaultCores"],
        threads_a_core=processor.get("DefaultThreadsPerCore", 1),
        gib=told["MemoryInfo"]["SizeInMiB"] / 1024,
        gbps=_gbps(network),
        efa=network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0),
        spot="spot" in told["SupportedUsageClasses"],
        nvme=told.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
        memory=known.memory if known else None,
        zones={region: sorted(ids) for region, ids in sorted(zones.items()) if ids},
        price=dict(known.price) if known else {},
        priced=known.priced if known else "",
    )


def _gbps(network: Mapping[str, Any]) -> float:
    """Of all cards together, always: the baseline where AWS says "Up to". What cards have one by one may be more than
    the instance has."""
    steady = re.fullmatch(r"([\d.]+) Gigabit", network.get("NetworkPerformance", ""))
    if steady:
        return float(steady[1])
    return float(sum(card.get("BaselineBandwidthInGbps") or 0.0 for card in network.get("NetworkCards", [])))


def refreshed(
    old: Catalogue, regions: Sequence[str], more: Iterable[str], client: Callable[[str, str], Any]
) -> tuple[list[InstanceType], str, list[str]]:
    """All types of a catalogue and more, asked for anew in these regions; the date, and what could not be asked. Not
    collective.

    Args:
        client: of a service in a region.

    Raises:
        InputError: no region has a type.
        AwsError.
    """
    names = list(dict.fromkeys([*(kind.name for kind in old.types), *more]))
    told, zones = _described(names, regions, client)
    troubles: list[str] = []
    missing = [name for name in more if name not in told]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not offered in {', '.join(regions)}; look at the name, or give --region"
        )
    today = datetime.date.today().isoformat()
    types = []
    for name in names:
        known = old.find(name)
        if name not in told:  # elsewhere only: what was known of it stays
            types += [known] if known else []
            continue
        kept = {region: ids for region, ids in (known.zones if known else {}).items() if region not in regions}
        found = from_ec2(told[name], {**kept, **zones[name]}, known)
        try:
            costs = {
                region: cost for region in zones[name] if (cost := price(client("pricing", PRICES_IN), name, region))
            }
        except AwsError as error:
            costs, troubles = {}, [*troubles, f"prices of {name}: {error}"]
        types.append(_with_prices(found, costs, today))
    return types, today, troubles


def _with_prices(kind: InstanceType, costs: Mapping[str, float], today: str) -> InstanceType:
    if not costs:
        return kind
    # Prices of regions that were not asked go: they are of another day, and from elsewhere.
    return msgspec.structs.replace(kind, price=dict(costs), priced=f"AWS Price List, {today}")


def _described(
    names: Sequence[str], regions: Sequence[str], client: Callable[[str, str], Any]
) -> tuple[dict[str, Any], dict[str, dict[str, list[str]]]]:
    """What EC2 says of those types that a region has, and the zones by type and region."""
    told: dict[str, Any] = {}
    zones: dict[str, dict[str, list[str]]] = {}
    for region in regions:
        with explaining(f"asking {region} for instance types"):
            ec2 = client("ec2", region)
            by_name = [{"Name": "instance-type", "Values": list(names)}]
            for page in ec2.get_paginator("describe_instance_type_offerings").paginate(
                LocationType="availability-zone-id", Filters=by_name
            ):
                for each in page["InstanceTypeOfferings"]:
                    zones.setdefault(each["InstanceType"], {}).setdefault(region, []).append(each["Location"])
            for page in ec2.get_paginator("describe_instance_types").paginate(Filters=by_name):
                told |= {each["InstanceType"]: each for each in page["InstanceTypes"] if each["InstanceType"] in zones}
    return told, zones


def price(pricing: Any, name: str, region: str) -> float | None:
    """USD an hour on demand with Linux; None where there is no price. Not collective. Raises AwsError."""
    wanted = {
        "instanceType": name, "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared",
        "preInstalledSw": "NA", "capacitystatus": "Used",
    }  # fmt: skip
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    with explaining(f"asking for the price of {name} in {region}"):
        answer = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)
    costs = [cost for text in answer["PriceList"] for cost in _dollars(json.loads(text))]
    return max(costs) if costs else None


def _dollars(product: Mapping[str, Any]) -> list[float]:
    """What an hour costs, of one entry of the price list."""
    terms = product.get("terms", {}).get("OnDemand", {}).values()
    rates = [rate for term in terms for rate in term["priceDimensions"].values() if rate["unit"] == "Hrs"]
    return [dollars for rate in rates if (dollars := float(rate["pricePerUnit"].get("USD", 0)))]
