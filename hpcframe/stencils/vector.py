"""Which stencils are computed in vectors, and the text of their loops.

LLVM makes vectors of the scalar loop by itself. What it cannot know is that the strides of a block never change: as
constants they become part of the instructions, where otherwise each row that is read holds one of the few registers
for addresses. So these loops are made for one memory layout. That is worth compiling for blocks of some size; and in
one or two dimensions, where few rows are read, nothing is gained (measured: docs/performance.md).
"""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import llvmlite.binding

from hpcframe.grid.field import Field
from hpcframe.stencils import generate, vector_ir
from hpcframe.stencils.binding import Scalar
from hpcframe.stencils.point import INDEX_PREFIX, PointFunction
from hpcframe.stencils.positions import Form, WholeNumbers

NOTE = "# Computed in vectors, with the bits of this loop."
POINTS = 32**3  # smaller blocks hardly notice, and would be compiled anew for each shape
GREATEST_POWER = 8
FIRST_LEVEL = 2**15  # bytes of the first-level cache that most cores have
EXACT_WHOLE = {True: 2**24, False: 2**53}  # whole numbers up to here have their value in single, double precision


def namespace() -> dict[str, Any]:
    """What a vector loop needs besides what a scalar loop does."""
    return {"_compute_rows": vector_ir.compute_rows, "_memory_of": vector_ir.memory_of}


def uses_vectors(names: Mapping[str, Any]) -> bool:
    """Whether a loop whose names have this meaning is one of vectors."""
    return any(value is vector_ir.compute_rows for value in names.values())


def pays(point: PointFunction, form: Form, fields: Mapping[str, Field], scalars: Mapping[str, Scalar]) -> bool:
    """Whether these fields are computed in vectors. HPCFRAME_VECTORS=0 is never, =1 wherever it is possible."""
    wish = os.environ.get("HPCFRAME_VECTORS", "")
    kinds = {field.dtype.name for field in fields.values()}
    real = kinds in ({"float32"}, {"float64"}) and not any(isinstance(s, complex) for s in scalars.values())
    if wish == "0" or not real or not expressible(point, form):
        return False
    smallest = min(math.prod(field.local.points) for field in fields.values())
    return wish == "1" or (form.ndim == 3 and smallest >= POINTS)


# -- what can be expressed --------------------------------------------------------------------------------------


def expressible(point: PointFunction, form: Form) -> bool:
    """Whether each statement is arithmetic that vectors do with the same bits: no calls, no `if` statements."""
    if form.integers or (form.single and point.axes):  # beside an index, numba computes in double precision
        return False
    arithmetic = _Arithmetic(point, form)
    return all(
        isinstance(statement, ast.Assign)
        and not any(isinstance(target, ast.Tuple) for target in statement.targets)
        and arithmetic.value(statement.value)
        for statement in point.body
    )


class _Arithmetic:
    """Whether an expression, or a condition, can be computed in vectors."""

    def __init__(self, point: PointFunction, form: Form) -> None:
        self._whole = WholeNumbers(point, form)
        self._single = form.single

    def value(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Constant):
            return self._number(node.value)
        if isinstance(node, ast.Name) and node.id.startswith(INDEX_PREFIX):
            return True
        if self._whole.holds(node):  # arithmetic of whole numbers wraps around and has no negative zero
            return False
        if isinstance(node, ast.BinOp):
            return self.value(node.left) and self._operation(node)
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.op, ast.USub | ast.UAdd) and self.value(node.operand)
        if isinstance(node, ast.IfExp):
            return self.condition(node.test) and self.value(node.body) and self.value(node.orelse)
        return isinstance(node, ast.Name | ast.Subscript)

    def _number(self, value: Any) -> bool:
        if type(value) is int:
            return abs(value) <= EXACT_WHOLE[self._single]
        return type(value) is float and not math.isnan(value)

    def _operation(self, node: ast.BinOp) -> bool:
        if isinstance(node.op, ast.Pow):
            exponent = node.right.value if isinstance(node.right, ast.Constant) else None
            # In single precision numba takes a power in double.
            return not self._single and type(exponent) is int and 1 <= exponent <= GREATEST_POWER
        return isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div) and self.value(node.right)

    def condition(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Compare):
            known = len(node.ops) == 1 and type(node.ops[0]) in vector_ir.COMPARISONS
            return known and self.value(node.left) and self.value(node.comparators[0])
        if isinstance(node, ast.BoolOp):
            return all(map(self.condition, node.values))
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.op, ast.Not) and self.condition(node.operand)
        return isinstance(node, ast.Constant) and isinstance(node.value, bool)


