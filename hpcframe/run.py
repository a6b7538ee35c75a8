"""`python -m hpcframe.run sim.toml`: one simulation on all ranks that the launcher started.

Exit codes: 0 done, 2 the input is wrong, 3 there are checkpoints and none can be used, 75 interrupted with a
checkpoint written, so that the same command goes on from there, 1 anything else.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 75  # exit codes; 75 is EX_TEMPFAIL of sysexits.h: try again
PATIENCE = 1.0  # s that other tasks leave to the first one to say what is wrong

Picture = tuple[Path, Path, str]  # the file to draw from, the file to draw to, the field

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpcframe.simulation.fabric import Fabric
    from hpcframe.simulation.loop import Run


class _Parser(argparse.ArgumentParser):
    """Of as many tasks as there are ranks, one says what is wrong."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_refuse(f"{self.format_usage()}{self.prog}: error: {message}"))


def _refuse(text: str) -> int:
    """The first task says why, and leaves the outcome, before MPI connects the tasks. Returns the exit code."""
    from hpcframe.outcome import leave_outcome
    from hpcframe.protocol import launched_rank

    if launched_rank() == 0:
        sys.stderr.write(f"{text}\n")  # at once: Slurm may drop a line that is not whole when the task ends
        sys.stderr.flush()
        leave_outcome(WRONG_INPUT, "refused")
    else:
        time.sleep(PATIENCE)  # a launcher may end all tasks as soon as one has ended
    return WRONG_INPUT


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Not collective."""
    parser = _Parser(prog="hpcframe.run", description="Run a simulation on all ranks of this job.")
    parser.add_argument("configuration", type=Path, help="sim.toml; `hpcframe new heat` prints one")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a key of the file (TOML value)",
    )
    parser.add_argument("--dry-run", action="store_true", help="explain what would be done, and stop")
    parser.add_argument(
        "--restart",
        default="auto",
        metavar="auto|none|PATH|s3://...",
        help="go on from the newest checkpoint, here or else in S3, if there is any (auto); from none; or that",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit code. Collective over COMM_WORLD."""
    gc.disable()  # until the steps begin: what is imported stays, and looking through it again and again takes a while
    options = parse(arguments)
    warnings.formatwarning = lambda message, *_, **__: f"hpcframe: {message}\n"
    refused = _start_mpi()
    if refused:
        return refused
    from mpi4py import MPI

    from hpcframe.outcome import leave_outcome
    from hpcframe.simulation.failure import end_job

    world, failures = MPI.COMM_WORLD.Dup(), MPI.COMM_WORLD.Dup()
    try:
        code, reason, picture = _run(options, world)
        if world.rank == 0:
            leave_outcome(code, reason)
    except Exception as error:
        return end_job(failures, error)
    rank = world.rank
    MPI.Finalize()
    if picture and rank == 0:
        _draw(*picture)
    return 0 if rank else code  # a launcher may end the other ranks when one ends badly: rank 0 still draws


def _start_mpi() -> int:
    """Start MPI, where the launcher fits it; otherwise one task says what to do. The exit code, 0 if it fits."""
    import mpi4py

    mpi4py.rc.initialize = False
    from mpi4py import MPI

    from hpcframe.errors import InputError
    from hpcframe.protocol import check_launch, check_protocol

    library = MPI.Get_library_version()
    try:
        check_protocol(library)
        if not MPI.Is_initialized():
            MPI.Init_thread()
            atexit.register(_finalize)
        check_launch(MPI.COMM_WORLD.size, library)
    except InputError as error:  # tasks that do not see each other
        return _refuse(f"hpcframe: {error}")
    return 0


def _finalize() -> None:
    from mpi4py import MPI

    if not MPI.Is_finalized():
        MPI.Finalize()


