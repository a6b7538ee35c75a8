"""Several steps of a stencil at once: one exchange of deep halos, then one pass over memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from hpcframe.compilation import OPTIONS, compile_once_a_node
from hpcframe.grid.agreement import collectively
from hpcframe.grid.copying import mirror
from hpcframe.grid.decomposition import Axes
from hpcframe.grid.field import Field
from hpcframe.grid.halo import Direction, Reads, halo_of, widths
from hpcframe.stencils import generate
from hpcframe.stencils.binding import Call, HaloReads, Scalar, reach
from hpcframe.stencils.driver import Levels, driver_signature, driver_source
from hpcframe.stencils.ghosts import ghosts_of
from hpcframe.stencils.identity import identity_of
from hpcframe.stencils.loops import executed, form_of, loop_of, region_table, typed_scalars
from hpcframe.stencils.pipeline import ALL, SPACING, publish, wait_for
from hpcframe.stencils.point import PointFunction
from hpcframe.stencils.wavefront import Wavefront
from hpcframe.threads import team

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid


def can_block(point: PointFunction, fields: Mapping[str, Field], levels: Levels) -> bool:
    """Whether several steps can be done at once: the same on every rank. Not collective.

    Not with walls that a function of the user's fills, staggered fields that evolve, complex numbers, or global indices
    along a periodic axis, which are others beyond the block. Nor where walls depend on time and the neighbours of a
    point are read in an older level, too: before each step its walls are those of the present.
    """
    evolving = [fields[name] for level in levels for name in level]
    grid = evolving[0].grid
    return (
        all(field.boundary.standard for field in evolving)
        and all(field.boundary.steady for field in fields.values() if field not in evolving)
        and (all(field.boundary.steady for field in evolving) or not _reads_older_neighbours(point, levels))
        and all(not field.staggered for field in evolving)
        and all(field.dtype.kind == "f" for field in fields.values())
        and not any(grid.periodic[axis] for axis in point.axes)
        and len({field.addressing() for field in evolving}) == 1
        and not any(field.frozen for field in evolving)
    )


def _later_too(reads: Mapping[Field, Reads], fields: Mapping[str, Field], levels: Levels) -> dict[Field, Reads]:
    """What is read of each field before it is written to: a level becomes the next older one after each step."""
    together = dict(reads)
    for column in zip(*levels, strict=True):
        held = [fields[name] for name in column]
        for newer, older in reversed(list(pairwise(held[1:]))):
            together[newer] = together.get(newer, frozenset()) | together.get(older, frozenset())
    return together


def _reads_older_neighbours(point: PointFunction, levels: Levels) -> bool:
    ndim = min(point.index_length.values())
    older = [name for level in levels[2:] for name in level]
    return any(any(where[-ndim:]) for name in older for where in point.reads.get(name, ()))


class BlockedPlan:
    """`depth` steps at once. The time levels take turns as by `iterate`, one step after another.

    Attributes:
        depth: steps of one run.
    """

    under_way = False

    def __init__(
        self,
        point: PointFunction,
        call: Call,
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
        levels: Levels,
        shape: tuple[int, int, int],
    ) -> None:
        """Collective: plans the exchange and compiles.

        Args:
            fields, scalars: by parameter, as they are in the first step.
            levels: parameters of each time level.
            shape: depth, planes and rows of the wavefront: the same on every rank.
        """
        self.depth, planes, rows = shape
        written = fields[call.writes[0]]
        self.grid: CartesianGrid = written.grid
        self._point, self._fields = point, fields
        reads = reach(point.reads, fields, ())
        evolving = {fields[name] for level in levels for name in level}
        self._reach = halo_of({o for field in evolving for o in reads.get(field, ())}, self.grid.ndim)
        deep = self._deep_reads(_later_too(reads, fields, levels))
        halo = halo_of({offset for offsets in deep.values() for offset in offsets}, self.grid.ndim)
        for field in fields.values():  # one address for all
            field.widen(halo)
        self._halo = HaloReads(self.grid, deep)
        self._written = [fields[name] for level in levels for name in level]
        self._state = self._state_of_fields()
        self.form = form_of(point, fields, self.grid.ndim)
        front = Wavefront(written.local.points, self._beyond(), self._reach, self.depth, planes, rows)
        self._plan_tables(front, written, reads, [fields[name] for name in levels[0]], levels)
        self._members = min(self.grid.threads, len(self._bands) - 1)
        self._run = self._compile(scalars, levels)

    # -- planning -----------------------------------------------------------------------------------------------

    def _deep_reads(self, reads: Mapping[Field, Reads]) -> dict[Field, Reads]:
        """What the first step reads, as it computes points beyond the block, too."""
        grid = self.grid
        cut = [grid.periodic[axis] or grid.layout[axis] > 1 for axis in range(grid.ndim)]
        more = [(self.depth - 1) * width if is_cut else 0 for width, is_cut in zip(self._reach, cut, strict=True)]
        beyond = set(product(*((-width, 0, width) if width else (0,) for width in more)))
        zero = (0,) * grid.ndim
        deep = {}
        for field in self._fields.values():
            near = reads.get(field, frozenset()) | {zero}
            offsets = {tuple(map(sum, zip(one, other, strict=True))) for one in near for other in beyond} - {zero}
            deep[field] = frozenset(offsets)
        written = {self._fields[name] for name in self._point.writes}  # only written to in the first step
        return {field: offsets for field, offsets in deep.items() if offsets and field not in written}

    def _beyond(self) -> list[tuple[bool, bool]]:
        """For each axis whether points beyond the sides are a neighbour's, which may be this rank itself."""
        grid = self.grid

        def has_neighbour(axis: int, sign: int) -> bool:
            return grid.decomposition.neighbour(grid.rank, [sign * (axis == a) for a in range(grid.ndim)]) is not None

        return [(has_neighbour(axis, -1), has_neighbour(axis, 1)) for axis in range(grid.ndim)]

    def _plan_tables(
        self, front: Wavefront, written: Field, reads: Mapping[Field, Reads], targets: Sequence[Field], levels: Levels
    ) -> None:
        bands, turns, steps, boxes = zip(*front.pieces(), strict=True)
        bounds = np.array(boxes, np.int64)
        fields = {name: self._fields[name] for name in self._point.fields}
        self._regions = region_table(self._point, self.form, fields, written.block, bounds)
        self._steps, self._turns = np.array(steps, np.int64), np.array(turns, np.int64)
        self._bands = np.searchsorted(bands, np.arange(bands[-1] + 2))
        self._done = np.zeros((len(self._bands) - 1) * SPACING, np.int64)
        self._ghosts = []
        for column, target in enumerate(targets):
            offsets = {o for level in levels for o in reads.get(self._fields[level[column]], ())}
            self._ghosts.append(ghosts_of(target, self._walls(widths(offsets)), bounds))
        self._steady = all(field.boundary.steady for field in targets)  # not of this rank's walls: all must agree
        self._walls_now = self._ghost_arguments([self.grid.time] * self.depth) if self._steady else []

    def _ghost_arguments(self, times: Sequence[float]) -> list[Any]:
        """What the driver gets of the ghosts, of results at these times (s)."""
        return [
            part for ghosts in self._ghosts for part in (ghosts.ends, ghosts.table, *ghosts.factors(self._steps, times))
        ]

    def _walls(self, needed: Mapping[Direction, Axes]) -> dict[Direction, Axes]:
        """The directions in which only walls lie."""
        beyond = self._beyond()
        return {
            direction: width
            for direction, width in needed.items()
            if not any(sign and beyond[axis][sign > 0] for axis, sign in enumerate(direction))
        }

    def _compile(self, scalars: Mapping[str, Scalar], levels: Levels) -> Any:
        point, form = self._point, self.form
        source, names = loop_of(point, form, self._fields, scalars)
        known = identity_of(names)
        loop = numba.njit(**OPTIONS)(executed(source, names, generate.loop_name(point)))
        text = driver_source(point, levels)
        called = {"_mirror": numba.njit(**OPTIONS)(mirror), "_publish": publish, "_wait_for": wait_for, "_all": ALL}
        driver = executed(text, {"_loop": loop, **called}, "_steps")
        kinds = {name: str(numba.from_dtype(self._fields[name].dtype)) for name in point.fields}
        signature = driver_signature(kinds, levels, "float32" if form.single else "float64")
        rest = identity_of({"mirror": mirror, "publish": publish, "wait_for": wait_for})
        identity = None if known is None or rest is None else "\n".join([source, known, text, rest])
        return compile_once_a_node(driver, signature, self.grid.shared.node, identity)

    # -- running ------------------------------------------------------------------------------------------------

    def _state_of_fields(self) -> tuple[Any, ...]:
        return tuple((field.generation, field.boundary.changes) for field in self._fields.values())

    @property
    def current(self) -> bool:
        """Whether the fields still have the memory and the boundaries that this was planned for."""
        return self._state == self._state_of_fields()

    def free(self) -> None:
        """Nothing is held but memory."""

    def run(self, scalars: Sequence[Mapping[str, Scalar]], times: Sequence[float]) -> None:
        """Do `depth` steps, with the scalars of each; `times` (s) are those after each step. Collective.

        Raises what functions of time of the user's raise, on every rank, before anything is computed.
        """
        walls = self._walls_now if self._steady else self._walls_at(times)
        exchange = self._halo.start()
        if exchange:
            exchange.finish()
        for field in self._written:
            field.written()
        begin = perf_counter()
        self._compute(self._numbers(scalars), walls)
        self.grid.seconds["compute"] += perf_counter() - begin

    def _walls_at(self, times: Sequence[float]) -> list[Any]:
        with collectively(self.grid.comm, "computing what is on the walls"):
            return self._ghost_arguments(times)

    def _numbers(self, scalars: Sequence[Mapping[str, Scalar]]) -> npt.NDArray:
        numbers = np.array([typed_scalars(self.form, each, self._point.scalars) for each in scalars])
        kind = np.float32 if self.form.single else np.float64
        return numbers.reshape(self.depth, len(self._point.scalars)).astype(kind)

    def _compute(self, numbers: npt.NDArray, walls: Sequence[Any]) -> None:
        """All pieces, by all threads."""
        arrays = [self._fields[name].storage for name in self._point.fields]
        tables = (numbers, self._steps, self._turns, self._regions, self._bands, self._done)
        self._done[:] = 0

        def work(member: int) -> None:
            try:
                self._run(*arrays, *tables, member, self._members, *walls)
            except BaseException:
                self._done[:] = ALL  # nobody waits for what is not computed any more
                raise

        if self._members == 1:
            work(0)
        else:
            team().run(work, self._members)
