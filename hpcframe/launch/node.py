"""What srun starts on each node for `hpcframe doctor --nodes`: the checks that are about a node.

    srun --ntasks-per-node=1 python -m hpcframe.launch.node

Each finding is printed as a line of JSON, short enough for Slurm not to cut it in two where nodes print at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import textwrap

from hpcframe.launch.checks import CHECKS
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.examination import LIMIT, find

LONGEST = 350  # characters of a text; Slurm passes on 1024 bytes of a line at once
MARK = "hpcframe doctor: "


def line(node: str, title: str, finding: Finding) -> str:
    """Not collective."""
    texts = {name: textwrap.shorten(text, LONGEST) for name, text in dataclasses.asdict(finding).items()}
    del texts["varies"]
    return MARK + json.dumps({"node": node, "title": title, **texts}, ensure_ascii=False)


def read_line(text: str) -> tuple[str, str, Finding] | None:
    """Node, title and finding of a line; None for any other line. Not collective."""
    if not text.startswith(MARK):
        return None
    fields = json.loads(text.removeprefix(MARK))
    return fields.pop("node"), fields.pop("title"), Finding(**fields)


def main() -> None:
    """Not collective."""
    os.environ.pop("SLURM_JOB_NUM_NODES", None)  # the node answers for itself, not for the job
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        if check.everywhere:
            findings[check.title] = find(check, findings, LIMIT)
            print(line(node, check.title, findings[check.title]), flush=True)


if __name__ == "__main__":
    main()