# -- the loop ---------------------------------------------------------------------------------------------------


def vector_bytes() -> int:
    """Bytes of a vector on this machine; LLVM does longer ones than it has in pieces."""
    return 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32


def stencil_source(point: PointFunction, form: Form, fields: Mapping[str, Field]) -> str:
    """The loop of a stencil over fields of this memory: (fields..., scalars..., regions), as the scalar one."""
    indices = sorted(point.axes)
    loops = _planes(point, form, fields)
    lines = [f"_memory_{name} = _memory_of({name})" for name in point.fields]
    lines += generate.region_lines(point, form, indices)
    lines += generate.indent([*_strides(point, form, fields), *loops])
    return generate.function_text(point, lines)


def _strides(point: PointFunction, form: Form, fields: Mapping[str, Field]) -> list[str]:
    """The strides once more, as constants."""
    lines = []
    representative = {group: fields[name] for name, group in reversed(form.group)}
    for quantity, axis, suffix in generate.columns(point, form):
        _, strides = representative[int(suffix[1:] or 0)].addressing()
        held = {"c": strides[: -form.ndim], "s": strides[-form.ndim :]}
        if quantity in held:
            lines.append(f"_{quantity}{axis}{suffix} = _uint64({held[quantity][axis]})")
    return lines


def _planes(point: PointFunction, form: Form, fields: Mapping[str, Field]) -> list[str]:
    """Loops over rows, of some planes together; then over the planes that are left, fewer of them together."""
    if form.ndim == 1:
        return [*generate.row_lines(form), _call(point, form, 1)]
    lines, begin = [], "0"
    for together in _together(point, form, fields):
        lines += _over_rows(point, form, f"_range({begin}, _n0 - {together - 1}, {together})", together)
        begin = f"_n0 - _n0 % {together}"
    return lines


def _together(point: PointFunction, form: Form, fields: Mapping[str, Field]) -> tuple[int, ...]:
    """How many planes are computed together, and how many of those that are left.

    Registers set no limit as in scalar loops: with constant strides, addresses need few. Where the rows of two planes
    are more than the first-level cache holds, all of them come from the second for each row that is computed, and four
    planes at once need fewer a plane.
    """
    if not generate.can_share(point, form):
        return (1,)
    one, two = (generate.rows_read(point, form, planes) for planes in (1, 2))
    if two <= generate.ROWS_IN_PAIRS:
        return (2, 1)
    longest = max(field.addressing()[1][-2] * field.dtype.itemsize for field in fields.values())
    return (1,) if two == 2 * one else (4, 2, 1) if two * longest > FIRST_LEVEL else (2, 1)


def _over_rows(point: PointFunction, form: Form, planes: str, together: int) -> list[str]:
    row = [*generate.row_lines(form), _call(point, form, together)]
    if form.ndim == 3:
        row = ["for _i1 in _range(_n1):", *generate.indent(row)]
    return [f"for _i0 in {planes}:", *generate.indent(row)]


def _call(point: PointFunction, form: Form, together: int) -> str:
    names = f"{' '.join(point.fields)};{' '.join(point.scalars)}"
    body = ast.unparse(ast.Module(list(point.body), []))
    itemsize = 4 if form.single else 8
    last = form.ndim - 1
    index = [_first(point, axis, f" + _i{axis}" if axis < last else "") for axis in range(form.ndim)]
    arguments = [
        *map(repr, (names, body, together, vector_bytes() // itemsize)),
        _tuple([f"_memory_{name}" for name in point.fields]),
        _tuple(point.scalars),
        _tuple([_layout(point, form, name, group) for name, group in form.group]),
        _tuple(index),
        f"_n{last}",
    ]
    return f"_compute_rows({', '.join(arguments)})"


def _first(point: PointFunction, axis: int, further: str) -> str:
    return f"_first{axis}{further}" if axis in point.axes else "0"


def _layout(point: PointFunction, form: Form, name: str, group: int) -> str:
    suffix = form.suffix(group)
    components = range(point.index_length[name] - form.ndim)
    strides = [f"_c{axis}{suffix}" for axis in components] + [f"_s{axis}{suffix}" for axis in range(form.ndim - 1)]
    return _tuple([f"_row{suffix}", *strides])


def _tuple(items: Sequence[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items).rstrip(' ')})"
