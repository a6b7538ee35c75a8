"""`hf.stencil`: a point function over relative offsets becomes a compiled, distributed sweep over a grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hpcframe.errors import InputError
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field
from hpcframe.grid.halo import halo_of
from hpcframe.stencils import generate, tuning, vector
from hpcframe.stencils.analysis import analyse
from hpcframe.stencils.binding import Call, Scalar, Sweep, reach
from hpcframe.stencils.blocked import BlockedPlan, can_block
from hpcframe.stencils.driver import Levels
from hpcframe.stencils.loops import compile_loop, default_form, form_of, loop_of, region_table, typed_scalars
from hpcframe.stencils.point import PointFunction
from hpcframe.stencils.positions import Form
from hpcframe.stencils.tuning import Search, candidates, given_front

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid

StepScalar = complex | Callable[[int], complex]


class PointOperator:
    """What stencils and kernels have in common: called with fields and scalars, it computes every point once."""

    call: Call

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Compute every point. Collective: with the same fields, and scalars of the same type, on every rank.

        The halos that are read are exchanged first where they are not fresh, overlapped with the interior.

        Raises:
            InputError: before anything is computed: wrong arguments, on the ranks that give them; on every rank,
                fields that do not fit, or a halo wider than the smallest block.
        """
        fields, scalars = self.call.bind(args, kwargs)
        self._planned(fields, scalars).run(scalars)

    def iterate(
        self, *args: Any, steps: int, levels: int = 2, dt: float | None = None, **kwargs: StepScalar
    ) -> tuple[Field, ...]:
        """Do many steps, exchanging the roles of the time levels after each. Collective.

        The first `levels` x (number of fields written) fields are time levels, the ones written to first; other
        fields stay as they are. `u, v = step.iterate(v, u, steps=10)` has the newest in u and the one before in v.
        The names of the levels stay with their roles: the newest is called what the newest was called before.

        Args:
            steps: number of steps.
            levels: time levels; 3 for a scheme such as leapfrog that reads two.
            dt: time step (s), added to the grid's time after each step, for boundaries that depend on it; also the
                value of a scalar parameter of that name.
            kwargs: scalars; a function is called with the number of the step, from 0, for all steps beforehand.

        Returns:
            The fields of the time levels, newest first.
        """
        for name in {"steps", "levels"} & {*self.call.parameters[len(args) :]} - {*self.call.defaults}:
            raise InputError(f"{self.call.name}: '{name}' is a keyword of iterate itself; pass that scalar by position")
        if dt is not None and "dt" in self.call.parameters[len(args) :]:
            kwargs["dt"] = dt
        at_step = {name: value for name, value in kwargs.items() if callable(value)}
        constant = {name: value for name, value in kwargs.items() if name not in at_step}
        fields, scalars = self.call.bind(args, {**constant, **dict.fromkeys(at_step, 0.0)})
        rotation = self._time_levels(fields, levels)
        roles = [field.name for _, held in rotation for field in held]
        grid = next(iter(fields.values())).grid
        changing = self._values_at(at_step, steps, grid) if at_step else [{}] * steps
        rotation = self._do_steps(fields, scalars, rotation, changing, dt or 0.0)
        for name, field in zip(roles, (field for _, held in rotation for field in held), strict=True):
            field.name = name
        newest = [held for _, held in rotation]
        return tuple(field for held in (*newest[1:], newest[0]) for field in held)

    def _do_steps(
        self,
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
        rotation: list[tuple[list[str], list[Field]]],
        changing: Sequence[Mapping[str, Scalar]],
        dt: float,
    ) -> list[tuple[list[str], list[Field]]]:
        """One step for each of `changing`, its scalars that change; several at once where that pays. Collective.

        Returns the parameters and fields of each level afterwards.
        """
        grid, levels, done = next(iter(fields.values())).grid, [names for names, _ in rotation], 0
        search = self._search(fields, levels) if len(changing) > 1 else None
        turns = _turns(fields, rotation)
        plans: list[Plan | None] = [None] * len(turns)
        while done < len(changing):
            turn = done % len(turns)
            depth = search.depth(len(changing) - done, len(turns)) if search else 1
            if search and depth > 1:
                ahead = [{**scalars, **new} for new in changing[done : done + depth]]
                self._pass(turns[turn], levels, ahead, dt, search)
            else:
                now = {**scalars, **changing[done]} if changing[done] else scalars
                plan = plans[turn]
                if plan is None or not plan.current:
                    plan = plans[turn] = self._planned(turns[turn], now)
                begin = perf_counter()
                plan.run(now)
                grid.time += dt
                if search and search.front.depth == 1:
                    search.record(perf_counter() - begin)
            done += depth
        for _ in range(done % len(turns)):
            rotation = _advance(rotation)
        return rotation

    def _search(self, fields: Mapping[str, Field], levels: Levels) -> Search | None:
        """How many steps are done in one pass over memory; None: one after another. Collective."""
        return None

    def _pass(
        self,
        fields: dict[str, Field],
        levels: Levels,
        scalars: Sequence[Mapping[str, Scalar]],
        dt: float,
        search: Search,
    ) -> None:
        """Do some steps at once in the way that `search` says, with the scalars of each. Collective."""
        raise NotImplementedError

    def _values_at(
        self, functions: Mapping[str, Callable[[int], complex]], steps: int, grid: CartesianGrid
    ) -> list[dict[str, Scalar]]:
        """Scalars for each step. Collective: an error in a function of the user's reaches every rank."""
        with collectively(grid.comm, f"computing the scalars of '{self.call.name}'"):
            return [{name: self.call.scalar(name, of(step)) for name, of in functions.items()} for step in range(steps)]

    def _time_levels(self, fields: Mapping[str, Field], levels: int) -> list[tuple[list[str], list[Field]]]:
        """Parameter names and fields of each level, the one written to first."""
        names = [*self.call.writes, *(name for name in fields if name not in self.call.writes)]
        count = len(self.call.writes)
        if levels < 2 or levels * count > len(names):
            raise InputError(
                f"{self.call.name}: {levels} time levels of {count} field(s) each need at least 2 levels and at most "
                f"its {len(names)} fields"
            )
        held = [names[level * count : (level + 1) * count] for level in range(levels)]
        for target, *others in zip(*([fields[name] for name in level] for level in held), strict=True):
            for other in others:
                _check_alike(self.call.name, target, other)
        return [(level, [fields[name] for name in level]) for level in held]

    def _planned(self, fields: dict[str, Field], scalars: Mapping[str, Scalar]) -> Plan:
        grid = next(iter(fields.values())).grid
        key = (self, *fields.values(), *map(type, scalars.values()))
        return grid.planned(key, lambda: self._new_plan(fields, scalars))

    def _new_plan(self, fields: dict[str, Field], scalars: Mapping[str, Scalar]) -> Plan:
        raise NotImplementedError


