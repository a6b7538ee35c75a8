"""What the kernel does against faults of this CPU. It costs time in system calls, which differs between nodes."""

from __future__ import annotations

from pathlib import Path

from hpcframe.launch.checks.finding import Finding

FOLDER = "sys/devices/system/cpu/vulnerabilities"
BY_HAND = f"grep . /{FOLDER}/*"


def mitigations(root: Path = Path("/")) -> Finding:
    """Not collective. `root` is the folder that holds /sys."""
    states = {file.name: file.read_text(encoding="utf-8").strip() for file in sorted((root / FOLDER).glob("*"))}
    if not states:
        return Finding("SKIP", f"unknown here: there is no /{FOLDER}")
    on = [name for name, state in states.items() if "Mitigation" in state]
    left = [name for name, state in states.items() if state.startswith("Vulnerable")]
    said = [f"on: {', '.join(on)}"] if on else []
    said += [f"off, though the CPU is vulnerable: {', '.join(left)}"] if left else []
    return Finding("PASS", "; ".join(said) or "this CPU needs none")
