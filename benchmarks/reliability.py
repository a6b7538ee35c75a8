"""A kill campaign: python benchmarks/reliability.py --trials 1000

Each trial hurts a small job that makes checkpoints: a process is killed or stopped at a random system call, a call
fails or lies, or a checkpoint is spoilt on the disk. Then the job is started again, on another number of ranks, and
must end by itself with the right fields, from the newest checkpoint that was good. Prints its seed and a table; exit
code 1 if anything was wrong. Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import faults
import machine
import trials

CORRUPTION = 0.3  # share of trials that spoil what lies on the disk
HEAD = (
    "| what happened | driver | trials | recovered | refused, rightly | wrong | hangs | lost | steps lost | leftovers |"
)


def main() -> int:
    """Do the trials, print, write."""
    options = arguments()
    if faults.missing():
        raise SystemExit(faults.missing())
    trials.preload()
    trials.prepare()
    print(f"seed {options.seed}: repeat with --seed {options.seed}", flush=True)
    outcomes = campaign(options)
    print(table(outcomes))
    print(conclusion(outcomes))
    if options.json:
        report = {
            "benchmark": "reliability",
            "seed": options.seed,
            "machine": machine.describe(),
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        options.json.write_text(json.dumps(report) + "\n")
    return int(any(map(is_bad, outcomes)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="of all that is random (the time)")
    parser.add_argument("--driver", choices=["direct", "mpio"], default="direct")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3], help="that jobs are run on (1 2 3)")
    parser.add_argument("--several", type=float, default=0.2, help="share of trials on several ranks, slower (0.2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome and the machine to FILE")
    return parser.parse_args()


def campaign(options: argparse.Namespace) -> list[trials.Outcome]:
    chance = random.Random(options.seed)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="hpcframe-reliability-", ignore_cleanup_errors=True) as folder:
        for number in range(options.trials):
            outcome = one_trial(Path(folder), chance, options)
            outcomes.append(outcome)
            if is_bad(outcome):
                print(f"trial {number}: {outcome}", flush=True)
    return outcomes


def one_trial(folder: Path, chance: random.Random, options: argparse.Namespace) -> trials.Outcome:
    several = chance.random() < options.several
    behind = options.driver == "direct" and chance.random() < 0.5
    first, second = (
        trials.Setting(chance.choice(options.ranks) if several else 1, options.driver, behind) for _ in range(2)
    )
    if chance.random() < CORRUPTION:
        return trials.corruption_trial(folder, chance, first, second)
    return trials.fault_trial(folder, chance, first, second, trials.ENDS + trials.WRONGS)


def is_bad(outcome: trials.Outcome) -> bool:
    return outcome.verdict not in ("recovered", "refused") or outcome.lost > 0 or outcome.leftovers > 0


def table(outcomes: list[trials.Outcome]) -> str:
    """Markdown, a row for each kind of fault."""
    groups: dict[Any, list[trials.Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.kind, outcome.driver].append(outcome)
    rows = [row(*key, group) for key, group in sorted(groups.items())]
    return "\n".join([HEAD, "|" + " --- |" * (HEAD.count("|") - 1), *rows, row("all", "", outcomes)])


def row(kind: str, driver: str, group: list[trials.Outcome]) -> str:
    counts = [sum(outcome.verdict == verdict for outcome in group) for verdict in trials.VERDICTS]
    sums = [sum(outcome.lost for outcome in group), sum(outcome.leftovers for outcome in group)]
    return f"| {kind} | {driver} | " + " | ".join(map(str, [len(group), *counts, *sums])) + " |"


def conclusion(outcomes: list[trials.Outcome]) -> str:
    """Of n trials without a wrong restore, the share is below 3 / n with 95 % confidence."""
    wrong, count = sum(outcome.verdict == "wrong" for outcome in outcomes), len(outcomes)
    bound = f"below {100 * 3 / count:.2g} % with 95 % confidence" if count and not wrong else "not bounded"
    bad = math.fsum(map(is_bad, outcomes))
    return f"{count} trials, {wrong} wrong restores ({bound}), {bad:.0f} with anything amiss"


if __name__ == "__main__":
    sys.exit(main())
