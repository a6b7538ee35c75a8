"""Elastic Fabric Adapters: are there any, have they carried anything, and can libfabric use them?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hpcframe import efa
from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.programs import ask, essence
from hpcframe.launch.checks.units import count, gigabytes
from hpcframe.metadata import FIRMWARE, is_ec2

INSTALLED = "opt/amazon/efa/bin"  # where Amazon's installer puts it, on no PATH
ADAPTERS_BY_HAND = "grep . /sys/class/infiniband/*/ports/1/hw_counters/*x_bytes"
PROVIDER_BY_HAND = "/opt/amazon/efa/bin/fi_info -p efa"
UNUSED = "they have sent nothing yet; after a run on several nodes summary.json says whether they carried it"
ENABLE = "this is an EC2 instance: if its type has EFA, enable it (ParallelCluster: Efa: {Enabled: true})"
INSTALL = "install Amazon's libfabric (aws-efa-installer), and start ranks with an MPI that is built on it"


def adapters(root: Path = efa.ROOT) -> Finding:
    """Not collective. `root` is the folder that holds /sys."""
    found = efa.adapters(root)
    if not found:
        return Finding("SKIP", "there are none", ENABLE if is_ec2(root / FIRMWARE.relative_to("/")) else "")
    sent = efa.traffic(root).sent
    names = ", ".join(device.name for device in found)
    moved = f"{names}, {gigabytes(sent)} sent since the machine started"
    return Finding("PASS", count(len(found), "adapter"), "" if sent else UNUSED, moved)


def provider(root: Path = efa.ROOT) -> Finding:
    """Not collective."""
    program = shutil.which("fi_info", path=os.pathsep.join([os.environ.get("PATH", ""), str(root / INSTALLED)]))
    if program is None:
        return Finding("SKIP", "there is no fi_info, by which libfabric says what it can use", INSTALL)
    asked = ask([program, "-p", "efa"])
    if asked.returncode or "provider: efa" not in asked.stdout:
        return Finding("FAIL", f"libfabric cannot use them: {essence(asked.stderr + asked.stdout)}", INSTALL)
    return Finding("PASS", f"libfabric can use them ({program})")
