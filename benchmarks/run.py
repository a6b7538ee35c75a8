"""The whole table: hpcframe against others, against the memory, and against its own goals.

Each row is a ratio of two measurements, taken in turn within a round: its median and its range over the rounds.
Results of contenders are compared before anything is timed. A row whose peer is not installed is skipped with a word.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import machine
from measuring import Effort
from remote import Absent, Failed
from rows import TABLE
from rows.row import Row

QUICK = Effort(rounds=3, seconds=0.3)


def main() -> None:
    """Measure, print, write; exit code 1 if a row failed, not if it misses its goal."""
    options = arguments()
    report: dict[str, Any] = {
        "benchmark": "run",
        "dtype": "float64",
        "quick": options.quick,
        "machine": machine.describe(),
        "mpi": machine.launcher(ranks=2),
        "rows": {},
    }
    for row in TABLE:
        if row.key in options.only:
            report["rows"][row.key] = result = measured(row, QUICK if options.quick else Effort())
            print(f"{row.title} / {row.against}: {figure(row, result)}", file=sys.stderr, flush=True)
            if options.json:
                write(options.json, report)
    if options.markdown or not options.json:
        print(markdown(report))
    sys.exit(any("failed" in result for result in report["rows"].values()))


def arguments() -> argparse.Namespace:
    rows = "\n".join(f"  {row.key:22} {row.title} / {row.against}" for row in TABLE)
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description=__doc__,
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    keys = [row.key for row in TABLE]
    parser.add_argument("--only", nargs="+", default=keys, choices=keys, metavar="ROW", help="some rows (all)")
    parser.add_argument("--quick", action="store_true", help="3 short rounds instead of 7: for a look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements and the machine to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table (as without --json)")
    return parser.parse_args()


def measured(row: Row, effort: Effort) -> dict[str, Any]:
    """The row's result, with its goal; or why there is none."""
    about = {"title": row.title, "against": row.against, "goal": row.goal, "at_most": row.at_most}
    try:
        result = row.measure(effort)
    except Absent as absent:
        return {**about, "skipped": str(absent)}
    except Failed as failed:
        return {**about, "failed": str(failed)}
    return {**about, "reached": row.reached(result["figure"]["median"]), **result, "load_average": os.getloadavg()}


def write(file: Path, report: dict[str, Any]) -> None:
    file.write_text(json.dumps(report, indent=2) + "\n")


# -- the table --------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """The table, and what it was measured on."""
    lines = ["| | over | ratio (range) | goal | reached |", "|---|---|---|---|---|"]
    for row in TABLE:
        if row.key in report["rows"]:
            result = report["rows"][row.key]
            bound = f"{'at most' if row.at_most else 'at least'} {row.goal:g}"
            cells = (row.title, row.against, figure(row, result), bound, reached(result))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n" + caption(report)


def figure(row: Row, result: dict[str, Any]) -> str:
    """Median and range, or why there are none."""
    if "figure" not in result:
        return f"failed: {result['failed']}" if "failed" in result else result["skipped"]
    found = result["figure"]
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f}) {row.unit}".rstrip()


def reached(result: dict[str, Any]) -> str:
    return {True: "yes", False: "no", None: "-"}[result.get("reached")]


def caption(report: dict[str, Any]) -> str:
    """What the table was measured on, in sentences."""
    about = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "float64; 256^3 points a rank where nothing else is said.",
        f"{about['cpu']} ({', '.join(about['flags'])}), {about['cores']} cores, {about['date'][:10]}.",
        f"Versions: {versions}. {report['mpi']['version']}, {report['mpi']['placement']}.",
    ]
    return "\n".join([*lines, *(["Measured with --quick: provisional."] if report["quick"] else [])])


if __name__ == "__main__":
    main()
