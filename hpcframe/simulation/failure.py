"""The end of a run that failed: one report, from one rank, and nobody left waiting."""

from __future__ import annotations

import sys
import time
import traceback

from mpi4py import MPI

from hpcframe.errors import HpcframeError, InputError, NoCheckpointError, RemoteError
from hpcframe.outcome import leave_outcome

FAILED, WRONG_INPUT, NO_CHECKPOINT = 1, 2, 3  # exit codes
PATIENCE = 1.0  # s that a rank waits for all others to fail too
STAGGER, LONGEST = 0.05, 2.0  # s a rank, s at most: the first to report ends the job before the next one does


def end_job(comm: MPI.Intracomm, error: BaseException) -> int:
    """Report an error and see that every rank ends within five seconds. Called by each rank that fails.

    Where all ranks fail, one reports and all return the exit code. Where some do, others may wait for messages that
    never come, so the first to report aborts the job.

    Args:
        comm: a communicator of all ranks that is used for nothing else: whatever the others do, they are not there.
    """
    code = exit_code(error)
    if _all_failed(comm):
        remote = isinstance(error, RemoteError)
        some_remote = comm.allreduce(remote)
        reporter = comm.allreduce(comm.size if remote else comm.rank, MPI.MIN)
        if comm.rank == reporter % comm.size:
            _report(comm, error, its_own=bool(some_remote))
        code = int(comm.allreduce(code, MPI.MAX))
        if comm.rank == 0:
            leave_outcome(code, "failed")
        return code
    time.sleep(min(comm.rank * STAGGER, LONGEST))
    _report(comm, error, its_own=True)
    comm.Abort(code)
    return code


def exit_code(error: BaseException) -> int:
    """Not collective."""
    if isinstance(error, NoCheckpointError):
        return NO_CHECKPOINT
    return WRONG_INPUT if isinstance(error, InputError) else FAILED


def _all_failed(comm: MPI.Intracomm) -> bool:
    request = comm.Ibarrier()
    deadline = time.monotonic() + PATIENCE
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _report(comm: MPI.Intracomm, error: BaseException, its_own: bool) -> None:
    """What hpcframe says on purpose is a message to the user; anything else is shown with its traceback.

    `its_own` says that other ranks did not fail in the same way, so that it matters which rank this is.
    """
    where = f"rank {comm.rank} of {comm.size} on {MPI.Get_processor_name()}"
    say(error, where, its_own)


def say(error: BaseException, where: str, its_own: bool = False) -> None:
    """To standard error. Not collective."""
    if isinstance(error, HpcframeError):
        text = f"hpcframe: {f'{where}: ' if its_own else ''}{error}\n"
    else:
        text = f"hpcframe: {where} failed:\n{''.join(traceback.format_exception(error))}"
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
