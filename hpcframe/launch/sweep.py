"""One run of a sweep, for a batch script: python -m hpcframe.launch.sweep sim.toml KEY=a,b,c INDEX [--set ...]

Prints the two overrides of that run, a line each: the value of the key, and a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import explained
from hpcframe.launch.submission import parse_sweep


def overrides(table: dict[str, Any], listed: str, index: int, given: Sequence[str] = ()) -> tuple[str, str]:
    """The overrides of run number `index`.

    Args:
        table: sim.toml.
        listed: "section.key=value,value".
        given: overrides of all runs: one may name the folder.

    Raises:
        InputError: there is no such value, or it is no sweep.
    """
    sweep = parse_sweep(listed)
    if index not in range(len(sweep.values)):
        raise InputError(f"{listed} has {len(sweep.values)} values; submit it with --array=0-{len(sweep.values) - 1}")
    chosen = f"{sweep.key}={sweep.values[index]}"
    return chosen, f"simulation.directory={json.dumps(f'{_directory(table, given)}/{sweep.name(index)}')}"


def _directory(table: dict[str, Any], given: Sequence[str]) -> str:
    """As the run would take it."""
    section = dict(table.get("simulation", {}))
    for override in given:
        key, _, value = override.partition("=")
        if key.strip().startswith("simulation."):
            section[key.strip().removeprefix("simulation.")] = tomllib.loads(f"value = {value}")["value"]
    model = str(section.get("model", "simulation"))
    return str(section.get("directory") or f"runs/{Path(model.partition(':')[0]).stem}")


def main() -> int:
    """Not collective."""
    parser = argparse.ArgumentParser(prog="hpcframe.launch.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("configuration", type=Path)
    parser.add_argument("values", metavar="KEY=a,b,c")
    parser.add_argument("index", help="of the array's task, from 0")
    parser.add_argument("--set", action="append", default=[])
    given, _ = parser.parse_known_args()
    try:
        if not given.index.isdigit():
            raise InputError("this is no array of jobs: submit it by sbatch --array=0-<number of values - 1>")
        with explained(given.configuration):
            table = tomllib.loads(given.configuration.read_text(encoding="utf-8"))
        print("\n".join(overrides(table, given.values, int(given.index), given.set)))
    except (HpcframeError, tomllib.TOMLDecodeError) as error:
        print(f"hpcframe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
