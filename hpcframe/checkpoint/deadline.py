"""Is there time for a checkpoint before the job ends? From what earlier ones took."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

SAFETY = 1.5  # times the predicted seconds must be left
REMEMBERED = 4  # latest checkpoints that a prediction is made from


class Rates:
    """Measured rates of writing."""

    def __init__(self, known: Iterable[tuple[int, float]] = ()) -> None:
        """`known` are those of an earlier incarnation: bytes and seconds, the latest last."""
        self._known: deque[tuple[int, float]] = deque(known, maxlen=REMEMBERED)

    @property
    def known(self) -> list[tuple[int, float]]:
        """Bytes and seconds of the latest checkpoints."""
        return list(self._known)

    def add(self, size: int, seconds: float) -> None:
        """Remember a checkpoint of some bytes that was durable after some seconds."""
        if size > 0 and seconds > 0:
            self._known.append((size, seconds))

    def predict(self, size: int) -> float | None:
        """Seconds that a checkpoint of some bytes takes, by the slowest of the latest; None where none is known.

        A checkpoint of fewer bytes is not predicted to be faster: what it takes may be its latency.
        """
        if not self._known:
            return None
        return max(seconds * max(1.0, size / known) for known, seconds in self._known)


def fits(predicted: float | None, seconds_left: float) -> bool:
    """Whether to begin a checkpoint: what is not known is tried, since one that is not completed costs no other."""
    return predicted is None or predicted * SAFETY <= seconds_left
