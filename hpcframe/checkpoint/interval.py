"""How often to make a checkpoint, from what one costs and how often runs are interrupted.

J. W. Young, Communications of the ACM 17 (1974), 530-531; J. T. Daly, Future Generation Computer Systems 22 (2006),
303-312.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcframe.files import write_text

NAME = "HISTORY.json"
PRIOR_SECONDS = 24 * 3600.0  # before anything is known: one interruption a day


def optimal_interval(cost: float, mean: float) -> float:
    """Seconds between checkpoints that waste least, by Daly's equation 37. Not collective.

    Args:
        cost: seconds that the run waits for a checkpoint.
        mean: seconds between interruptions.
    """
    if cost >= 2 * mean:
        return mean
    share = math.sqrt(cost / (2 * mean))
    return max(cost, math.sqrt(2 * cost * mean) * (1 + share / 3 + share * share / 9) - cost)


def expected_waste(interval: float, cost: float, mean: float) -> float:
    """The share of time that is lost, to first order: to checkpoints, and to steps that are done again after an
    interruption, half an interval each time. Not collective."""
    return cost / interval + interval / (2 * mean)


@dataclass
class History:
    """What the incarnations of a run have met.

    Attributes:
        seconds: they ran, in all, before this one.
        interruptions: how often one ended before the last step.
        noticed: how many of these made a checkpoint before they ended.
    """

    seconds: float = 0.0
    interruptions: int = 0
    noticed: int = 0

    def mean_between(self, seconds: float) -> float:
        """Seconds between interruptions that cost steps. Not collective.

        An estimate that begins at a day and learns from each interruption, and from each hour without one: the mean of
        a gamma distribution. Interruptions before which a checkpoint was made cost nothing.

        Args:
            seconds: that this incarnation has run.
        """
        mean = (PRIOR_SECONDS + self.seconds + seconds) / (1 + self.interruptions)
        share = min(self.noticed / (1 + self.interruptions), 0.9)
        return mean / (1 - share)

    @staticmethod
    def read(folder: Path) -> History:
        """The history in a folder of checkpoints; an empty one where there is none, or none that can be read: it
        serves an estimate only. Not collective."""
        try:
            table = json.loads((folder / NAME).read_text(encoding="utf-8"))
            return History(float(table["seconds"]), int(table["interruptions"]), int(table["noticed"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return History()

    def write(self, folder: Path, seconds: float = 0.0) -> None:
        """Keep it, with the seconds that this incarnation has run. Raises HpcframeError. Not collective."""
        table = asdict(self) | {"seconds": self.seconds + seconds}
        write_text(folder / NAME, json.dumps(table) + "\n")
