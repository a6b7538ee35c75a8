"""A Cartesian grid over the ranks of a communicator: who owns what, and the fields on it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcframe.errors import InputError
from hpcframe.grid.communicator import connect
from hpcframe.grid.decomposition import Axes, Block, decompose
from hpcframe.grid.exchange import HaloExchange
from hpcframe.grid.field import Field
from hpcframe.grid.halo import Reads, box_reads
from hpcframe.protocol import check_launch
from hpcframe.threads import VARIABLE, threads_wanted

PLANS_KEPT = 128  # exchanges and sweeps that are kept for the next time, with the fields that they are for


class Plan(Protocol):
    """Something that is planned once and used many times."""

    @property
    def current(self) -> bool:
        """Whether it still holds."""

    @property
    def under_way(self) -> bool:
        """Started and not finished."""

    def free(self) -> None:
        """Release what it holds."""


P = TypeVar("P", bound=Plan)


class CartesianGrid:
    """Cells of a box, cut into one block a rank.

    Attributes:
        shape: cells along each axis.
        extent: length of each axis (m).
        origin: coordinate of the lower corner (m).
        spacing: extent / shape (m); a cell's point is its centre.
        periodic: whether each axis wraps around.
        comm: hpcframe's own duplicate of the communicator; `rank` and `size` are those of the original.
        decomposition, layout, coordinates: the cut; blocks along each axis; this rank's block among them.
        block: the slice of the grid that this rank owns.
        seconds: time (s) this rank spent so far in compiled loops (compute), filling halos and messages (pack), waiting
            for messages (wait), and in reductions (reduce).
        threads: of each rank, the same on every rank.
        time_blocking: whether stencils may do several steps in one pass over memory; the same on every rank.
        time: simulated time (s), which boundary conditions may depend on. Logically collective.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        extent: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        periodic: bool | Sequence[bool] = False,
        ranks: Sequence[int] | None = None,
        comm: MPI.Intracomm | None = None,
    ) -> None:
        """Collective.

        Args:
            shape: cells along each of one to three axes.
            extent: length of each axis (m); one each if not given.
            origin: coordinate of the lower corner (m); zero if not given.
            periodic: for all axes, or for each.
            ranks: blocks along each axis; 0 leaves an axis to be chosen.
            comm: any intracommunicator; COMM_WORLD if not given.

        Raises:
            InputError: the same on every rank, before memory is taken: impossible numbers, more ranks than cells,
                or a launcher that started tasks which do not see each other.
        """
        comm = MPI.COMM_WORLD if comm is None else comm
        if MPI.Comm.Compare(comm, MPI.COMM_WORLD) == MPI.IDENT:
            check_launch(comm.size, MPI.Get_library_version())
        self._set_geometry(shape, extent, origin, periodic)
        wanted = None if ranks is None else _axes("ranks", ranks, 0)
        self._check_count("ranks", wanted or self.shape)
        self._set_blocks(comm, wanted)
        self.time = 0.0
        self.time_blocking = True
        self.seconds = {"compute": 0.0, "pack": 0.0, "wait": 0.0, "reduce": 0.0}
        self._plans: dict[Any, Plan] = {}
        self._settings: dict[str, str | None] = {}
        self.threads = threads_wanted(self.setting(VARIABLE))

    def _set_geometry(
        self,
        shape: int | Sequence[int],
        extent: Sequence[float] | None,
        origin: Sequence[float] | None,
        periodic: bool | Sequence[bool],
    ) -> None:
        self.shape = _axes("shape", (shape,) if isinstance(shape, int | np.integer) else shape, 1)
        self.ndim = len(self.shape)
        if self.ndim > 3:
            raise InputError(f"grid: shape {list(self.shape)} has {self.ndim} axes; 1 to 3 are possible")
        self.extent = self._lengths("extent", extent, 1.0)
        self.origin = self._lengths("origin", origin, 0.0)
        if min(self.extent) <= 0:
            raise InputError(f"grid: extent {list(self.extent)}: every axis needs a positive length (m)")
        self.spacing = tuple(length / cells for length, cells in zip(self.extent, self.shape, strict=True))
        every = isinstance(periodic, bool | np.bool_)
        self.periodic = (bool(periodic),) * self.ndim if every else tuple(map(bool, cast(Sequence[bool], periodic)))
        self._check_count("periodic", self.periodic)

    def _set_blocks(self, comm: MPI.Intracomm, wanted: Axes | None) -> None:
        self.shared = connect(comm)
        self.comm = self.shared.comm
        self.rank, self.size = self.comm.rank, self.comm.size
        self.decomposition = decompose(self.shape, self.periodic, self.shared.node_of_rank, wanted)
        self.layout = self.decomposition.layout
        self.coordinates = self.decomposition.coordinates(self.rank)
        self.block = self.decomposition.block(self.rank)

    def _lengths(self, name: str, given: Sequence[float] | None, default: float) -> tuple[float, ...]:
        values = (default,) * self.ndim if given is None else tuple(map(float, given))
        self._check_count(name, values)
        if not all(map(math.isfinite, values)):
            raise InputError(f"grid: {name} {list(values)} is not finite")
        return values

    def _check_count(self, name: str, values: Sequence[object]) -> None:
        if len(values) != self.ndim:
            raise InputError(
                f"grid: {name} has {len(values)} entries, but shape {list(self.shape)} has {self.ndim} axes"
            )

    @property
    def cell_volume(self) -> float:
        """Volume of a cell (m^ndim)."""
        return math.prod(self.spacing)

    def field(self, name: str, **options: Any) -> Field:
        """A field of zeros. Logically collective. Options: those of `Field` (dtype, components, staggered, halo,
        boundary)."""
        return Field(self, name, **options)

    def fields(self, *names: str, **options: Any) -> tuple[Field, ...]:
        """Several fields with the same options. Logically collective."""
        return tuple(Field(self, name, **options) for name in names)

    def coordinates_of(self, block: Block, staggered: Sequence[int] = ()) -> tuple[npt.NDArray, ...]:
        """Coordinates (m) of the points of a block as open arrays, one an axis. Not collective."""
        arrays = []
        for axis, part in enumerate(block):
            half = 0.0 if axis in staggered else 0.5
            index = np.arange(part.start, part.stop)
            shape = [1] * self.ndim
            shape[axis] = -1
            arrays.append((self.origin[axis] + (index + half) * self.spacing[axis]).reshape(shape))
        return tuple(arrays)

    def setting(self, name: str) -> str | None:
        """An environment variable as rank 0 has it when it is first asked for: the same on every rank. Collective."""
        if name not in self._settings:
            self._settings[name] = self.comm.bcast(os.environ.get(name))
        return self._settings[name]

    def release(self) -> None:
        """Forget all plans, and so let go of the memory of fields that are no longer in use. Collective.

        For a program that makes new fields again and again; plans are made anew at the next use.
        """
        for plan in self._plans.values():
            if not plan.under_way:
                plan.free()
        self._plans = {key: plan for key, plan in self._plans.items() if plan.under_way}

    def check_fields(self, fields: Iterable[Field]) -> None:
        """Raises InputError for a field of another grid. Not collective."""
        for field in fields:
            if field.grid is not self:
                raise InputError(f"field '{field.name}' lives on another grid than the one it was given to")

    def exchange(self, *fields: Field) -> None:
        """Fill the whole halos of several fields, one message a neighbour. Collective.

        Raises:
            InputError: a field of another grid.
        """
        self.check_fields(fields)
        exchange = self.plan_exchange({field: box_reads(field.halo) for field in fields})
        exchange.start()
        exchange.finish()

    def plan_exchange(self, reads: Mapping[Field, Reads]) -> HaloExchange:
        """The exchange that fills the halos where these offsets reach; kept for the next time. Collective."""
        return self.planned(("exchange", *reads.items()), lambda: HaloExchange(self, reads))

    def planned(self, key: tuple[Any, ...], make: Callable[[], P]) -> P:
        """A plan by its key, made at the first use and kept for the next times. Collective where `make` is.

        Plans lie here, with the grid, so that they go when it goes. Those used longest ago go first; the order of
        use, and so what is made anew, is the same on every rank.
        """
        plan = self._plans.pop(key, None)
        if plan is None or not plan.current:
            if plan is not None and not plan.under_way:
                plan.free()
            plan = make()
        self._plans[key] = plan
        if len(self._plans) > PLANS_KEPT:
            oldest = next((k for k, kept in self._plans.items() if kept is not plan and not kept.under_way), None)
            if oldest is not None:
                self._plans.pop(oldest).free()
        return plan  # type: ignore[return-value]  # a key belongs to one kind of plan


def _axes(name: str, values: Sequence[int], least: int) -> Axes:
    axes = tuple(values)
    if not axes or any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < least for n in axes):
        raise InputError(f"grid: {name} {list(axes)}: expected whole numbers of at least {least}, one an axis")
    return tuple(map(int, axes))
