"""Have one check look, in a process of its own, so that one which crashes or hangs is a finding like any other."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping

from hpcframe.launch.checks import Check
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.supervision import run_within

LIMIT = 30.0  # seconds a check


def find(check: Check, earlier: Mapping[str, Finding], limit: float = LIMIT) -> Finding:
    """What a check finds within `limit` seconds, after the `earlier` findings by title. Not collective."""
    for title in check.needs:
        if earlier[title].status != "PASS":
            return Finding("SKIP", f"needs {title}, see above")
    command = [sys.executable, "-m", "hpcframe.launch.checks", check.title]
    answer = run_within(limit, command)
    alone = f"run this check alone: {shlex.join(command)}"
    if answer.code is None:
        return Finding("FAIL", f"no answer within {limit:g} s", check.when_hung or alone)
    if answer.code:
        last = (answer.errors.strip().splitlines() or ["it says nothing"])[-1]
        return Finding("FAIL", f"the check broke with exit code {answer.code}: {last}", alone)
    return Finding(**json.loads(answer.output.splitlines()[-1]))  # what libraries print comes before
