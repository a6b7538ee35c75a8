"""The checks of `hpcframe doctor`. Each runs in a process of its own: `python -m hpcframe.launch.checks TITLE`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcframe.launch.checks import cache, folders, libraries, machine, mpi, slurm
from hpcframe.launch.checks.finding import Finding


@dataclass(frozen=True)
class Check:
    """A question about this machine.

    Attributes:
        title: its name in the report.
        look: finds the answer. It may hang or crash: whoever calls it in a process of its own sees to that.
        needs: titles of the checks before it that must have passed.
        when_hung: what to do if there is no answer; "" where it depends.
    """

    title: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    when_hung: str = ""


CHECKS = (
    Check("Python", libraries.python),
    Check("temporary folder", folders.temporary, when_hung=folders.SET_TMPDIR),
    Check("mpiexec", mpi.launcher, when_hung=mpi.MPIEXEC_HUNG),
    Check("mpi4py", mpi.library),
    Check("MPI and mpi4py agree", mpi.agreement, needs=("mpiexec", "mpi4py"), when_hung=mpi.BY_HAND),
    Check("srun and mpi4py agree", slurm.agreement, needs=("mpi4py",), when_hung=slurm.WHEN_HUNG),
    Check("ranks and nodes", machine.node),
    Check("h5py", libraries.h5py),
    Check("numba", libraries.numba),
    Check("cache of compiled code", cache.cache, needs=("numba",), when_hung=cache.ELSEWHERE),
    Check("current folder", folders.current, when_hung=folders.GO_ELSEWHERE),
)
