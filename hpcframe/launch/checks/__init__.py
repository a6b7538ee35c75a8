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
    fronts,
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
        by_hand: commands that show the same.
        everywhere: whether it is about a node, so that `--nodes` has every node answer.
    """

    title: str
    look: Callable[[], Finding]
    by_hand: str
    needs: tuple[str, ...] = ()
    when_hung: str = ""
    everywhere: bool = False


CHECKS = (
    Check("Python", libraries.python, "python --version", everywhere=True),
    Check(
        "temporary folder", folders.temporary, folders.TEMPORARY_BY_HAND, when_hung=folders.SET_TMPDIR, everywhere=True
    ),
    Check("mpiexec", mpi.launcher, "mpiexec --version", when_hung=mpi.MPIEXEC_HUNG),
    Check("mpi4py", mpi.library, "python -m mpi4py --mpi-lib-version", everywhere=True),
    Check("MPI and mpi4py agree", mpi.agreement, mpi.BY_HAND, needs=("mpiexec", "mpi4py")),
    Check("srun and mpi4py agree", slurm.agreement, slurm.BY_HAND, needs=("mpi4py",), when_hung=slurm.WHEN_HUNG),
    Check("ranks and nodes", machine.node, "lscpu; free", everywhere=True),
    Check("NUMA binding", binding.binding, binding.BY_HAND, everywhere=True),
    Check("SMT", smt.control, smt.BY_HAND, everywhere=True),
    Check("CPU mitigations", mitigations.mitigations, mitigations.BY_HAND, everywhere=True),
    Check("huge pages", pages.huge, pages.BY_HAND, everywhere=True),
    Check("clock", clock.clock, clock.BY_HAND, everywhere=True),
    Check("EFA adapters", efa.adapters, efa.ADAPTERS_BY_HAND, everywhere=True),
    Check("EFA provider", efa.provider, efa.PROVIDER_BY_HAND, needs=("EFA adapters",), everywhere=True),
    Check("limits", limits.limits, limits.BY_HAND, everywhere=True),
    Check("placement group", placement.group, placement.BY_HAND, everywhere=True),
    Check("h5py", libraries.h5py, libraries.H5PY_BY_HAND, everywhere=True),
    Check("numba", libraries.numba, "numba -s", everywhere=True),
    Check(
        "cache of compiled code",
        cache.cache,
        cache.BY_HAND,
        needs=("numba",),
        when_hung=cache.ELSEWHERE,
        everywhere=True,
    ),
    Check("steps in one pass", fronts.fronts, fronts.BY_HAND, needs=("cache of compiled code",), everywhere=True),
    Check("current folder", folders.current, folders.CURRENT_BY_HAND, when_hung=folders.GO_ELSEWHERE, everywhere=True),
    Check("Lustre locks", lustre.locks, lustre.LOCKS_BY_HAND, everywhere=True),
    Check("Lustre striping", lustre.striping, lustre.STRIPING_BY_HAND),
    Check("S3 bucket", s3.bucket, s3.BY_HAND, everywhere=True),
)
