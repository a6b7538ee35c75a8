"""The Elastic Fabric Adapters of this node, and the bytes that each has moved, as Linux counts them.

Sources: drivers/infiniband/hw/efa in Linux (names of the counters), "Monitor an Elastic Fabric Adapter", EC2 User Guide
(what they count).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

AMAZON = "0x1d0f"  # its vendor number on the PCI bus
ROOT = Path("/")

# What crosses the device, and how the operations of a program add up to it. Older drivers have only some of these.
SENT = ("tx_bytes", ("send_bytes", "rdma_write_bytes", "rdma_read_resp_bytes"))
RECEIVED = ("rx_bytes", ("recv_bytes", "rdma_write_recv_bytes", "rdma_read_bytes"))


@dataclass(frozen=True)
class Traffic:
    """Bytes that adapters sent and received."""

    sent: int
    received: int

    def since(self, earlier: Traffic) -> Traffic:
        """What was moved after `earlier`; 0 where a reset has set counters back. Not collective."""
        return Traffic(max(0, self.sent - earlier.sent), max(0, self.received - earlier.received))


def adapters(root: Path = ROOT) -> list[Path]:
    """The folders of the adapters of this node; other makes of InfiniBand are none. Not collective."""
    devices = sorted((root / "sys/class/infiniband").glob("*"))
    return [device for device in devices if _text(device / "device/vendor") == AMAZON]


def traffic(root: Path = ROOT) -> Traffic:
    """What all adapters of this node have moved since it started, whoever used them. Not collective."""
    counters = [device / "ports/1/hw_counters" for device in adapters(root)]
    return Traffic(sum(_bytes(folder, *SENT) for folder in counters), sum(_bytes(f, *RECEIVED) for f in counters))


def _bytes(counters: Path, whole: str, parts: Iterable[str]) -> int:
    """Whether the whole includes what RDMA moves depends on the device; the larger of both counts is all of it."""
    return max(_number(counters / whole), sum(_number(counters / part) for part in parts))


def _number(counter: Path) -> int:
    text = _text(counter)
    return int(text) if text.isdigit() else 0


def _text(file: Path) -> str:
    """Its text, "" where there is none."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
