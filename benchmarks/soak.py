"""A run that makes, pushes and prunes checkpoints as fast as it can: python benchmarks/soak.py --minutes 10

Looks every few seconds at the memory, the threads and the open files of the rank and of its uploader, and in the end at
what is in S3. Fails if anything grew, or if parts were left. The server is moto, on this machine, which keeps all in
memory; that is not looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from staging import BUCKET, client, start_server

LOOK_EVERY = 5.0  # s
GROWTH = 1.1  # of memory, from the first tenth of the time to the last
SIMULATION = f"""
[simulation]
model = "heat"
directory = "out"
[grid]
shape = [96, 96, 96]
[time]
steps = 100000000
[checkpoint]
every_steps = 100
keep = 2
[output]
every_steps = 500
picture = false
[staging]
url = "s3://{BUCKET}/soak"
keep = 2
part_size = 5242880
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    server = start_server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            faults = soak(client(), Path(folder), options.minutes)
    finally:
        server.communicate()
    print("\n".join(faults) or "nothing grew, and nothing was left")
    sys.exit(bool(faults))


def soak(client: Any, folder: Path, minutes: float) -> list[str]:
    (folder / "sim.toml").write_text(SIMULATION)
    program = [sys.executable, "-m", "hpcframe.run", "sim.toml"]
    command = [f"{sysconfig.get_path('scripts')}/mpiexec", "-n", "1", *program]
    settings = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with open(folder / "log", "w") as log:
        run = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)
    said = folder / "out" / "staging" / "uploader-0.json"
    while not said.exists():
        assert run.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    looks: dict[str, list[dict[str, int]]] = {"rank": [], "uploader": []}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(LOOK_EVERY)
        assert run.poll() is None, (folder / "log").read_text()
        uploader = json.loads(said.read_text())["process"]
        looks["uploader"].append(look(uploader))
        looks["rank"].append(look(parent_of(uploader)))
    run.send_signal(signal.SIGUSR1)
    run.wait(120)
    state = json.loads(said.read_text())
    # A run that is interrupted does not wait for long: what was under way is gone on with.
    push = [f"{sysconfig.get_path('scripts')}/hpcframe", "stage", "push", "out"]
    pushed = subprocess.run(push, cwd=folder, capture_output=True, text=True)
    print(f"{state['pushed']} checkpoints and {state['files']} files pushed, {state['sent'] / 1e9:.3g} GB in all")
    for who, taken in looks.items():
        first, last = taken[len(taken) // 10], taken[-1]
        print(f"{who}: {first} -> {last}")
    failed = [pushed.stderr] if pushed.returncode else []
    return [*failed, *grown(looks), *left(client, folder)]


def look(process: int) -> dict[str, int]:
    """Memory (kB), threads, open files."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {
        "memory": int(lines["VmRSS"].split()[0]),
        "threads": int(lines["Threads"]),
        "files": len(os.listdir(f"/proc/{process}/fd")),
    }


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def grown(looks: dict[str, list[dict[str, int]]]) -> list[str]:
    faults = []
    for who, taken in looks.items():
        tenth = max(1, len(taken) // 10)
        for what in taken[0]:
            first = max(each[what] for each in taken[tenth : 3 * tenth + 1])
            last = min(each[what] for each in taken[-2 * tenth :])
            if last > GROWTH * first:
                faults.append(f"{what} of the {who} grew from {first} to {last}")
    return faults


def left(client: Any, folder: Path) -> list[str]:
    faults = []
    unfinished = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    keys = [
        each["Key"] for each in client.list_objects_v2(Bucket=BUCKET, Prefix="soak/checkpoints").get("Contents", [])
    ]
    manifests = [key for key in keys if key.endswith("MANIFEST.json")]
    if unfinished:
        faults.append(f"{len(unfinished)} uploads were left")
    if not 1 <= len(manifests) <= 2:
        faults.append(f"{len(manifests)} checkpoints in S3 where 2 are to be kept")
    records = [*(folder / "out/staging/uploads").iterdir(), *(folder / "out/staging/holds").iterdir()]
    faults += [f"{path.name} was left" for path in records]
    shutil.rmtree(folder / "out", ignore_errors=True)
    return faults


if __name__ == "__main__":
    main()
