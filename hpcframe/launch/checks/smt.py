"""Simultaneous multithreading: two hardware threads of a core share what stencils are short of."""

from __future__ import annotations

from pathlib import Path

from hpcframe.launch.checks.finding import Finding

FILE = "sys/devices/system/cpu/smt/control"
BY_HAND = f"cat /{FILE}"
OFF = {"off": "off", "forceoff": "off", "notsupported": "none on this CPU", "notimplemented": "none on this CPU"}
SWITCH_OFF = (
    "start one rank a core (sbatch --threads-per-core=1), or switch it off: "
    "ParallelCluster: DisableSimultaneousMultithreading: true; as root: echo off >/" + FILE
)


def control(root: Path = Path("/")) -> Finding:
    """Not collective. `root` is the folder that holds /sys."""
    try:
        state = (root / FILE).read_text(encoding="ascii").strip()
    except OSError as error:
        return Finding("SKIP", f"unknown here: /{FILE}: {error.strerror}")
    if state == "on":
        return Finding("PASS", "on", SWITCH_OFF)
    return Finding("PASS", OFF.get(state, state))
