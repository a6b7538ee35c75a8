"""A field: one array over the grid, of which each rank holds its block and a halo."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from operator import ge
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcframe.errors import InputError
from hpcframe.grid.agreement import collectively
from hpcframe.grid.boundary import Boundary, Condition, Neumann
from hpcframe.grid.decomposition import Axes
from hpcframe.grid.halo import Direction, Shape, box_reads, check_halo, widths
from hpcframe.grid.memory import allocate, move
from hpcframe.grid.redistribution import gather, scatter

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid
    from hpcframe.grid.exchange import HaloExchange

DTYPES = ("float32", "float64", "complex64", "complex128", "int32", "int64")


class Field:
    """A distributed array. Made by `grid.field(...)`.

    Attributes:
        name: what errors, files and diagnostics call it.
        grid: the grid it lives on.
        dtype: element type.
        components: leading axes, the same on every rank: (3,) for a vector, () for a scalar.
        staggered: axes along which the points lie on cell faces instead of centres.
        halo: layers along each axis; grows when a stencil needs more.
    """

    def __init__(
        self,
        grid: CartesianGrid,
        name: str,
        dtype: npt.DTypeLike = np.float64,
        components: int | Sequence[int] = (),
        staggered: int | Sequence[int] = (),
        halo: int | Sequence[int] = 1,
        boundary: Condition | None = None,
    ) -> None:
        """Logically collective. Raises InputError for a dtype, axis or halo that cannot be."""
        self.grid = grid
        self.name = name
        self.dtype = _checked_dtype(name, dtype)
        self.components = _checked_components(name, components)
        self.staggered = _checked_axes(name, staggered, grid.ndim)
        self._boundary = Boundary(grid.periodic, self.dtype)
        if boundary is not None:
            self._boundary.set_all(boundary)
        self.block = grid.decomposition.block(grid.rank, self.staggered)
        self.generation = 0
        self._filled: Mapping[Direction, Axes] = {}  # what was exchanged since hpcframe last wrote: equal on all ranks
        self._filled_for = 0  # changes of the boundary until then
        self._writes = 0  # how often hpcframe wrote: the same on every rank
        self._handed_out = False  # a view was given out since: this rank's own knowledge
        self._constant = False
        width = (int(halo),) * grid.ndim if isinstance(halo, int | np.integer) else tuple(map(int, halo))
        if len(width) != grid.ndim or min(width) < 0:
            raise InputError(
                f"field '{name}': a halo of {halo} for a grid of {grid.ndim} axes; give one width, or one an axis"
            )
        check_halo(name, width, grid.decomposition, self.staggered)
        self._allocate(width)

    def _allocate(self, halo: tuple[int, ...], touch: bool = True) -> None:
        points = tuple(part.stop - part.start for part in self.block)
        self.halo = halo
        self.local = Shape(points, halo)
        whole = tuple(count + 2 * width for count, width in zip(points, halo, strict=True))
        storage = allocate(self.components, whole, halo, self.dtype, self.grid.threads if touch else 0)
        self._storage = storage
        self._flat = storage.reshape(-1)
        index: tuple[Any, ...] = (..., *map(slice, whole))
        self._data = storage[index]
        index = (..., *self.local.interior())
        self._interior = self._data[index]
        self.generation += 1
        self._own_references = self._references()

    @property
    def boundary(self) -> Boundary:
        """The condition of each wall by (axis, side). Logically collective.

        A mapping may be assigned: walls that it does not name have zero gradient then.
        """
        return self._boundary

    @boundary.setter
    def boundary(self, conditions: Mapping[tuple[int, int], Condition]) -> None:
        given = dict(conditions)
        self._boundary.set_all(Neumann(0.0))
        for wall, condition in given.items():
            self._boundary[wall] = condition

    # -- the arrays ---------------------------------------------------------------------------------------------

    @property
    def interior(self) -> npt.NDArray:
        """The points this rank owns: a view of shape components + block. Not collective."""
        return self._hand_out(self._interior)

    @property
    def data(self) -> npt.NDArray:
        """The points this rank owns and the halo around them: a view. Not collective."""
        return self._hand_out(self._data)

    def _hand_out(self, array: npt.NDArray) -> npt.NDArray:
        self._handed_out = True
        view = array.view()
        view.flags.writeable = not self._constant
        return view

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the global array: components + points."""
        return self.components + self.grid.decomposition.points(self.staggered)

    @property
    def padded(self) -> npt.NDArray:
        """The memory of the block: the local array within its padding, contiguous."""
        return self._storage

    @property
    def local_data(self) -> npt.NDArray:
        """`data`, for hpcframe's own use: does not count as given out."""
        return self._data

    @property
    def local_interior(self) -> npt.NDArray:
        """`interior`, for hpcframe's own use: does not count as given out."""
        return self._interior

    @property
    def storage(self) -> npt.NDArray:
        """The memory of the block in one axis, padding included: what compiled loops address."""
        return self._flat

    @property
    def four_axes(self) -> npt.NDArray:
        """The local array with halo as (components, axis, axis, axis), missing axes of length one."""
        count = int(np.prod(self.components, dtype=int))
        padded = self._storage.reshape(
            count, *(1,) * (3 - self.grid.ndim), *self._storage.shape[len(self.components) :]
        )
        whole = (1,) * (3 - self.grid.ndim) + self._data.shape[len(self.components) :]
        return padded[(slice(None), *map(slice, whole))]

    def addressing(self) -> tuple[int, tuple[int, ...]]:
        """Where the first interior point lies in `storage`, and the strides of all axes, in elements."""
        strides = tuple(stride // self.dtype.itemsize for stride in self._storage.strides)
        start = sum(width * stride for width, stride in zip(self.halo, strides[-self.grid.ndim :], strict=True))
        return start, strides

    def coordinates(self) -> tuple[npt.NDArray, ...]:
        """Coordinates (m) of this rank's points as open arrays, one an axis, that broadcast. Not collective."""
        return self.grid.coordinates_of(self.block, self.staggered)

    # -- whole-field operations ---------------------------------------------------------------------------------

    def fill(self, value: complex | npt.ArrayLike | Callable[..., npt.ArrayLike]) -> Field:
        """Set every point. Collective.

        Args:
            value: a number, or a function of the coordinate arrays (m), one an axis, that broadcast; it returns
                an array of the block's shape, or one that broadcasts to it.

        Raises:
            InputError: the result does not fit (on every rank).
        """
        with collectively(self.grid.comm, f"filling field '{self.name}'"):
            self._refuse_constant("fill")
            result = np.asarray(value(*self.coordinates()) if callable(value) else value)
            try:
                np.copyto(self._interior, result, casting="same_kind")
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"filling field '{self.name}': got {result.dtype} of shape {result.shape}, "
                    f"expected {self.dtype} that broadcasts to {self._interior.shape} ({error})"
                ) from error
        self.written()
        return self

    def gather(self, root: int = 0) -> npt.NDArray | None:
        """The global array on `root`, None elsewhere. Collective. Nothing is held there besides the array itself."""
        with collectively(self.grid.comm, f"gathering field '{self.name}'"):
            self._check_root(root)
            array = np.empty(self.shape, self.dtype) if self.grid.rank == root else None
        gather(self, array, root)
        return array

    def scatter(self, array: npt.ArrayLike | None, root: int = 0) -> Field:
        """Set the field from the global array that `root` holds; other ranks pass None. Collective.

        Raises:
            InputError: on every rank, where the array has another shape or does not convert to the field's dtype.
        """
        with collectively(self.grid.comm, f"scattering field '{self.name}'"):
            self._refuse_constant("scatter")
            self._check_root(root)
            whole = self._checked_global(array) if self.grid.rank == root else None
        scatter(self, whole, root)
        self.written()
        return self

    def _check_root(self, root: int) -> None:
        if root not in range(self.grid.size):
            raise InputError(f"root={root}: the grid's ranks are 0 to {self.grid.size - 1}")

    def _checked_global(self, array: npt.ArrayLike | None) -> npt.NDArray:
        whole = np.asarray(array)
        if whole.shape != self.shape or not np.can_cast(whole.dtype, self.dtype, "same_kind"):
            raise InputError(
                f"scattering field '{self.name}': got {whole.dtype} of shape {whole.shape}, "
                f"expected {self.dtype} of shape {self.shape}"
            )
        return np.ascontiguousarray(whole, self.dtype)

    # -- the halo -----------------------------------------------------------------------------------------------

    def exchange(self) -> None:
        """Fill the whole halo, corners included, from neighbours and boundary conditions. Collective."""
        self.start_exchange().finish()

    def start_exchange(self) -> HaloExchange:
        """Start filling the halo; call `finish()` on what it returns before reading it. Collective."""
        exchange = self.grid.plan_exchange({self: box_reads(self.halo)})
        exchange.start()
        return exchange

    @property
    def fresh(self) -> bool:
        """Whether this rank knows its whole halo to be what an exchange would make it. Not collective.

        True from an exchange until hpcframe writes to the field, or gives out a view through which you could.
        """
        return self.in_step(widths(box_reads(self.halo))) and not self.exposed()

    def in_step(self, needed: Mapping[Direction, Axes]) -> bool:
        """Whether these regions were exchanged since hpcframe last wrote: the same on every rank.

        Views given out do not count here, since other ranks do not know of them: see `exposed`.
        """
        if self._filled_for != self._boundary.changes or not self._boundary.steady:
            return False
        return self._filled is needed or all(
            direction in self._filled and all(map(ge, self._filled[direction], width))
            for direction, width in needed.items()
        )

    def exposed(self) -> bool:
        """Whether somebody on this rank may have written through a view since the last exchange."""
        return not self._constant and (self._handed_out or self._references() > self._own_references)

    def written(self) -> None:
        """Say that the interior was changed. Logically collective."""
        self._filled = {}
        self._writes += 1

    def sent(self) -> int:
        """Say that an exchange has read the interior; what it returns is for `exchanged`. Logically collective."""
        self._handed_out = False
        if not self._constant:  # until the exchange is finished, nothing in the halo can be relied on
            self._filled = {}
        return self._writes

    def exchanged(self, needed: Mapping[Direction, Axes], sent: int) -> None:
        """Say which regions of the halo were filled, from the interior as it was when sent. Logically collective."""
        if sent != self._writes:
            return
        known = self._filled if self._constant else {}
        self._filled = _united(known, needed) if known else needed
        self._filled_for = self._boundary.changes

    def freeze(self) -> Field:
        """Promise not to write to it any more, so that its halo is exchanged once and then never again. Collective.

        For coefficients. Views given out from now on cannot be written to.

        Raises:
            InputError: on every rank, where a view that can be written to is still alive.
        """
        with collectively(self.grid.comm, f"freezing field '{self.name}'"):
            if self._references() > self._own_references:
                raise InputError(f"freezing field '{self.name}': a view of it is still in use; delete it first")
        self._constant = True
        self._filled = {}
        return self

    @property
    def frozen(self) -> bool:
        return self._constant

    def widen(self, halo: Sequence[int]) -> None:
        """Make the halo at least this wide. Collective.

        Raises:
            InputError: the halo does not fit into the smallest block; or, on every rank, a view of the old memory
                is still in use and would go stale.
        """
        wide = tuple(map(max, self.halo, halo))
        if wide == self.halo:
            return
        check_halo(self.name, wide, self.grid.decomposition, self.staggered)
        with collectively(self.grid.comm, f"widening the halo of field '{self.name}'"):
            if self._references() > self._own_references:
                raise InputError(
                    f"field '{self.name}' has a halo of {self.halo} and now needs {wide}, but a view of it taken "
                    f"before is still in use and would go stale: make it with halo={max(wide)}, or take the view later"
                )
        old = self._interior
        self._allocate(wide, touch=False)
        for component in np.ndindex(self.components):
            move(old[component], self._interior[component], self.grid.threads)
        self._filled = {}

    def _references(self) -> int:
        return sys.getrefcount(self._storage.base)

    def _refuse_constant(self, what: str) -> None:
        if self._constant:
            raise InputError(f"{what}: field '{self.name}' is frozen and cannot be written to")

    def __repr__(self) -> str:
        return f"Field({self.name!r}, {self.dtype}, {self.shape}, block {self.block})"


