"""The record of a benchmark job: python -m hpcframe.launch.benchmark FOLDER

The folder holds a folder for each round, with its summary.json. Writes record.json there, which holds all that a
comparison of machines needs, and prints a line.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import explained, write_text
from hpcframe.metadata import Metadata, MetadataError, metadata_host

RECORD = "record.json"
SAME = ("model", "grid", "versions", "configuration")  # of all rounds
SCHEDULER = {"job": "SLURM_JOB_ID", "partition": "SLURM_JOB_PARTITION", "cluster": "SLURM_CLUSTER_NAME"}


def record(summaries: Sequence[Mapping[str, Any]], instance: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a comparison needs, of the same run done several times. Not collective.

    Args:
        summaries: of the rounds, as summary.json has them.
        instance: type of the nodes, "" where it is not known.
        environment: of the job.

    Raises:
        InputError: a round has too few steps to be measured, or did not reach its end.
    """
    for number, summary in enumerate(summaries, 1):
        if summary["status"] != "done" or "GLUP_per_s" not in summary["speed"]:
            raise InputError(
                f"round {number} is no measurement: {summary['status']}, {summary['speed']}; do more steps"
            )
    rates = [float(summary["speed"]["GLUP_per_s"]) for summary in summaries]
    first = summaries[0]
    return {
        "benchmark": "simulation",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "instance": instance or None,
        "slurm": {key: environment.get(name) for key, name in SCHEDULER.items()},
        "machine": first["machine"],
        **{key: first[key] for key in SAME if key in first},
        "GLUP_per_s": {"median": statistics.median(rates), "rounds": rates},
        "seconds": [summary["seconds"] for summary in summaries],
        "speed": [summary["speed"] for summary in summaries],
        "halo_share": [summary["halo_share"] for summary in summaries],
        "imbalance": [summary["imbalance"] for summary in summaries],
        "efa": [summary["efa"] for summary in summaries],
    }


def in_words(found: Mapping[str, Any]) -> str:
    """A line for people."""
    grid, rates = found["grid"], found["GLUP_per_s"]
    where = found["instance"] or found["machine"]["cpu"]
    return (
        f"{where}: {grid['ranks']} ranks on {grid['nodes']} node(s), median {rates['median']:.3g} GLUP/s of "
        f"{len(rates['rounds'])} rounds ({min(rates['rounds']):.3g} to {max(rates['rounds']):.3g}), EFA: "
        f"{found['efa'][0]['verdict']}"
    )


def _instance() -> str:
    host = metadata_host(os.environ)
    if host is None:
        return ""
    try:
        return (Metadata(host).read("instance-type") or b"").decode("utf-8", "replace").strip()
    except MetadataError:  # the record is worth as much without
        return ""


def main(arguments: Sequence[str]) -> int:
    """Not collective."""
    folder = Path(arguments[0])
    try:
        with explained(folder):
            summaries = [json.loads(path.read_text()) for path in sorted(folder.glob("*/summary.json"))]
        if not summaries:
            raise InputError(f"{folder} has no round with a summary.json")
        found = record(summaries, _instance(), os.environ)
        write_text(folder / RECORD, json.dumps(found, indent=2) + "\n")
    except HpcframeError as error:
        print(f"hpcframe: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(in_words(found))
    print(f"  record   {folder / RECORD}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
