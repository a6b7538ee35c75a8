"""`hpcframe submit`, `status` and `cancel`: jobs of Slurm. Like the rest of the command, no rank."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcframe.cli_needs import needs_in, steps_of

if TYPE_CHECKING:
    from hpcframe.grid.decomposition import Decomposition
    from hpcframe.launch.partitions import NodeType
    from hpcframe.launch.placement import Placement
    from hpcframe.launch.submission import Request
    from hpcframe.simulation.needs import Needs

RANK_OVERHEAD = 250 << 20  # bytes a rank besides its fields: Python, the compiler and its machine code, MPI's buffers

Times = Annotated[
    str | None,
    typer.Option(metavar="2h30m", help="limit: 2h30m, or Slurm's forms (90 is minutes, 2:30:00, 1-12 is days-hours)"),
]
Job = Annotated[str, typer.Argument(help="its id", show_default=False)]


def submit(
    configuration: Annotated[Path, typer.Argument(help="sim.toml", show_default=False)],
    nodes: Annotated[int, typer.Option(min=1, help="how many")] = 1,
    partition: Annotated[str | None, typer.Option(help="Slurm's default if not given", show_default=False)] = None,
    spot: Annotated[bool, typer.Option("--spot", help="on Spot instances, which may be taken back")] = False,
    time: Times = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="SECTION.KEY=VALUE,VALUE,...", help="a run for each value of a key")
    ] = None,
    chain: Annotated[int, typer.Option(min=1, help="so many jobs, each going on where the one before stopped")] = 1,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="as many as cores and grid allow if not given", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="a rank")] = 1,
    constraint: Annotated[str | None, typer.Option(help="a feature of nodes, such as hpc7a.96xlarge")] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key (TOML value)")
    ] = [],  # noqa: B006 - typer reads it, nothing changes it
    options: Annotated[
        list[str], typer.Option("--sbatch", metavar="OPTION", help="for sbatch: --sbatch=--account=NAME")
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be submitted, and stop")] = False,
) -> None:
    """Submit a simulation to Slurm: choose ranks and binding, refuse what cannot run, say what it takes."""
    from hpcframe.launch import durations
    from hpcframe.launch.jobs import comment
    from hpcframe.launch.partitions import choose, node_types
    from hpcframe.launch.placement import place
    from hpcframe.launch.submission import Request, check, parse_sweep

    needs, swept = needs_in(configuration, overrides), parse_sweep(sweep) if sweep else None
    if swept:
        for value in swept.values:
            needs_in(configuration, [*overrides, f"{swept.key}={value}"])
    types = choose(node_types(), partition, spot, constraint)
    kind = min(types, key=lambda each: (each.cores, each.memory))  # the job may land on any of them
    request = Request(
        configuration, needs.configuration.simulation.name, nodes, kind.partition, tuple(overrides),
        durations.seconds(time) if time else None, spot, constraint, swept, chain, tuple(options),
    )  # fmt: skip
    check(request, types)
    dies = (kind.known_memory.dies or None) if kind.known_memory else None
    placement = place(kind.cores, dies, nodes, needs.fits, ranks_per_node, threads)
    steps = _explain(request, needs, types, kind, placement)
    folder = Path(needs.configuration.simulation.directory)
    told = f"sweep of {swept.key}" if swept else comment(folder, steps)  # its runs have folders of their own
    _hand_over(request, kind, placement, told, dry_run)


def _explain(request: Request, needs: Needs, types: list[NodeType], kind: NodeType, placement: Placement) -> int | None:
    """Say what the job will be, once it fits; the number of steps, where that can be told here."""
    from hpcframe.launch.submission import check_memory
    from hpcframe.simulation.needs import largest
    from hpcframe.simulation.planning import checkpoints_in_words, in_bytes, product

    ranks = request.nodes * placement.ranks
    plan = needs.decomposition(ranks, placement.ranks)
    memory = placement.ranks * _memory_a_rank(needs, plan)
    check_memory(memory, kind, request.nodes)
    steps = steps_of(needs, needs.memory_a_rank(plan) * ranks)
    print(f"nodes        {_nodes_in_words(request, types, kind)}")
    print(f"ranks        {ranks} as {product(plan.layout)}, blocks of up to {product(largest(plan))} cells")
    print(f"a node       {placement.in_words()}, {in_bytes(memory)} of memory")
    print(f"time         {_time_in_words(request, needs, kind, steps)}")
    print(f"checkpoints  {checkpoints_in_words(needs.configuration, steps, needs.checkpoint_bytes())}")
    return steps


def _nodes_in_words(request: Request, types: list[NodeType], kind: NodeType) -> str:
    from hpcframe.simulation.planning import in_bytes

    differ = "; nodes differ, this is the smallest, see --constraint" if len(types) > 1 else ""
    cores = f"{kind.cores} cores" + ("" if kind.knows_cores else " (or hardware threads: Slurm does not tell)")
    what = f"{kind.instance or 'nodes'} of {cores}, {in_bytes(kind.memory)}"
    return f"{request.nodes} of {sum(each.count for each in types)} in partition {kind.partition}: {what}{differ}"


def _memory_a_rank(needs: Needs, plan: Decomposition) -> int:
    behind = needs.configuration.checkpoint.asynchronous  # a copy of the state is written behind the simulation
    return RANK_OVERHEAD + needs.memory_a_rank(plan) + behind * needs.checkpoint_bytes() // plan.ranks


def _time_in_words(request: Request, needs: Needs, kind: NodeType, steps: int | None) -> str:
    from hpcframe.launch.estimate import time_in_words

    moved = needs.bytes_a_point * math.prod(needs.configuration.grid.shape)
    return time_in_words(steps, moved, kind, request.nodes, request.time or kind.default_time or kind.time_limit)


def _hand_over(request: Request, kind: NodeType, placement: Placement, comment: str, dry_run: bool) -> None:
    from hpcframe.launch import submission
    from hpcframe.launch.slurm import as_typed

    line = submission.command(request, placement, kind, comment, submission.scripts())
    changes = submission.environment(request, placement)
    print(f"\n{as_typed(line, changes)}\n", flush=True)
    if dry_run:
        return
    job = submission.submit(line, changes)
    log = shlex.quote(str(submission.log_of(request, job)))
    print(f"submitted    job {job}")
    print(f"watch        hpcframe status {job}; tail -F {log}")
    print(f"stop         hpcframe cancel {job}, or with --checkpoint to keep what was computed")


def status(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="all of yours if not given")] = None,
) -> None:
    """Show jobs: where they are, why they wait and what to do about it, how far the run is."""
    from hpcframe.launch.jobs import describe, jobs
    from hpcframe.launch.progress import progress

    found = jobs(ids or ())
    if not found:
        print("no job of yours by hpcframe waits or runs")
    for job in found:
        print(describe(job))
        if job.folder:
            lines = [*progress(job.folder, job.steps), _newest_checkpoint(job.folder)]
            print("\n".join(f"    {line}" for line in lines if line))


def _newest_checkpoint(folder: Path) -> str:
    from hpcframe.checkpoint.inspection import FOLDER, checkpoints_at, read_body
    from hpcframe.errors import HpcframeError, InputError

    try:
        newest, _ = read_body(checkpoints_at(folder / FOLDER)[0])
    except InputError as error:
        unreadable = isinstance(error.__cause__, PermissionError)  # `progress` has told so
        return "" if unreadable else "no checkpoint"
    except HpcframeError as error:
        return str(error)
    return f"newest checkpoint: step {newest.step}, t = {newest.time:g} s"


def cancel(
    job: Job,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="have a running job write a checkpoint, and stop then")
    ] = False,
) -> None:
    """Stop a job for good: it is not requeued."""
    from hpcframe.launch import jobs

    print(jobs.cancel(job, checkpoint))
