"""What a rank contributes to a reduction, and how the total over ranks becomes a value."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from hpcframe.grid.field import Field
from hpcframe.stencils import exact, generate
from hpcframe.stencils.binding import Scalar
from hpcframe.stencils.combining import Integers
from hpcframe.stencils.loops import compile_loop, form_of, region_table, typed_scalars
from hpcframe.stencils.point import PointFunction
from hpcframe.stencils.positions import WholeNumbers
from hpcframe.stencils.regions import shares
from hpcframe.threads import team

NOTHING: Integers = np.zeros(0, np.int64)
NAN_KEY = np.iinfo(np.int64).max  # above the key of any number
SIGN = np.int64(NAN_KEY)


class Partial(Protocol):
    """One reduction of certain fields."""

    def of_block(self, scalars: Mapping[str, Scalar]) -> tuple[Integers, Integers]:
        """The integers to add and the pair to maximise over ranks, of this rank's block."""

    def value(self, total: tuple[Integers, Integers]) -> Any:
        """The result, from the integers of all ranks."""


class _Loop:
    """A generated reduction loop over the whole block, all components of a field where an expression names none.

    Attributes:
        tables: the regions of each thread.
        repeats: how many values a point has.
    """

    def __init__(self, point: PointFunction, fields: Mapping[str, Field]) -> None:
        first = next(iter(fields.values()))
        self.point = point
        self.fields = fields
        self.grid = first.grid
        self.form = form_of(point, fields, self.grid.ndim)
        assert point.result is not None
        self.integer = WholeNumbers(point, self.form).holds(point.result)
        self.arrays = [fields[name].storage for name in point.fields]
        repeated = first.components and point.index_length[point.fields[0]] == self.grid.ndim
        self.repeats = math.prod(first.components) if repeated else 1
        box = tuple((0, count) for count in first.local.points)
        held = shares([box], self.grid.threads, False)
        self.tables = [self._repeated(region_table(point, self.form, fields, first.block, boxes)) for boxes in held]

    def _repeated(self, regions: Integers) -> Integers:
        """Start columns moved on by the components' distances; fields of one expression have equal components."""
        component = np.tile(np.arange(self.repeats), len(regions))
        rows = np.repeat(regions, self.repeats, axis=0)
        for column, (quantity, _, suffix) in enumerate(generate.columns(self.point, self.form), 2 * self.grid.ndim):
            if quantity == "start" and self.repeats > 1:
                rows[:, column] += component * self._component_size(suffix)
        return rows

    def _component_size(self, suffix: str) -> int:
        name = next(name for name, group in self.form.group if group == int(suffix[1:] or 0))
        field = self.fields[name]
        return field.storage.size // math.prod(field.components)

    def run(self, call: Callable[..., Any], scalars: Mapping[str, Scalar], more: Callable[[], tuple[Any, ...]]) -> list:
        """For each thread what its call returned, and what `more` made for it, the last arguments."""
        numbers = typed_scalars(self.form, scalars, self.point.scalars)
        last = [more() for _ in self.tables]
        found: list[Any] = [None] * len(self.tables)

        def work(member: int) -> None:
            found[member] = call(*self.arrays, *numbers, self.tables[member], *last[member])

        if len(self.tables) == 1:
            work(0)
        else:
            team().run(work, len(self.tables))
        return list(zip(found, last, strict=True))


def _is_field(point: PointFunction, fields: Mapping[str, Field]) -> bool:
    """Whether the expression is a field of float64, so that its values lie in memory already."""
    if point.body or not isinstance(point.result, ast.Subscript) or not isinstance(point.result.value, ast.Name):
        return False
    return fields[point.result.value.id].dtype == np.float64


