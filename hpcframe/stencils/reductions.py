"""Reductions with the same bits on any number of ranks, several in one message.

Sums are exact: every value is added to an integer accumulator, accumulators are added over ranks, and the result is
rounded once. Extremes travel as pairs of integers, a key that sorts like the value and the index where it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from hpcframe.errors import InputError, nearest
from hpcframe.grid.agreement import collectively
from hpcframe.grid.cartesian import CartesianGrid
from hpcframe.grid.field import Field
from hpcframe.stencils.analysis import analyse
from hpcframe.stencils.binding import Call, HaloReads, Scalar, reach
from hpcframe.stencils.combining import Combination
from hpcframe.stencils.partial import Extreme, Partial, Sum
from hpcframe.stencils.point import PointFunction

EXTREMES = ("min", "max", "argmin", "argmax")
KINDS = ("sum", "mean", "integral", *EXTREMES)
Result = Any


class Term:
    """A reduction of certain fields, to be done by `grid.reduce`, several in one message."""

    def __init__(
        self,
        reduction: Reduction,
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
        finish: Callable[[Any], Any] | None = None,
    ) -> None:
        self.reduction = reduction
        self.fields = dict(fields)
        self.scalars = dict(scalars)
        self._finish = finish

    def result(self, value: Any) -> Any:
        return self._finish(value) if self._finish else value


class Reduction:
    """A reduction of a point expression over all points of a grid. Made by `hf.reduction`.

    Called with fields and scalars it returns the result, on every rank; `of` defers it for `grid.reduce`.
    """

    real = False  # whether the expression is real even of complex fields

    def __init__(self, function: Callable[..., Any], kind: str) -> None:
        """Not collective. Raises InputError for an unknown kind, or naming the line that cannot be compiled."""
        if kind not in KINDS:
            raise InputError(f"hf.reduction('{kind}'): no such kind{nearest(kind, KINDS)}")
        functools.update_wrapper(self, function)
        self.kind = kind
        self.point: PointFunction = analyse(function, returns=True)
        self.call = Call(self.point.name, self.point.parameters, self.point.fields, (), self.point.defaults)

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """The result, the same on every rank. Collective."""
        term = self.of(*args, **kwargs)
        return reduce_terms(next(iter(term.fields.values())).grid, [term])[0]

    def of(self, *args: Any, **kwargs: Any) -> Term:
        """This reduction of these fields, for `grid.reduce`. Not collective."""
        return Term(self, *self.call.bind(args, kwargs))

    def partial(self, term: Term) -> Partial:
        """What a rank contributes. Collective: compiles."""
        if self.kind in EXTREMES:
            return Extreme(self.kind, self.point, term.fields, term.scalars)
        return Sum(self.kind, self.point, term.fields, term.scalars, self.real)

    def check(self, term: Term) -> CartesianGrid:
        """The grid of the fields. Raises InputError where they do not fit the expression."""
        grid = self.call.check(term.fields)
        self.point.check_indices(grid.ndim, {name: field.components for name, field in term.fields.items()})
        return grid

    def planned(self, term: Term) -> _Plan:
        """Collective at the first use of these fields."""
        grid = next(iter(term.fields.values())).grid
        key = (self, *term.fields.values(), *map(type, term.scalars.values()))
        return grid.planned(key, lambda: _Plan(self, term))


class _Plan:
    """A reduction of certain fields, ready to run."""

    def __init__(self, reduction: Reduction, term: Term) -> None:
        """Collective: plans the exchange and compiles."""
        point, call = reduction.point, reduction.call
        first = next(iter(term.fields.values()))
        with collectively(first.grid.comm, f"checking the fields of '{call.name}'"):
            grid = reduction.check(term)
            self._staggered = _common_points(call.name, reduction.kind, term.fields)
        self.halo = HaloReads(grid, reach(point.reads, term.fields, self._staggered))
        self._fields = tuple(term.fields.values())
        self._generations = tuple(field.generation for field in self._fields)
        self.partial = reduction.partial(term)

    @property
    def current(self) -> bool:
        return self._generations == tuple(field.generation for field in self._fields)

    @property
    def under_way(self) -> bool:
        """A reduction ends before its call does."""
        return False

    def free(self) -> None:
        """Nothing is held but memory."""


def _common_points(name: str, kind: str, fields: Mapping[str, Field]) -> tuple[int, ...]:
    """The staggering of the points that are reduced. Raises InputError where fields have none in common."""
    staggerings = {field.staggered for field in fields.values()}
    if len(staggerings) > 1:
        raise InputError(f"{name}: its fields are staggered in different ways, {sorted(staggerings)}; reduce one kind")
    (staggered,) = staggerings
    periodic = next(iter(fields.values())).grid.periodic
    if kind == "integral" and any(not periodic[axis] for axis in staggered):
        raise InputError(f"{name}: an integral takes values at cell centres; its fields lie on faces, walls included")
    return staggered


class Pending:
    """Reductions under way: what `grid.start_reduce` returns."""

    def __init__(self, grid: CartesianGrid, terms: Sequence[Term], blocking: bool = False) -> None:
        """Collective."""
        plans = [term.reduction.planned(term) for term in terms]
        while not all(plan.current for plan in plans):  # a later one has widened a halo that an earlier one reads
            plans = [term.reduction.planned(term) for term in terms]
        for plan in plans:
            exchange = plan.halo.start()
            if exchange:
                exchange.finish()
        begin = perf_counter()
        self._terms = terms
        self._partials = [plan.partial for plan in plans]
        blocks = [partial.of_block(term.scalars) for partial, term in zip(self._partials, terms, strict=True)]
        self._combination = Combination(grid.comm, blocks, blocking)
        self._seconds = grid.seconds
        self._seconds["reduce"] += perf_counter() - begin

    def finish(self) -> tuple[Result, ...]:
        """The results, of the fields as they were at the start; the same on every rank. Collective: waits."""
        begin = perf_counter()
        totals = self._combination.totals()
        values = [partial.value(total) for partial, total in zip(self._partials, totals, strict=True)]
        self._seconds["reduce"] += perf_counter() - begin
        return tuple(term.result(value) for term, value in zip(self._terms, values, strict=True))


def reduce_terms(grid: CartesianGrid, terms: Sequence[Term]) -> tuple[Result, ...]:
    """All terms, in one message. Collective."""
    return Pending(grid, terms, blocking=True).finish()


def reduction(kind: str) -> Callable[[Callable[..., Any]], Reduction]:
    """Make a point function that returns an expression a reduction of it: a decorator with the kind. Not collective.

    Kinds: "sum" (exact, rounded once; of complex fields always a complex number), "mean", "integral" (sum times the
    cell's volume), "min", "max" (nan where any value is nan), "argmin", "argmax" (value and global index; the first in
    row-major order).

    Example:
        @hf.reduction("integral")
        def energy(u): return 0.5 * u[0, 0] ** 2
    """
    if callable(kind):
        raise InputError('hf.reduction takes a kind: @hf.reduction("sum")')
    return lambda function: Reduction(function, kind)


class Grid(CartesianGrid):
    """A Cartesian grid that also reduces fields: what `hpcframe.Grid` is.

    All reductions return the same on every rank, are collective, and have the same bits on any number of ranks.
    Fields with components are reduced over all of them. See `CartesianGrid` for the arguments.
    """

    def reduce(self, *terms: Term | tuple[Any, ...]) -> tuple[Result, ...]:
        """Several reductions in one message. Collective.

        Args:
            terms: ("sum", u), ("dot", u, v), ("norm2", u) and so on, by the names of this class's methods; or
                what `reduction.of(...)` returns.

        Raises:
            InputError: on every rank, for an unknown name or fields that do not fit.
        """
        chosen = self._chosen(terms)
        return reduce_terms(self, chosen) if chosen else ()

    def start_reduce(self, *terms: Term | tuple[Any, ...]) -> Pending:
        """Begin several reductions in one message, and go on with something else; `finish()` returns what `reduce`
        does. Collective.

        Several may be under way: every rank finishes them in the same order. Fields may be written to meanwhile.

        Raises:
            InputError: on every rank, for an unknown name, fields that do not fit, or no term.
        """
        chosen = self._chosen(terms)
        if not chosen:
            raise InputError('start_reduce: expected terms, such as ("sum", u)')
        return Pending(self, chosen)

    def _chosen(self, terms: Sequence[Term | tuple[Any, ...]]) -> list[Term]:
        from hpcframe.stencils.standard import standard

        chosen = [term if isinstance(term, Term) else standard(*term) for term in terms]
        self.check_fields(field for term in chosen for field in term.fields.values())
        return chosen

    def sum(self, u: Field) -> Result:
        """Sum of all values, exact and rounded once. Collective."""
        return self.reduce(("sum", u))[0]

    def mean(self, u: Field) -> Result:
        """Mean of all values, exact and rounded once. Collective."""
        return self.reduce(("mean", u))[0]

    def integral(self, u: Field) -> Result:
        """Sum times the volume of a cell (field unit * m^ndim). Collective."""
        return self.reduce(("integral", u))[0]

    def dot(self, u: Field, v: Field) -> Result:
        """Sum of conj(u) * v; each product is rounded, their sum is exact. Collective."""
        return self.reduce(("dot", u, v))[0]

    def min(self, u: Field) -> Result:
        """Least value; nan where any is. Collective."""
        return self.reduce(("min", u))[0]

    def max(self, u: Field) -> Result:
        """Greatest value; nan where any is. Collective."""
        return self.reduce(("max", u))[0]

    def argmin(self, u: Field) -> tuple[Result, tuple[int, ...]]:
        """Least value and its global index, the first in row-major order. Collective."""
        return self.reduce(("argmin", u))[0]

    def argmax(self, u: Field) -> tuple[Result, tuple[int, ...]]:
        """Greatest value and its global index, the first in row-major order. Collective."""
        return self.reduce(("argmax", u))[0]

    def norm(self, u: Field, order: float = 2) -> float:
        """Norm of order 1, 2 or inf over all values. Collective. Raises InputError for another order."""
        names = {1: "norm1", 2: "norm2", float("inf"): "norminf"}
        if order not in names:
            raise InputError(f"norm of order {order}: 1, 2 or float('inf') are possible")
        return self.reduce((names[order], u))[0]
