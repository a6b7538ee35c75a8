"""How many ranks a node gets, and which of its cores each of them. Pure functions, but for `dies_of`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcframe.errors import InputError
from hpcframe.launch.checks.binding import numbers


@dataclass(frozen=True)
class Placement:
    """Ranks on a node.

    Attributes:
        ranks: a node.
        threads: a rank, each on a core of its own.
        cores_a_rank: for Slurm, which binds a rank to that many; None: all cores of the node are the job's, and
            `binding` lists those of each rank. Slurm would otherwise give a step of few ranks the first cores only.
        binding: for `srun --cpu-bind`.
    """

    ranks: int
    threads: int
    cores_a_rank: int | None
    binding: str

    @property
    def is_explicit(self) -> bool:
        """Whether cores are listed one by one."""
        return self.cores_a_rank is None

    def in_words(self) -> str:
        """
        >>> Placement(24, 1, None, "map_cpu:0").in_words()
        '24 ranks spread over dies'
        >>> Placement(1, 2, 2, "cores").in_words()
        '1 rank of 2 threads bound to 2 cores'
        """
        ranks = f"{self.ranks} rank{'s' * (self.ranks > 1)}"
        threads = f" of {self.threads} threads" if self.threads > 1 else ""
        if self.cores_a_rank is None:
            return f"{ranks}{threads} spread over dies"
        each = " each" * (self.ranks > 1)
        return f"{ranks}{threads} bound to {self.cores_a_rank} core{'s' * (self.cores_a_rank > 1)}{each}"


def place(
    cores: int, dies: int | None, nodes: int, fits: Callable[[int], bool], ranks: int | None = None, threads: int = 1
) -> Placement:
    """Place ranks on nodes.

    Args:
        cores: of a node.
        dies: groups of successive cores with a cache each; None: not known.
        fits: whether a number of ranks in all can share the grid.
        ranks: a node; None: as many as cores and grid allow.
        threads: a rank.

    Raises:
        InputError: they do not fit.
    """
    most = cores // threads
    if ranks is not None and ranks > most:
        raise InputError(
            f"{ranks} ranks a node of {threads} thread(s) need {ranks * threads} cores, and a node has {cores}; "
            + (f"give --ranks-per-node {most} or fewer, or fewer --threads" if most else "give fewer --threads")
        )
    if most == 0:
        raise InputError(f"--threads {threads}: a node has {cores} cores; give {cores} or fewer")
    possible = next((number for number in range(ranks or most, 0, -1) if fits(nodes * number)), None)
    if possible is None:
        raise InputError(f"the grid has too few cells for one rank on each of {nodes} nodes; give fewer --nodes")
    if ranks is not None and possible != ranks:
        raise InputError(
            f"{nodes * ranks} ranks cannot share the grid, {nodes * possible} can; give --ranks-per-node {possible}, "
            f"or fewer --nodes"
        )
    return _bound(cores, dies, possible, threads)


def _bound(cores: int, dies: int | None, ranks: int, threads: int) -> Placement:
    if ranks * threads == cores or dies is None or cores % dies:
        return Placement(ranks, threads, cores // ranks, "cores")
    die = cores // dies
    successive = [range(first, first + die) for first in range(0, cores, die)]
    return Placement(ranks, threads, None, binding(spread_over(successive, ranks, threads)))


def spread_over(dies: Sequence[Sequence[int]], ranks: int, threads: int) -> list[Sequence[int]]:
    """The cores of each rank, so that dies have equal numbers of ranks, or differ by one.

    Fewer ranks than cores would otherwise pack one socket, and leave the memory of the other idle. Where it is
    possible at all, the threads of a rank share a die. Ranks that follow each other are neighbours.

    Args:
        dies: the numbers of the cores of each, as many in all.
    """
    cores, die = [core for each in dies for core in each], len(dies[0])
    if ranks > len(dies) * (die // threads):  # somebody has to straddle
        starts = [rank * len(cores) // ranks for rank in range(ranks)]
        return [cores[start : start + threads] for start in starts]
    placed: list[Sequence[int]] = []
    for number, own in enumerate(dies):
        here = (number + 1) * ranks // len(dies) - number * ranks // len(dies)
        starts = [rank * die // here for rank in range(here)]
        placed += [own[start : start + threads] for start in starts]
    return placed


def binding(placed: Sequence[Sequence[int]]) -> str:
    """Core lists for `srun --cpu-bind`: numbers, or masks where a rank has several cores.

    >>> binding([range(0, 1), range(8, 9)]), binding([range(0, 2), range(4, 6)])
    ('map_cpu:0,8', 'mask_cpu:0x3,0x30')
    """
    if all(len(cores) == 1 for cores in placed):
        return "map_cpu:" + ",".join(str(cores[0]) for cores in placed)
    return "mask_cpu:" + ",".join(hex(sum(1 << core for core in cores)) for cores in placed)


def dies_of(system: Path) -> list[list[int]]:
    """The cores of each die of this node, by what Linux says of the last-level caches. A core has the number of its
    first hardware thread. Not collective.

    Args:
        system: /sys.
    """
    processors = system / "devices/system/cpu"
    siblings = (numbers(file.read_text()) for file in processors.glob("cpu[0-9]*/topology/thread_siblings_list"))
    cores = {min(threads) for threads in siblings}
    caches = {file.read_text() for file in processors.glob("cpu[0-9]*/cache/index3/shared_cpu_list")}
    return sorted(sorted(numbers(cache) & cores) for cache in caches)


def main(arguments: list[str]) -> None:
    """For a batch script: python -m hpcframe.launch.placement CORES RANKS THREADS SYS, all of a node. Prints the
    `--cpu-bind` that spreads ranks over dies, or "cores" where Linux does not tell of so many cores."""
    cores, ranks, threads = map(int, arguments[:3])
    dies = dies_of(Path(arguments[3]))
    alike = len({len(die) for die in dies}) == 1 and sum(map(len, dies)) == cores
    print(binding(spread_over(dies, ranks, threads)) if alike and ranks * threads <= cores else "cores")


if __name__ == "__main__":
    main(sys.argv[1:])
