"""What the incarnations of a run have met, kept beside its checkpoints: estimates are made from it, and no results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec

from hpcframe.checkpoint.interval import mean_between
from hpcframe.checkpoint.record import BrokenRecordError, read_record
from hpcframe.files import write_text

NAME = "HISTORY.json"

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass
class History:
    """Sums over the incarnations of a run.

    Attributes:
        seconds: they ran, in all, before this one.
        interruptions: how often one ended before the last step.
        noticed: how many of these made a checkpoint before they ended.
        waited: seconds that steps waited for checkpoints.
        redone: seconds of steps that were done again.
        reached: the last step that is known to be done.
        pace: seconds a step, lately.
        finished: the last incarnation reached the last step.
        commits: bytes of the latest checkpoints, and seconds until each was durable.
        notice: why nothing is known of former ones, though there is a file; "" else. Not kept.
    """

    seconds: Seconds = 0.0
    interruptions: Count = 0
    noticed: Count = 0
    waited: Seconds = 0.0
    redone: Seconds = 0.0
    reached: Count = 0
    pace: Seconds = 0.0
    finished: bool = False
    commits: list[tuple[Count, Seconds]] = field(default_factory=list)
    notice: str = ""

    def begin(self, step: int) -> None:
        """Another incarnation goes on from a step. Not collective."""
        if not self.finished:
            self.interruptions += 1
            self.redone += max(0, self.reached - step) * self.pace
        self.reached, self.finished = step, False

    def mean_between(self, seconds: float) -> float:
        """Seconds between interruptions that cost steps. Not collective.

        Args:
            seconds: that this incarnation has run.
        """
        return mean_between(self.seconds + seconds, self.interruptions, self.noticed)

    def waste(self, seconds: float) -> float:
        """The share of all time, 0 to 1, that steps waited for checkpoints or were done again. Not collective.

        Args:
            seconds: that this incarnation has run.
        """
        return (self.waited + self.redone) / max(self.seconds + seconds, 1e-9)

    @staticmethod
    def read(folder: Path) -> History:
        """The history in a folder of checkpoints; an empty one where there is none. Not collective.

        One that cannot be understood serves an estimate only, so that it ends no run: its `notice` says so.
        Raises OSError.
        """
        try:
            return read_record(folder / NAME, History) or History()
        except BrokenRecordError as error:
            return History(notice=f"{error}. The rate of interruptions is learnt anew")

    def write(self, folder: Path, seconds: float = 0.0) -> None:
        """Keep it, with the seconds that this incarnation has run. Raises HpcframeError. Not collective."""
        table = asdict(replace(self, seconds=self.seconds + seconds))
        del table["notice"]
        write_text(folder / NAME, msgspec.json.encode(table).decode() + "\n")
