"""`hpcframe doctor`: what is right and what is wrong with this machine, and what to do about it."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from hpcframe.launch.checks import CHECKS
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.examination import LIMIT, find
from hpcframe.launch.report import show


def examine(limit: float = LIMIT) -> int:
    """Run all checks, print what each found, and return 0, or 1 if one failed. Not collective.

    Each check is a process of its own, so that this process never starts MPI.

    Args:
        limit: seconds that a check may take.
    """
    console = Console(highlight=False, soft_wrap=True)
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        with console.status(check.title):  # seen on a terminal only
            found = findings[check.title] = find(check, findings, limit)
        show(console, check.title, found.status, ", ".join(filter(None, [found.found, found.varies])), found.remedy)
    number = Counter(finding.status for finding in findings.values())
    console.print(f"\n{number['PASS']} passed, {number['SKIP']} skipped, {number['FAIL']} failed")
    return 1 if number["FAIL"] else 0
