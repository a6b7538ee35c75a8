"""Lustre: can files be locked there, and over how many storage targets are those of the current folder spread?"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.mounts import mounted, type_in
from hpcframe.launch.checks.programs import ask, essence

LOCKS_BY_HAND = "grep lustre /proc/mounts"
STRIPING_BY_HAND = "lfs getstripe -d ."
MOUNT = "mount it with -o flock: HDF5 and MPI lock files that ranks write together"
LOCAL = "with localflock the nodes do not see each other's locks: mount it with -o flock"
SPREAD = "a file is written at the rate of one target: lfs setstripe -c -1 . (checkpoints are spread by hpcframe)"
NO_LFS = "install lustre-client: without lfs checkpoints are not spread over storage targets"


def locks(root: Path = Path("/")) -> Finding:
    """Not collective. `root` is the folder that holds /proc."""
    found = {mount.point: lock_of(mount.options) for mount in mounted(_mounts(root)) if mount.kind == "lustre"}
    if not found:
        return Finding("SKIP", "no Lustre is mounted")
    words = ", ".join(f"{point}: {lock}" for point, lock in found.items())
    if "no flock" in found.values():
        return Finding("FAIL", words, MOUNT)
    return Finding("PASS", words, LOCAL if "localflock" in found.values() else "")


def lock_of(options: tuple[str, ...]) -> str:
    """What locks reach, by the options of a mount: "flock" (all nodes), "localflock", "no flock". Not collective."""
    return next((kind for kind in ("flock", "localflock") if kind in options), "no flock")


def striping(folder: Path | None = None, root: Path = Path("/")) -> Finding:
    """Of `folder`, the current one if None. Not collective."""
    folder = folder or Path.cwd()
    if type_in(_mounts(root), folder.resolve()) != "lustre":
        return Finding("SKIP", "the current folder is not on Lustre")
    if not shutil.which("lfs"):
        return Finding("SKIP", "there is no lfs, by which Lustre says it", NO_LFS)
    asked = ask(["lfs", "getstripe", "-d", str(folder)])
    counts = stripe_counts(asked.stdout)
    if asked.returncode or not counts:
        return Finding("SKIP", f"lfs does not say it: {essence(asked.stderr + asked.stdout)}")
    words = ", then ".join("all" if number < 0 else str(number) for number in counts)
    return Finding("PASS", f"files are spread over {words} storage target(s)", SPREAD if counts[-1] == 1 else "")


def stripe_counts(said: str) -> list[int]:
    """Storage targets of a new file, by what `lfs getstripe -d` says; several where they become more as it grows.

    -1 means all. 0 is Lustre's default, which is 1, or a part that is on the metadata target. Not collective.
    """
    counts = [int(number) for number in re.findall(r"stripe_count:\s*(-?\d+)", said)]
    return [number for number in counts if number] or [1] * len(counts[:1])


def _mounts(root: Path) -> str:
    table = root / "proc/mounts"
    return table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
