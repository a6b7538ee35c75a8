"""`hpcframe doctor`: what is right and what is wrong with this machine, and what to do about it."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections import Counter

from rich.console import Console
from rich.text import Text

from hpcframe.launch.checks import CHECKS, Check
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.supervision import run_within

LIMIT = 30.0  # seconds a check
COLOURS = {"PASS": "green", "SKIP": "yellow", "FAIL": "bold red"}
INDENT = 6  # of a remedy: below the title


def examine(limit: float = LIMIT) -> int:
    """Run all checks, print what each found, and return 0, or 1 if one failed. Not collective.

    Each check is a process of its own, so that one which crashes or hangs is a line of the report like any other,
    and so that this process never starts MPI.

    Args:
        limit: seconds that a check may take.
    """
    console = Console(highlight=False, soft_wrap=True)
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        with console.status(check.title):  # seen on a terminal only
            findings[check.title] = _find(check, findings, limit)
        _show(console, check.title, findings[check.title])
    number = Counter(finding.status for finding in findings.values())
    console.print(f"\n{number['PASS']} passed, {number['SKIP']} skipped, {number['FAIL']} failed")
    return 1 if number["FAIL"] else 0


def _find(check: Check, earlier: dict[str, Finding], limit: float) -> Finding:
    for title in check.needs:
        if earlier[title].status != "PASS":
            return Finding("SKIP", f"needs {title}, see above")
    command = [sys.executable, "-m", "hpcframe.launch.checks", check.title]
    answer = run_within(limit, command)
    by_hand = f"see it by hand: {shlex.join(command)}"
    if answer.code is None:
        return Finding("FAIL", f"no answer within {limit:g} s", check.when_hung or by_hand)
    if answer.code:
        last = (answer.errors.strip().splitlines() or ["it says nothing"])[-1]
        return Finding("FAIL", f"the check broke with exit code {answer.code}: {last}", by_hand)
    return Finding(**json.loads(answer.output.splitlines()[-1]))  # what libraries print comes before


def _show(console: Console, title: str, finding: Finding) -> None:
    column = INDENT + max(len(check.title) for check in CHECKS) + 2
    head = f"{title:<{column - INDENT}}"
    status = Text.assemble((finding.status, COLOURS[finding.status]), "  ")
    console.print(status + Text(head + _wrapped(console, finding.found, column)))
    if finding.remedy:
        console.print(" " * INDENT + _wrapped(console, finding.remedy, INDENT), markup=False)


def _wrapped(console: Console, text: str, indent: int) -> str:
    """Fit a text into the terminal, if it is one: what goes to a file or a pipe keeps one line."""
    width = console.width - indent
    if not console.is_terminal or width < 20:
        return text
    return f"\n{' ' * indent}".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
