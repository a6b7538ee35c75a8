"""What a rule on configurations of clusters is, and what it may know besides. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hpcframe.launch.catalogue import Catalogue
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.cluster.document import Configuration


@dataclass(frozen=True)
class Context:
    """What a configuration alone does not tell.

    Attributes:
        zones: ids of the Availability Zones of subnets; "": there is no such subnet; empty: not known.
        quotas: of the account, vCPUs by code; empty: not known.
    """

    catalogue: Catalogue
    zones: Mapping[str, str] = field(default_factory=dict)
    quotas: Mapping[str, float] = field(default_factory=dict)
    today: datetime.date = field(default_factory=datetime.date.today)


Rule = Callable[[Configuration, Context], Iterator[Finding]]


def fail(found: str, remedy: str) -> Finding:
    return Finding("FAIL", found, remedy)
