"""Which checkpoints to let go. A pure function."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def to_remove(
    steps: Sequence[int], keep: int, every: int, pinned: Collection[int], verified: Collection[int]
) -> list[int]:
    """Steps of checkpoints that are not needed any more, the oldest first. Not collective.

    Never the newest that is verified, and nothing newer: what was not verified yet may be bad. Where none is verified,
    nothing goes.

    Args:
        steps: of all checkpoints, in any order.
        keep: how many of the latest stay, at least 1.
        every: those that are multiples of it stay; 0 for none.
        pinned: those stay.
        verified: steps whose checkpoints were read back whole and right.
    """
    newest_first = sorted(steps, reverse=True)
    safe = max((step for step in steps if step in verified), default=None)
    if safe is None:
        return []
    stay = {*newest_first[:keep], *pinned, *(step for step in steps if every and step % every == 0)}
    return [step for step in reversed(newest_first) if step < safe and step not in stay]
