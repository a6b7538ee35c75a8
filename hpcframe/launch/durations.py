"""Durations as Slurm writes them, and as people do. Pure functions."""

from __future__ import annotations

import re

from hpcframe.errors import InputError

NUMBERS = (  # days, hours, minutes, seconds
    re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?", re.ASCII),
    re.compile(r"(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?", re.ASCII),
    re.compile(r"()(?:(\d+):)??(\d+)(?::(\d+))?", re.ASCII),  # two numbers are minutes and seconds
)
FORMS = "give it as 2h30m (d, h, m, s), or in a form of Slurm's: minutes, M:SS, H:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS"
UNLIMITED = {"infinite", "unlimited", "n/a", "not_set", "invalid"}


def seconds(text: str) -> int:
    """A duration in s, from 2h30m, or from a form of Slurm's, where a number alone is minutes.

    >>> seconds("2h30m") == seconds("2:30:00") == seconds("150") == seconds("0-02:30") == 9000
    True

    Raises:
        InputError: it is none, or it is 0, which Slurm takes for no limit at all.
    """
    found = [match.groups() for form in NUMBERS if (match := form.fullmatch(text.strip()))]
    parts = next((groups for groups in found if any(groups)), None)
    if parts is None:
        raise InputError(f"--time {text}: this is no duration; {FORMS}")
    days, hours, minutes, rest = (int(part or 0) for part in parts)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if total == 0:
        raise InputError(f"--time {text}: a job of no time; {FORMS}")
    return total


def limit(text: str) -> int | None:
    """A limit that Slurm tells (s); None where there is none.

    >>> limit("infinite"), limit("1-00:00:00")
    (None, 86400)
    """
    return None if text.strip().lower() in UNLIMITED else seconds(text)


def as_slurm(duration: int) -> str:
    """
    >>> as_slurm(9000), as_slurm(90000)
    ('02:30:00', '1-01:00:00')
    """
    minutes, rest = divmod(duration, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-" * bool(days) + f"{hours:02}:{minutes:02}:{rest:02}"


def in_words(duration: float) -> str:
    """
    >>> in_words(12.3), in_words(9000), in_words(200000)
    ('13 s', '2 h 30 min', '2 d 7 h')
    """
    rest = -int(-duration // 1)
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    first = next((n for n, (size, _) in enumerate(units) if rest >= size), 3)
    words: list[str] = []
    for size, name in units[first : first + 2]:
        number, rest = divmod(rest, size)
        words += [f"{number} {name}"] if number or not words else []
    return " ".join(words)