def _run(options: argparse.Namespace, world: MPI.Intracomm) -> tuple[int, str, Picture | None]:
    """The exit code, why in a word, and what to draw."""
    from hpcframe.grid.communicator import connect
    from hpcframe.simulation.fabric import Fabric
    from hpcframe.simulation.interruption.interruptions import Interruptions
    from hpcframe.simulation.loop import Run

    configuration = _read(options, world)
    if options.dry_run:
        from hpcframe.simulation.planning import explain

        text = explain(configuration, world)
        if world.rank == 0:
            print(text, flush=True)
        return 0, "explained", None
    limit, node = configuration.monitor.time_limit, connect(world).node
    fabric = Fabric(node)
    interruptions = Interruptions(Path(configuration.simulation.directory), world, node, limit)
    try:
        run = Run(configuration, world, options.restart)
        if world.rank == 0:
            _announce(run)
        gc.freeze()  # what is there stays
        gc.enable()
        run.execute(interruptions)
        return _conclude(run, fabric, options.restart)
    finally:
        interruptions.close()


def _read(options: argparse.Namespace, world: MPI.Intracomm) -> Any:
    """Rank 0 reads the file, so that a shared file system sees one reader."""
    from hpcframe.grid.agreement import collectively
    from hpcframe.simulation.configuration import load

    configuration = None
    with collectively(world, "reading the configuration"):
        if world.rank == 0:
            configuration = load(options.configuration, options.set)
    return world.bcast(configuration)


def _announce(run: Run) -> None:
    grid = run.grid
    print(
        f"hpcframe: {run.configuration.simulation.name} on {' x '.join(map(str, grid.shape))} cells, "
        f"{grid.size} rank(s) as {' x '.join(map(str, grid.layout))}, "
        f"{run.steps.count} steps of {run.steps.dt:.4g} s",
        flush=True,
    )
    if run.first_step:
        print(f"continues from the checkpoint of step {run.first_step} (--restart none begins anew)", flush=True)


def _conclude(run: Run, fabric: Fabric, restart: str) -> tuple[int, str, Picture | None]:
    """Write the summary, and say where everything is."""
    from hpcframe.grid.agreement import collectively
    from hpcframe.simulation.results import describe, summarise
    from hpcframe.simulation.summary import write_summary

    summary = summarise(run, fabric)
    with collectively(run.comm, "writing the summary"):
        if run.comm.rank == 0:
            write_summary(run.directory / "summary.json", **summary)
    if run.comm.rank == 0:
        print(describe(run, summary))
        print(f"  result   {run.output.latest}")
        print(f"  summary  {run.directory / 'summary.json'}", flush=True)
        if run.is_interrupted:
            how = "the same command" if restart == "auto" else "this command without --restart"
            print(f"  {run.not_kept or f'checkpoint of step {run.step} kept: {how} continues from it'}", flush=True)
    not_staged = run.finish_staging()
    if run.staging and run.comm.rank == 0:
        print(f"  in S3    {not_staged or run.staging.options.url}", flush=True)
    assert run.output.latest is not None  # the last step is always written
    picture = (run.output.latest, run.directory / "result.png", run.chosen_fields()[0].name)
    kept = run.checkpointing.latest_step is not None
    # Who ends a cluster after a run that is done relies on it that all is in S3.
    code = (INTERRUPTED if kept else FAILED) if run.is_interrupted else FAILED if not_staged else 0
    reason = run.stopped_by.name if run.is_interrupted else "not staged" if not_staged else "done"
    return code, reason, picture if run.configuration.output.picture else None


def _draw(result: Path, picture: Path, field: str) -> None:
    """In a process of its own, since no rank loads a plotting library. Results are safe by now, so a picture that
    cannot be drawn is a notice, not an error."""
    program = [sys.executable, "-m", "hpcframe.picture", str(result), str(picture), field]
    drawn = subprocess.run(program, capture_output=True, text=True)
    reason = drawn.stderr.strip().splitlines()[-1:] or [f"exit code {drawn.returncode}"]
    print(f"  picture  {f'not drawn: {reason[0]}' if drawn.returncode else picture}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
