"""The clock: S3 refuses requests, and a Spot notice means another moment, where it is minutes off."""

from __future__ import annotations

import re
import shutil

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.programs import ask, essence

BY_HAND = "chronyc tracking; timedatectl show --property=NTPSynchronized"
START = "start chronyd: systemctl enable --now chronyd; on EC2 its server is 169.254.169.123"


def clock() -> Finding:
    """Not collective."""
    said = "there is neither chronyc nor timedatectl"
    for name, command, judge in SOURCES:
        if not shutil.which(name):
            continue
        asked = ask([name, *command])
        if not asked.returncode:
            return judge(asked.stdout)
        said = f"{name} does not know: {essence(asked.stderr + asked.stdout)}"
    return Finding("SKIP", said)


def by_chrony(said: str) -> Finding:
    """By what `chronyc tracking` says. Not collective."""
    if not re.search(r"^Leap status\s*:\s*(Normal|Insert second|Delete second)", said, re.MULTILINE):
        return Finding("FAIL", "not synchronised", START)
    offset = re.search(r"^System time\s*:\s*(.*)$", said, re.MULTILINE)
    return Finding("PASS", "synchronised", varies=offset[1] if offset else "")


def by_timedatectl(said: str) -> Finding:
    """By what `timedatectl show --property=NTPSynchronized` says. Not collective."""
    if said.strip().endswith("=yes"):
        return Finding("PASS", "synchronised")
    return Finding("FAIL", "not synchronised", START)


SOURCES = (
    ("chronyc", ["-n", "tracking"], by_chrony),
    ("timedatectl", ["show", "--property=NTPSynchronized"], by_timedatectl),
)