class Plan:
    """A sweep over certain fields, ready to run."""

    def __init__(self, grid: CartesianGrid, sweep: Sweep) -> None:
        self.grid = grid
        self.sweep = sweep

    @property
    def current(self) -> bool:
        """Whether the fields still have the memory that this was planned for."""
        return self.sweep.current

    @property
    def under_way(self) -> bool:
        """A sweep ends before its call does."""
        return False

    def free(self) -> None:
        """Nothing is held but memory."""

    def run(self, scalars: Mapping[str, Scalar]) -> None:
        """Compute all points. Collective."""
        raise NotImplementedError


class _LoopPlan(Plan):
    """A generated loop over the interior and over the borders."""

    def __init__(
        self, point: PointFunction, call: Call, fields: Mapping[str, Field], scalars: Mapping[str, Scalar]
    ) -> None:
        """Collective: plans the exchange and compiles."""
        first = next(iter(fields.values()))
        with collectively(first.grid.comm, f"checking the fields of '{call.name}'"):
            grid = call.check(fields)
            point.check_indices(grid.ndim, {name: field.components for name, field in fields.items()})
        written = fields[call.writes[0]]
        sweep = Sweep(grid, fields, call, reach(point.reads, fields, written.staggered))
        super().__init__(grid, sweep)
        self.form = form_of(point, fields, grid.ndim)
        source, names = loop_of(point, self.form, fields, scalars)
        self.vectors = vector.uses_vectors(names)
        self._loop = compile_loop(source, point, self.form, fields, scalars, grid.shared, more=names)
        self._arrays = [fields[name].storage for name in point.fields]
        self._scalars = point.scalars
        self._given, self._numbers = scalars, typed_scalars(self.form, scalars, point.scalars)
        table = functools.partial(region_table, point, self.form, fields, written.block)
        self._interior = [[table([box]) for box in share] for share in sweep.interior]
        self._borders = table(sweep.borders) if sweep.borders else None

    def run(self, scalars: Mapping[str, Scalar]) -> None:
        if scalars is not self._given:  # in most steps it is what the step before was given
            self._given, self._numbers = scalars, typed_scalars(self.form, scalars, self._scalars)
        loop, arrays, numbers = self._loop, self._arrays, self._numbers
        self.sweep.run(lambda regions: loop(*arrays, *numbers, regions), self._interior, self._borders)


