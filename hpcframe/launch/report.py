"""How `hpcframe doctor` prints: a line for each check, what to do below it."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from hpcframe.launch.checks import CHECKS

COLOURS = {"PASS": "green", "SKIP": "yellow", "DIFF": "yellow", "FAIL": "bold red"}
INDENT = 6  # of a remedy: below the title
COLUMN = INDENT + max(len(check.title) for check in CHECKS) + 2
BY_HAND = {check.title: check.by_hand for check in CHECKS}


def show(console: Console, title: str, status: str, found: str, remedy: str) -> None:
    """Print a line and, unless all is well, what to do and how to see it by hand. Not collective."""
    head = f"{title:<{COLUMN - INDENT - 2}}  "
    words = Text.assemble((status, COLOURS[status]), "  ")
    console.print(words + Text(head + _wrapped(console, found, COLUMN)))
    below = [remedy] if remedy else []
    if title in BY_HAND and (remedy or status != "PASS"):
        below.append(f"by hand: {BY_HAND[title]}")
    if below:
        console.print(" " * INDENT + _wrapped(console, "; ".join(below), INDENT), markup=False)


def _wrapped(console: Console, text: str, indent: int) -> str:
    """Fit a text into the terminal, if it is one: what goes to a file or a pipe keeps one line."""
    width = console.width - indent
    if not console.is_terminal or width < 20:
        return text
    return f"\n{' ' * indent}".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
