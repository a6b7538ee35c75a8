"""A row of the table that `run` makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measuring import Effort


@dataclass(frozen=True)
class Row:
    """One comparison, its goal, and the function that measures it.

    That returns {"figure": what `measuring.spread` returns, ...}: the rest goes into the JSON file. It raises
    `remote.Absent` where something is not there, and `remote.Failed` where a contender is wrong.
    """

    key: str
    title: str
    against: str
    goal: float
    measure: Callable[[Effort], dict[str, Any]]
    at_most: bool = False
    unit: str = ""

    def reached(self, figure: float) -> bool:
        """Whether the median fulfils the goal."""
        return figure <= self.goal if self.at_most else figure >= self.goal