class Stencil(PointOperator):
    """A compiled point function. Made by `hf.stencil`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Not collective. Raises InputError naming the line of what has no meaning at a point."""
        functools.update_wrapper(self, function)
        self.point = analyse(function)
        point = self.point
        self.call = Call(point.name, point.parameters, point.fields, point.writes, point.defaults)
        self._form: Form = default_form(point)
        self._vectors = False

    def _new_plan(self, fields: dict[str, Field], scalars: Mapping[str, Scalar]) -> Plan:
        plan = _LoopPlan(self.point, self.call, fields, scalars)
        self._form, self._vectors = plan.form, plan.vectors
        return plan

    def _search(self, fields: Mapping[str, Field], levels: Levels) -> Search | None:
        grid = next(iter(fields.values())).grid
        if not grid.time_blocking or not can_block(self.point, fields, levels):
            return None
        given = given_front(grid.setting(tuning.VARIABLE))
        if given:
            return Search(grid.comm, "", [given])
        key = ("search", self, *((field.dtype.str, field.components) for field in fields.values()), len(levels))
        search = grid.planned(key, lambda: self._new_search(fields, levels))
        if search.found:
            return None if search.front.depth == 1 else search

        def forget_others() -> None:  # what was planned for other ways holds memory for messages
            grid.release()
            grid.planned(key, lambda: search)

        search.when_found = forget_others
        return search

    def _new_search(self, fields: Mapping[str, Field], levels: Levels) -> Search:
        evolving = [fields[name] for level in levels for name in level]
        grid = evolving[0].grid
        threads = grid.threads
        reads = reach(self.point.reads, fields, ())
        width = max(max(halo_of(reads.get(field, ()), grid.ndim)) for field in evolving)
        text = generate.stencil_source(self.point, default_form(self.point))
        about = {
            "stencil": self.call.name,
            "points": grid.decomposition.smallest,
            "ranks_on_node": grid.shared.node.size,
            "threads": threads,
        }
        kinds = [(field.dtype.str, field.components) for field in fields.values()]
        name = f"{text}\n{kinds}\n{grid.decomposition}\n{about}"
        return Search(grid.comm, name, candidates(evolving, len(levels), width, threads), about)

    def _pass(
        self,
        fields: dict[str, Field],
        levels: Levels,
        scalars: Sequence[Mapping[str, Scalar]],
        dt: float,
        search: Search,
    ) -> None:
        front = search.front._replace(depth=len(scalars))

        def make() -> BlockedPlan:
            self._planned(fields, scalars[0])  # which checks the fields
            return BlockedPlan(self.point, self.call, fields, scalars[0], levels, front)

        grid = next(iter(fields.values())).grid
        plan = grid.planned((self, front, *fields.values()), make)
        times = list(accumulate([dt] * front.depth, initial=grid.time))[1:]
        begin = perf_counter()
        plan.run(scalars, times)
        grid.time = times[-1]
        if front == search.front:  # not the last steps, which are fewer
            search.record((perf_counter() - begin) / front.depth)

    @property
    def source(self) -> str:
        """The generated loop: for the fields of the latest plan, or for plain float64 fields before there is one."""
        text = generate.stencil_source(self.point, self._form)
        return f"{vector.NOTE}\n{text}" if self._vectors else text

    def __repr__(self) -> str:
        return f"<stencil {self.call.name}({', '.join(self.call.parameters)})>"


def stencil(function: Callable[..., Any]) -> Stencil:
    """Make a point function a stencil: a decorator. Not collective.

    The function's parameters are fields, indexed by component (if any) and offset as in `u[1, 0, 0]`, and scalars.
    It assigns to offset zero of one or more fields, and reads others at any constant offset. Temporaries, `if` and
    conditional expressions, loops over constants, numbers from its surroundings, functions of `math` and `numpy`,
    `numba.njit` functions, and `hf.index(axis)` are possible.

    Raises:
        InputError: naming the line, for an off-centre write, a field that is read and written, an offset that is
            not constant, and whatever else has no meaning at a point.
    """
    return Stencil(function)


def _turns(fields: Mapping[str, Field], rotation: list[tuple[list[str], list[Field]]]) -> list[dict[str, Field]]:
    """All fields by parameter in each of the steps until every level has the role again that it has at first."""
    turns = []
    for _ in rotation:
        held = {name: field for names, level in rotation for name, field in zip(names, level, strict=True)}
        turns.append({**fields, **held})
        rotation = _advance(rotation)
    return turns


def _advance(rotation: list[tuple[list[str], list[Field]]]) -> list[tuple[list[str], list[Field]]]:
    """After a step the oldest level is the one to write to; each level of names holds the fields of the one before."""
    names = [level for level, _ in rotation]
    held = [fields for _, fields in rotation]
    return list(zip(names, [held[-1], *held[:-1]], strict=True))


def _check_alike(name: str, one: Field, other: Field) -> None:
    if (one.dtype, one.components, one.staggered) != (other.dtype, other.components, other.staggered):
        raise InputError(
            f"{name}: time levels '{one.name}' and '{other.name}' differ in dtype, components or staggering"
        )
    if dict(one.boundary) != dict(other.boundary):
        raise InputError(
            f"{name}: time levels '{one.name}' and '{other.name}' have different boundary conditions; they take turns, "
            f"so give both the same"
        )
