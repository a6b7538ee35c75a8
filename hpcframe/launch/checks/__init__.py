"""The checks of `hpcframe doctor`. Each runs in a process of its own: `python -m hpcframe.launch.checks TITLE`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcframe.launch.checks import (
    binding,
    cache,
    clock,
    efa,
    folders,
    libraries,
    limits,
    lustre,
    machine,
    mitigations,
    mpi,
    pages,
    placement,
    s3,
    slurm,
    smt,
)
from hpcframe.launch.checks.finding import Finding


@dataclass(frozen=True)
class Check:
    """A question about this machine.

    Attributes:
        title: its name in the report.
        look: finds the answer. It may hang or crash: whoever calls it in a process of its own sees to that.
        needs: titles of the checks before it that must have passed.
        when_hung: what to do if there is no answer; "" where it depends.
        by_hand: commands that show the same; "" where the finding does.
        everywhere: whether it is about a node, so that `--nodes` has every node answer.
    """

    title: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    when_hung: str = ""
    by_hand: str = ""
    everywhere: bool = False


CHECKS = (
    Check("Python", libraries.python, everywhere=True),
    Check("temporary folder", folders.temporary, when_hung=folders.SET_TMPDIR, everywhere=True),
    Check("mpiexec", mpi.launcher, when_hung=mpi.MPIEXEC_HUNG),
    Check("mpi4py", mpi.library, everywhere=True),
    Check("MPI and mpi4py agree", mpi.agreement, needs=("mpiexec", "mpi4py"), when_hung=mpi.BY_HAND),
    Check("srun and mpi4py agree", slurm.agreement, needs=("mpi4py",), when_hung=slurm.WHEN_HUNG),
    Check("ranks and nodes", machine.node, everywhere=True),
    Check("NUMA binding", binding.binding, by_hand=binding.BY_HAND),
    Check("SMT", smt.control, by_hand=smt.BY_HAND, everywhere=True),
    Check("CPU mitigations", mitigations.mitigations, by_hand=mitigations.BY_HAND, everywhere=True),
    Check("huge pages", pages.huge, by_hand=pages.BY_HAND, everywhere=True),
    Check("clock", clock.clock, by_hand=clock.BY_HAND, everywhere=True),
    Check("EFA adapters", efa.adapters, by_hand=efa.ADAPTERS_BY_HAND, everywhere=True),
    Check("EFA provider", efa.provider, needs=("EFA adapters",), by_hand=efa.PROVIDER_BY_HAND, everywhere=True),
    Check("limits", limits.limits, by_hand=limits.BY_HAND, everywhere=True),
    Check("placement group", placement.group, by_hand=placement.BY_HAND, everywhere=True),
    Check("h5py", libraries.h5py, everywhere=True),
    Check("numba", libraries.numba, everywhere=True),
    Check("cache of compiled code", cache.cache, needs=("numba",), when_hung=cache.ELSEWHERE, everywhere=True),
    Check("current folder", folders.current, when_hung=folders.GO_ELSEWHERE, everywhere=True),
    Check("Lustre locks", lustre.locks, by_hand=lustre.LOCKS_BY_HAND, everywhere=True),
    Check("Lustre striping", lustre.striping, by_hand=lustre.STRIPING_BY_HAND),
    Check("S3 bucket", s3.bucket, by_hand=s3.BY_HAND, everywhere=True),
)
