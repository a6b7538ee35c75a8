"""What is known of the memory of instance types: how fast it is, and how their cores lie by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Memory:
    """The memory of a node.

    Attributes:
        triad: GB/s (1e9 B/s) of the STREAM triad on the whole node.
        dies: groups of cores with a last-level cache each; the cores of one have successive numbers.
    """

    triad: float
    dies: int


# Triad and dies as expected by aws-samples/hpc-applications, apps/Stream/README.md (commit 69f8289), which measures
# with one core a die. The smaller hpc7a have the same dies with fewer cores of each, so it holds for them, too.
INSTANCES = {
    "hpc6a.48xlarge": Memory(400.0, 12),
    "hpc7a.12xlarge": Memory(700.0, 24),
    "hpc7a.24xlarge": Memory(700.0, 24),
    "hpc7a.48xlarge": Memory(700.0, 24),
    "hpc7a.96xlarge": Memory(700.0, 24),
    "hpc8a.96xlarge": Memory(1000.0, 24),
}
