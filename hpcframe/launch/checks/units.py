"""Numbers in words."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """
    >>> count(2, "core")
    '2 cores'
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def gigabytes(size: float) -> str:
    """A size in bytes.

    >>> gigabytes(25.2e9)
    '25.2 GB'
    """
    return f"{size / 1e9:.3g} GB"
