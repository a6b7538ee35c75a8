"""What a check of this machine comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["PASS", "SKIP", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of `hpcframe doctor`, without its title.

    Attributes:
        status: FAIL where a run would break or go wrong; SKIP where there was nothing to check, and `found` says why.
        found: what was found, in a few words.
        remedy: what to do about a FAIL; advice after a PASS or SKIP; "" where there is nothing to do.
        varies: more of what was found that differs between nodes which are alike, such as free space.
    """

    status: Status
    found: str
    remedy: str = ""
    varies: str = ""