class Sum:
    """An exact sum; with `mean` or `integral` the scaled one."""

    def __init__(
        self,
        kind: str,
        point: PointFunction,
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
        real: bool = False,
    ) -> None:
        """Collective: compiles."""
        self._kind = kind
        self._loop = loop = _Loop(point, fields)
        integer = loop.integer
        inputs = [field.dtype.kind == "c" for field in fields.values()]
        self._complex = not real and (any(inputs) or any(isinstance(value, complex) for value in scalars.values()))
        self._integer = integer
        if _is_field(point, fields):
            source = generate.field_sum_source(point, loop.form)
        else:
            source = generate.sum_source(point, loop.form, self._complex, integer)
        more = {"_deposit": exact.deposit_integers if integer else exact.deposit_rows}
        extra = "int64[::1], int64[::1]"
        self._call = compile_loop(source, point, loop.form, fields, scalars, loop.grid.shared, extra=extra, more=more)
        self._count = math.prod(loop.grid.decomposition.points(next(iter(fields.values())).staggered))
        self._count *= loop.repeats

    def of_block(self, scalars: Mapping[str, Scalar]) -> tuple[Integers, Integers]:
        parts = self._loop.run(self._call, scalars, lambda: (*np.zeros((2, exact.LIMBS), np.int64),))
        limbs, imaginary = np.sum([limbs for _, limbs in parts], axis=0)
        return (np.concatenate([limbs, imaginary]) if self._complex else limbs), NOTHING

    def value(self, total: tuple[Integers, Integers]) -> Any:
        parts = [self._rounded(limbs) for limbs in total[0].reshape(-1, exact.LIMBS)]
        return complex(*parts) if self._complex else parts[0]

    def _rounded(self, limbs: Integers) -> float | int:
        if self._kind == "mean":
            return exact.to_mean(limbs, self._count)
        if self._integer and self._kind == "sum":
            return exact.to_int(limbs)
        total = exact.to_float(limbs)
        return total * self._loop.grid.cell_volume if self._kind == "integral" else total


class Extreme:
    """The greatest or least value, and where it is first."""

    def __init__(
        self,
        kind: str,
        point: PointFunction,
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
    ) -> None:
        """Collective: compiles."""
        self._greatest = kind.endswith("max")
        self._with_index = kind.startswith("arg")
        self._loop = loop = _Loop(point, fields)
        self._integer = integer = loop.integer
        self._shape = loop.grid.decomposition.points(next(iter(fields.values())).staggered)
        value = "int64" if integer else "float64"
        source = generate.extreme_source(point, loop.form, self._greatest)
        returns = f"Tuple(({value}, UniTuple(int64, {loop.grid.ndim})))"
        self._call = compile_loop(
            source, point, loop.form, fields, scalars, loop.grid.shared, extra=value, returns=returns
        )

    def of_block(self, scalars: Mapping[str, Scalar]) -> tuple[Integers, Integers]:
        start = 0 if self._integer else 0.0
        parts = self._loop.run(self._call, scalars, lambda: (start,))
        return NOTHING, np.array(max(self._pair(*found) for found, _ in parts), np.int64)

    def _pair(self, value: float, where: tuple[int, ...]) -> tuple[int, int]:
        """Of two such pairs the greater one is of the value that is wanted, and of equal ones of the first."""
        return self._key(value), -int(np.ravel_multi_index(where, self._shape)) if self._with_index else 0

    def _key(self, value: float) -> int:
        """An integer that sorts like the value; nan above all."""
        if value != value:
            return int(NAN_KEY)
        if self._integer:
            key = int(value)
        else:
            bits = int(np.float64(value + 0.0).view(np.int64))  # -0.0 becomes 0.0, which it equals
            key = bits if bits >= 0 else bits ^ int(SIGN)
        return key if self._greatest else ~key

    def value(self, total: tuple[Integers, Integers]) -> Any:
        key, first = (int(number) for number in total[1])
        value = self._from_key(key)
        return (value, tuple(map(int, np.unravel_index(-first, self._shape)))) if self._with_index else value

    def _from_key(self, key: int) -> float | int:
        key_of_value = key if self._greatest else ~key
        if self._integer:
            return key_of_value
        if key == NAN_KEY:
            return math.nan
        bits = key_of_value if key_of_value >= 0 else key_of_value ^ int(SIGN)
        return float(np.int64(bits).view(np.float64))
