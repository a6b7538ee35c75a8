"""A point function as LLVM vector code: the rows of one or two planes at once, a vector of points at a time.

The rows share what they load. Each operation is the IEEE operation of the scalar loop, in the same order, without
contraction or other fast-math, so every point has the bits that the scalar loop gives it. A row shorter than a vector
is done point by point with the same operations; the last vector of a longer one ends where the row ends, and may
compute some points again.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hpcframe.stencils.point import INDEX_PREFIX

INT64 = ir.IntType(64)
Values = list[ir.Value]  # one a row
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


@intrinsic(prefer_literal=True)
def memory_of(typing: Any, array: Any) -> Any:
    """Where an array begins: without the array around it there are no references to count."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), emit


@intrinsic(prefer_literal=True)
def compute_rows(
    typing: Any, names: Any, body: Any, planes: Any, width: Any, memory: Any, scalars: Any, layouts: Any, index: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Compute the points of some rows.

    Args:
        names: literal: the fields, a semicolon, the scalars, each separated by blanks.
        body: literal: assignments with constant indices.
        planes: literal: rows to compute together, neighbours along the first axis.
        width: literal: points in a vector.
        memory: where each field begins.
        scalars: their values.
        layouts: for each field the position of the first point, then the strides of all axes but the last.
        index: the global index of the first point along each axis.
        count: points in a row.
    """
    if not isinstance(body, types.StringLiteral):
        return None
    fields, numbers = (part.split() for part in names.literal_value.split(";"))
    statements = ast.parse(body.literal_value).body

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        held = [cgutils.unpack_tuple(builder, argument) for argument in arguments[4:8]]
        block = _Rows(
            builder,
            context.get_data_type(signature.args[4][0].dtype),
            planes.literal_value,
            dict(zip(fields, held[0], strict=True)),
            dict(zip(numbers, held[1], strict=True)),
            dict(zip(fields, (cgutils.unpack_tuple(builder, layout) for layout in held[2]), strict=True)),
            held[3],
        )
        _along_row(block, arguments[8], width.literal_value, statements)
        return context.get_dummy_value()

    return types.void(names, body, planes, width, memory, scalars, layouts, index, count), emit


@dataclass
class _Rows:
    """Rows that are computed together.

    Attributes:
        builder: where instructions are put.
        real: type of all values, float or double.
        planes: how many rows, neighbours along the first axis.
        memory, scalars: by name.
        layouts: by name of the field: position of the first point, then strides.
        index: the global index of the first point along each axis.
    """

    builder: ir.IRBuilder
    real: ir.Type
    planes: int
    memory: dict[str, ir.Value]
    scalars: dict[str, ir.Value]
    layouts: dict[str, Sequence[ir.Value]]
    index: Sequence[ir.Value]
    begins: dict[tuple[Any, ...], ir.Value] = field(default_factory=dict)

    def begin(self, name: str, where: tuple[int, ...]) -> ir.Value:
        """The address of the first point of the row at this offset, in the block that comes before the loops."""
        key = (name, *where)
        if key not in self.begins:
            position, *strides = self.layouts[name]
            for step, stride in zip(where, strides, strict=True):
                if step:
                    position = self.builder.add(position, self.builder.mul(stride, INT64(step)))
            self.begins[key] = self.builder.gep(self.memory[name], [position])
        return self.begins[key]


def _along_row(rows: _Rows, count: ir.Value, width: int, statements: Sequence[ast.stmt]) -> None:
    """Vectors along a row, or points where it has fewer than one vector."""
    builder = rows.builder
    one = INT64(width)
    for name, where in _accesses(statements):
        for plane in range(rows.planes):
            rows.begin(name, _shifted(where[:-1], plane, len(rows.index)))
    last = builder.sub(count, one)
    long = builder.icmp_signed(">=", last, INT64(0))
    vectors = builder.udiv(builder.add(count, INT64(width - 1)), one)
    with cgutils.for_range(builder, builder.select(long, vectors, INT64(0))) as loop:
        at = builder.mul(loop.index, one)
        at = builder.select(builder.icmp_signed("<", at, last), at, last)
        _Points(rows, at, width).run(statements)
    # That less than a vector is left keeps LLVM from making vectors of these points once more.
    rest = builder.and_(count, INT64(width - 1))
    with cgutils.for_range(builder, builder.select(long, INT64(0), rest)) as loop:
        _Points(rows, loop.index, 1).run(statements)


def _accesses(statements: Sequence[ast.stmt]) -> list[tuple[str, tuple[int, ...]]]:
    nodes = [node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Subscript)]
    return list(dict.fromkeys((node.value.id, _entries(node)) for node in nodes if isinstance(node.value, ast.Name)))


def _entries(node: ast.Subscript) -> tuple[int, ...]:
    entries = ast.literal_eval(node.slice)
    return entries if isinstance(entries, tuple) else (entries,)


def _shifted(where: tuple[int, ...], plane: int, ndim: int) -> tuple[int, ...]:
    """Components and leading offsets, seen from a plane further on; in one dimension there is one row only."""
    first = len(where) - (ndim - 1)
    return tuple(entry + plane * (axis == first) for axis, entry in enumerate(where))


class _Points:
    """A vector of points in each row: the value of an expression is one vector a row."""

    def __init__(self, rows: _Rows, at: ir.Value, width: int) -> None:
        self.rows = rows
        self.builder = rows.builder
        self.at = at
        self.width = width
        self.type = ir.VectorType(rows.real, width) if width > 1 else rows.real
        self.values: dict[str, Values] = {}
        self.loaded: dict[tuple[str, tuple[int, ...], int], ir.Value] = {}

    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Values are stored last, so that no load waits for a store."""
        stores: list[tuple[tuple[str, tuple[int, ...], int], ir.Value]] = []
        for statement in statements:
            assert isinstance(statement, ast.Assign)
            values = self.value(statement.value)
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    self.values[target.id] = values
                else:
                    stores += zip(self.places(target), values, strict=True)
        for place, value in stores:
            self.builder.store(value, self.address(*place), align=self.bytes)

    @property
    def bytes(self) -> int:
        return 4 if isinstance(self.rows.real, ir.FloatType) else 8

    # -- memory -------------------------------------------------------------------------------------------------

    def places(self, node: Any) -> list[tuple[str, tuple[int, ...], int]]:
        """For each row: field, row that is accessed, and offset along it."""
        *where, along = _entries(node)
        ndim = len(self.rows.index)
        return [(node.value.id, _shifted(tuple(where), plane, ndim), along) for plane in range(self.rows.planes)]

    def address(self, name: str, where: tuple[int, ...], along: int) -> ir.Value:
        point = self.builder.gep(self.builder.gep(self.rows.begin(name, where), [self.at]), [INT64(along)])
        return self.builder.bitcast(point, self.type.as_pointer())

    def _subscript(self, node: ast.Subscript) -> Values:
        for place in self.places(node):
            if place not in self.loaded:
                self.loaded[place] = self.builder.load(self.address(*place), align=self.bytes)
        return [self.loaded[place] for place in self.places(node)]

    # -- expressions --------------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Values:
        return getattr(self, f"_{type(node).__name__.lower()}")(node)

    def each(self, operation: Callable[..., ir.Value], *operands: Values) -> Values:
        return [operation(*row) for row in zip(*operands, strict=True)]

    def everywhere(self, value: ir.Value) -> ir.Value:
        """The same value for all points of a vector."""
        if self.width == 1:
            return value
        vector = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), value, ir.IntType(32)(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.builder.shuffle_vector(vector, ir.Constant(self.type, ir.Undefined), order)

    def _constant(self, node: ast.Constant) -> Values:
        number = float(np.float32(node.value)) if self.bytes == 4 else float(node.value)  # type: ignore[arg-type]
        constant = ir.Constant(self.type, [number] * self.width if self.width > 1 else number)
        return [constant] * self.rows.planes

    def _name(self, node: ast.Name) -> Values:
        if node.id in self.values:
            return self.values[node.id]
        if node.id.startswith(INDEX_PREFIX):
            return self._index(int(node.id.removeprefix(INDEX_PREFIX)))
        return [self.everywhere(self.rows.scalars[node.id])] * self.rows.planes

    def _index(self, axis: int) -> Values:
        """Global indices as floating-point numbers, which they become beside any."""
        first = self.rows.index[axis]
        if axis == len(self.rows.index) - 1:
            start = self.everywhere(self.builder.sitofp(self.builder.add(first, self.at), self.rows.real))
            steps = [float(step) for step in range(self.width)]
            along = self.builder.fadd(start, ir.Constant(self.type, steps)) if self.width > 1 else start
            return [along] * self.rows.planes
        whole = [self.builder.add(first, INT64(plane * (axis == 0))) for plane in range(self.rows.planes)]
        return [self.everywhere(self.builder.sitofp(number, self.rows.real)) for number in whole]

    def _binop(self, node: ast.BinOp) -> Values:
        left = self.value(node.left)
        if isinstance(node.op, ast.Pow):
            assert isinstance(node.right, ast.Constant) and isinstance(node.right.value, int)
            return self._power(left, node.right.value)
        operations = {
            ast.Add: self.builder.fadd, ast.Sub: self.builder.fsub, ast.Mult: self.builder.fmul,
            ast.Div: self.builder.fdiv,
        }  # fmt: skip
        return self.each(operations[type(node.op)], left, self.value(node.right))

    def _power(self, base: Values, exponent: int) -> Values:
        """By squaring, from the lowest bit of the exponent on, as numba does it."""
        result: Values = []
        while exponent:
            if exponent & 1:
                result = self.each(self.builder.fmul, result, base) if result else base
            exponent >>= 1
            base = self.each(self.builder.fmul, base, base)
        return result

    def _unaryop(self, node: ast.UnaryOp) -> Values:
        if isinstance(node.op, ast.Not):
            return self.each(self.builder.not_, self.test(node.operand))
        value = self.value(node.operand)
        return self.each(self.builder.fneg, value) if isinstance(node.op, ast.USub) else value

    # -- conditions: one bit a point ----------------------------------------------------------------------------

    def test(self, node: ast.expr) -> Values:
        if not isinstance(node, ast.Constant):
            return self.value(node)
        bits = ir.VectorType(ir.IntType(1), self.width) if self.width > 1 else ir.IntType(1)
        answer = int(bool(node.value))
        return [ir.Constant(bits, [answer] * self.width if self.width > 1 else answer)] * self.rows.planes

    def _ifexp(self, node: ast.IfExp) -> Values:
        test, body, orelse = self.test(node.test), self.value(node.body), self.value(node.orelse)
        return self.each(self.builder.select, test, body, orelse)

    def _boolop(self, node: ast.BoolOp) -> Values:
        combine = self.builder.and_ if isinstance(node.op, ast.And) else self.builder.or_
        result, *others = [self.test(part) for part in node.values]
        for other in others:
            result = self.each(combine, result, other)
        return result

    def _compare(self, node: ast.Compare) -> Values:
        symbol = COMPARISONS[type(node.ops[0])]
        compare = self.builder.fcmp_unordered if symbol == "!=" else self.builder.fcmp_ordered
        left, right = self.value(node.left), self.value(node.comparators[0])
        return self.each(lambda one, other: compare(symbol, one, other), left, right)
