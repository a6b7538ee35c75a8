"""What a start costs the shared file system: metadata calls, with and without scripts/pack-env.

    .venv/bin/python benchmarks/startup.py

Runs five steps of a small case on 1, 2, 4 and 8 ranks under strace, and counts the calls that name a path (open, stat,
readlink, ...) or list a folder, by where the path lies. On a cluster the environment, the checkout and the folder of
the run are on a file system that all nodes share; each such call of each rank may go to its server.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).parent.parent
CASE = """
[simulation]
model = "heat"
[grid]
shape = [32, 32, 32]
[time]
steps = 5
[output]
picture = false
"""
# Such as: openat(AT_FDCWD</home/me>, "sim.toml", O_RDONLY) = 3, and: getdents64(3</home/me>, ...
# The kernel knows the current folder by itself, so getcwd asks no server.
CALL = re.compile(r'^(?!getcwd)\w+\((?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>(?:, )?)?(?:"(?P<path>[^"]*)")?')
KINDS = ("environment", "run", "node")


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    if not shutil.which("strace"):
        sys.exit("strace is not here: install it (apt-get install strace, dnf install strace), then run this again")
    about = machine.describe()
    with tempfile.TemporaryDirectory() as shared, tempfile.TemporaryDirectory(dir=node_storage()) as node:
        case, unpacked = Path(shared), Path(node)
        (case / "sim.toml").write_text(CASE)
        size = pack(case, unpacked)
        places = {**dict.fromkeys(environment_folders(), "environment"), case: "run", unpacked: "node"}
        cases = []
        for ranks in options.ranks:
            shared_start = start(Path(sys.executable), ranks, case, places, {"HPCFRAME_CACHE_DIR": f"{unpacked}/cache"})
            packed_start = start(unpacked / "bin/python", ranks, case, places, settings(unpacked))
            cases.append({"ranks": ranks, "shared": shared_start, "packed": packed_start})
    print(table(cases))
    report = {"benchmark": "startup", "machine": about, "pack": size, "cases": cases}
    options.json.write_text(json.dumps(report, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of ranks (1 2 4 8)")
    results = ROOT / "benchmarks/results/startup.json"
    parser.add_argument("--json", type=Path, metavar="FILE", default=results, help="where to write all numbers")
    return parser.parse_args()


def node_storage() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def pack(case: Path, node: Path) -> dict[str, int]:
    """Pack the environment of this program, and unpack it as a job does. Bytes packed and unpacked."""
    file = case / f"environment.tar.{'zst' if shutil.which('zstd') else 'gz'}"
    command = [ROOT / "scripts/pack-env", f"--venv={sys.prefix}", f"--output={file}", f"--kernels={case / 'sim.toml'}"]
    subprocess.run(command, check=True)
    subprocess.run(["tar", "-xf", file, "-C", node], check=True)
    files = [path for path in node.rglob("*") if path.is_file() and not path.is_symlink()]
    unpacked = sum(path.stat().st_size for path in files)
    return {"packed_bytes": file.stat().st_size, "unpacked_bytes": unpacked, "files": len(files)}


def environment_folders() -> list[Path]:
    """Where Python, the packages and hpcframe are."""
    base = Path(sysconfig.get_path("stdlib")) if sys.base_prefix == "/usr" else Path(sys.base_prefix)
    packages = [importlib.import_module(name) for name in ("hpcframe", "hpcframe.kernels")]
    return [Path(sys.prefix), base, *(Path(package.__path__[0]) for package in packages)]


def settings(unpacked: Path) -> dict[str, str]:
    """What slurm/env/unpack.sh exports."""
    return {
        "HPCFRAME_CACHE_DIR": f"{unpacked}/cache",
        "NUMBA_CACHE_DIR": f"{unpacked}/numba",
        "PATH": os.pathsep.join([f"{unpacked}/bin", os.environ["PATH"]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
    }


def start(
    python: Path, ranks: int, case: Path, places: Mapping[Path, str], environment: Mapping[str, str]
) -> dict[str, int]:
    """Calls of all ranks together, by KINDS; the rest is the system's."""
    traces = case / "traces"
    shutil.rmtree(case / "runs", ignore_errors=True)
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir()
    launch = [str(python), "-m", "hpcframe.launch.local", "-n", str(ranks), "--"]
    strace = ["strace", "-ff", "-y", "-qq", "-e", "trace=%file,getdents64", "-o", str(traces / "rank")]
    program = [str(python), "-m", "hpcframe.run", "sim.toml"]
    command = [*launch, *strace, *program]
    done = subprocess.run(command, cwd=case, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    counted = Counter(place_of(path, places) for file in traces.iterdir() for path in paths(file, case))
    return {kind: counted[kind] for kind in (*KINDS, "system")}


def paths(trace: Path, case: Path) -> Iterable[Path]:
    """The path that each call in a trace names."""
    for line in trace.read_text(errors="replace").splitlines():
        found = CALL.match(line)
        if found and (found["folder"] or found["path"]):
            yield Path(os.path.normpath(os.path.join(case, found["folder"] or "", found["path"] or "")))


def place_of(path: Path, places: Mapping[Path, str]) -> str:
    return next((place for folder, place in places.items() if path.is_relative_to(folder)), "system")


def table(cases: Iterable[Mapping[str, Any]]) -> str:
    lines = [
        "| ranks | environment, unpacked: no | a rank | environment, unpacked: yes | run's folder: no | yes |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        ranks, shared, packed = case["ranks"], case["shared"], case["packed"]
        counts = (shared["environment"], round(shared["environment"] / ranks), packed["environment"])
        lines.append(f"| {ranks} | {' | '.join(f'{n:,}' for n in (*counts, shared['run'], packed['run']))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