def _united(one: Mapping[Direction, Axes], other: Mapping[Direction, Axes]) -> Mapping[Direction, Axes]:
    """Regions of which either is wide enough."""
    return {
        **one,
        **{direction: tuple(map(max, one.get(direction, width), width)) for direction, width in other.items()},
    }


def _checked_dtype(name: str, dtype: npt.DTypeLike) -> np.dtype:
    checked = np.dtype(int if dtype is int else dtype)
    if checked.name not in DTYPES:
        raise InputError(f"field '{name}': dtype {checked} is not supported; choose from {', '.join(DTYPES)}")
    return np.dtype(checked.name)  # in this machine's byte order, whatever that of `dtype` is


def _checked_components(name: str, components: int | Sequence[int]) -> tuple[int, ...]:
    counts = (components,) if isinstance(components, int | np.integer) else tuple(components)
    if any(not isinstance(count, int | np.integer) or count < 1 for count in counts):
        raise InputError(f"field '{name}': components {counts} must be whole numbers of at least 1")
    return tuple(map(int, counts))


def _checked_axes(name: str, axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(axis not in range(ndim) for axis in axes):
        raise InputError(f"field '{name}': staggered along {axes}, but the grid has axes {tuple(range(ndim))}")
    return tuple(sorted(set(axes)))
