"""How many ranks a node gets, and which of its cores each of them. Pure functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from hpcframe.errors import InputError


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
    return Placement(ranks, threads, None, binding(spread_over(cores, dies, ranks, threads)))


def spread_over(cores: int, dies: int, ranks: int, threads: int) -> list[range]:
    """The cores of each rank, so that dies have equal numbers of ranks, or differ by one.

    Fewer ranks than cores would otherwise pack one socket, and leave the memory of the other idle. Where it is
    possible at all, the threads of a rank share a die. Ranks that follow each other are neighbours.
    """
    die = cores // dies
    if ranks > dies * (die // threads):  # somebody has to straddle
        starts = [rank * cores // ranks for rank in range(ranks)]
        return [range(start, start + threads) for start in starts]
    placed = []
    for number in range(dies):
        here = (number + 1) * ranks // dies - number * ranks // dies
        starts = [number * die + rank * die // here for rank in range(here)]
        placed += [range(start, start + threads) for start in starts]
    return placed


def binding(placed: list[range]) -> str:
    """Core lists for `srun --cpu-bind`: numbers, or masks where a rank has several cores.

    >>> binding([range(0, 1), range(8, 9)]), binding([range(0, 2), range(4, 6)])
    ('map_cpu:0,8', 'mask_cpu:0x3,0x30')
    """
    if all(len(cores) == 1 for cores in placed):
        return "map_cpu:" + ",".join(str(cores[0]) for cores in placed)
    return "mask_cpu:" + ",".join(hex(sum(1 << core for core in cores)) for cores in placed)


def main(arguments: list[str]) -> None:
    """For a batch script: python -m hpcframe.launch.placement CORES DIES RANKS THREADS, all of a node. Prints the
    `--cpu-bind` that spreads ranks over dies, or "cores" where dies are not known."""
    cores, dies, ranks, threads = map(int, arguments)
    print(_bound(cores, dies or None, ranks, threads).binding)


if __name__ == "__main__":
    main(sys.argv[1:])
