"""From an analysed point function to the text of the loop that numba compiles.

Arrays come as flat memory, addressed by unsigned positions: numba then leaves out the test for negative indices,
which would keep LLVM from vectorising. Fields of one memory layout share positions and strides, so that few
registers and few overlap checks are needed. The loop walks a table of regions, one row a box of points, so that the
interior and all borders of a block are two calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcframe.stencils.analysis import ALLOWED_BUILTINS, INDEX_PREFIX, PointFunction

ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
ROWS_IN_PAIRS = 16  # rows that two planes read together; with more, registers run out and pairs lose (measured)
CHUNK = 1024  # values of an expression that are summed at once: they stay in the first-level cache


@dataclass(frozen=True)
class Form:
    """What the text of a loop depends on besides the point function.

    Attributes:
        ndim: axes of the grid.
        group: for each field the number of its memory layout; fields of equal layout share one.
        single: whether all floating-point fields are of single precision, and so the arithmetic.
    """

    ndim: int
    group: tuple[tuple[str, int], ...]
    single: bool = False

    @property
    def groups(self) -> int:
        return max(number for _, number in self.group) + 1


def columns(point: PointFunction, form: Form) -> list[tuple[str, int, str]]:
    """The columns of the table of regions after counts and first indices: (quantity, axis, group's suffix).

    For each memory layout the position of the first point, strides of component axes, and of all axes but the last.
    """
    lengths: dict[int, int] = {}
    for name, group in form.group:
        lengths[group] = max(lengths.get(group, 0), point.index_length[name] - form.ndim)
    found = []
    for group in range(form.groups):
        suffix = "" if group == 0 else f"_{group}"
        found.append(("start", 0, suffix))
        found += [("c", axis, suffix) for axis in range(lengths.get(group, 0))]
        found += [("s", axis, suffix) for axis in range(form.ndim - 1)]
    return found


def stencil_source(point: PointFunction, form: Form) -> str:
    """The loop of a stencil: (fields..., scalars..., regions).

    Small stencils compute two planes at a time, which halves how often a plane is read from the cache.
    """
    indices = sorted(point.axes)
    one = _nest(form, indices, _along_last(form, indices, _body(point, form)))
    loops = one
    if _pays_in_pairs(point, form):
        two = _along_last(form, indices, _pair_body(point, form))
        loops = _nest(form, indices, two, "range(0, n0 - 1, 2)")
        loops += _nest(form, indices, _along_last(form, indices, _body(point, form)), "range(n0 - n0 % 2, n0)")
    return _function(point, [*_region_lines(point, form, indices), *_indent(loops)])


def extreme_source(point: PointFunction, form: Form, greatest: bool) -> str:
    """The loop of a maximum or minimum: returns the value and the global indices where it is first; nan wins."""
    assert point.result is not None
    axes = range(form.ndim)
    body = [
        *_body(point, form),
        f"value = {_text(point, form, point.result)}",
        f"if value {'>' if greatest else '<'} best or (value != value and best == best) or none:",
        "    best, none = value, False",
        *(f"    found_{axis} = {INDEX_PREFIX}{axis}" for axis in axes),
    ]
    lines = ["none = True", "best = start_value", *(f"found_{axis} = 0" for axis in axes)]
    lines += _region_lines(point, form, axes)
    lines += _indent(_nest(form, axes, _along_last(form, axes, body)))
    lines += [f"return best, ({', '.join(f'found_{axis}' for axis in axes)},)"]
    return _function(point, lines, ["start_value"])


def sum_source(point: PointFunction, form: Form, complex_valued: bool, integer: bool) -> str:
    """The loop of an exact sum: (fields..., scalars..., regions, limbs, imaginary), an accumulator each.

    Values are collected until they fill a chunk, across rows, and then deposited at once.
    """
    assert point.result is not None
    last = form.ndim - 1
    kind, deposit = ("int64", "deposit_integers") if integer else ("float64", "deposit")
    parts = {".real": "limbs", ".imag": "imaginary"} if complex_valued else {"": "limbs"}
    deposits = [f"{deposit}(values_{limbs}, filled, {limbs})" for limbs in parts.values()]
    row = [
        "done = 0",
        f"while done < n{last}:",
        f"    count = min(n{last} - done, {CHUNK} - filled)",
        *(f"    part_{limbs} = values_{limbs}[filled : filled + count]" for limbs in parts.values()),
        "    for i in range(count):",
        *_indent([f"{INDEX_PREFIX}{last} = first{last} + done + i"] if last in point.axes else [], 2),
        *_indent(_at_lines(form, "uint64(done + i)"), 2),
        *_indent(_body(point, form), 2),
        f"        value = {_text(point, form, point.result)}",
        *(f"        part_{limbs}[i] = value{part}" for part, limbs in parts.items()),
        "    done += count",
        "    filled += count",
        f"    if filled == {CHUNK}:",
        *_indent([*deposits, "filled = 0"], 2),
    ]
    lines = [f"values_{limbs} = empty({CHUNK}, {kind})" for limbs in parts.values()] + ["filled = 0"]
    lines += _region_lines(point, form, sorted(point.axes))
    lines += _indent(_nest(form, sorted(point.axes), row))
    return _function(point, lines + deposits, ["limbs", "imaginary"])


# -- two planes at a time ---------------------------------------------------------------------------------------


def _pays_in_pairs(point: PointFunction, form: Form) -> bool:
    """Whether computing the points of two planes together shares enough: few rows, and nothing conditional."""
    if form.ndim == 1 or not all(isinstance(s, ast.Assign) and len(s.targets) == 1 for s in point.body):
        return False
    if any(isinstance(s.targets[0], ast.Tuple) for s in point.body if isinstance(s, ast.Assign)):
        return False
    rows = set()
    for name, reads in point.reads.items():
        for where in reads:
            *lead, first = where[: len(where) - form.ndim + 1]
            rest = where[len(where) - form.ndim + 1 : -1]
            rows |= {(name, *lead, first + plane, *rest) for plane in (0, 1)}
    return len(rows) <= ROWS_IN_PAIRS


def _pair_body(point: PointFunction, form: Form) -> list[str]:
    """The body for a point and for the one above it; values are stored last, so that loads can be shared."""
    lines, stores = [], []
    for plane in (0, 1):
        writer = _Positions(point, form, plane)
        for number, statement in enumerate(point.body):
            assert isinstance(statement, ast.Assign)
            value = ast.unparse(ast.fix_missing_locations(writer.visit(_copy(statement.value))))
            target = ast.unparse(ast.fix_missing_locations(writer.visit(_copy(statement.targets[0]))))
            if isinstance(statement.targets[0], ast.Subscript):
                stores.append(f"{target} = value_{number}_{plane}")
                target = f"value_{number}_{plane}"
            lines.append(f"{target} = {value}")
    return lines + stores


# -- pieces -----------------------------------------------------------------------------------------------------


def _indent(lines: Sequence[str], levels: int = 1) -> list[str]:
    return [f"{'    ' * levels}{line}" for line in lines]


def _function(point: PointFunction, lines: Sequence[str], more: Sequence[str] = ()) -> str:
    head = f"def {point.name}({', '.join((*point.fields, *point.scalars, 'regions', *more))}):"
    return "\n".join([head, *_indent(lines)]) + "\n"


def _nest(form: Form, indices: Iterable[int], row: Sequence[str], planes: str = "range(n0)") -> list[str]:
    """Loops over all axes but the last around what is done for a row."""
    lines: list[str] = []
    for axis in range(form.ndim - 1):
        over = planes if axis == 0 else f"range(n{axis})"
        lines += _indent([f"for i{axis} in {over}:"], axis)
        lines += _indent([f"{INDEX_PREFIX}{axis} = first{axis} + i{axis}"] if axis in indices else [], axis + 1)
    return lines + _indent([*_row_lines(form), *row], form.ndim - 1)


def _along_last(form: Form, indices: Iterable[int], body: Sequence[str]) -> list[str]:
    """The loop over the points of a row."""
    last = form.ndim - 1
    own_index = [f"{INDEX_PREFIX}{last} = first{last} + i{last}"] if last in indices else []
    return [f"for i{last} in range(n{last}):", *_indent([*own_index, *_at_lines(form, f"uint64(i{last})"), *body])]


def _region_lines(point: PointFunction, form: Form, indices: Iterable[int]) -> list[str]:
    """Read a row of the table: counts, first global indices, then positions and strides."""
    lines = ["for region in range(regions.shape[0]):"]
    lines += [f"    n{axis} = regions[region, {axis}]" for axis in range(form.ndim)]
    lines += [f"    first{axis} = regions[region, {form.ndim + axis}]" for axis in indices]
    for column, (quantity, axis, suffix) in enumerate(columns(point, form), 2 * form.ndim):
        name = f"start{suffix}" if quantity == "start" else f"{quantity}{axis}{suffix}"
        lines.append(f"    {name} = uint64(regions[region, {column}])")
    return lines


def _row_lines(form: Form) -> list[str]:
    lines = []
    for group in range(form.groups):
        suffix = "" if group == 0 else f"_{group}"
        terms = [f"start{suffix}"] + [f"uint64(i{axis}) * s{axis}{suffix}" for axis in range(form.ndim - 1)]
        lines.append(f"row{suffix} = {' + '.join(terms)}")
    return lines


def _at_lines(form: Form, along: str) -> list[str]:
    suffixes = ["" if group == 0 else f"_{group}" for group in range(form.groups)]
    return [f"at{suffix} = row{suffix} + {along}" for suffix in suffixes]


def _body(point: PointFunction, form: Form) -> list[str]:
    writer = _Positions(point, form)
    module = ast.Module([writer.visit(_copy(statement)) for statement in point.body], [])
    return ast.unparse(ast.fix_missing_locations(module)).splitlines()


def _text(point: PointFunction, form: Form, node: ast.expr) -> str:
    return ast.unparse(ast.fix_missing_locations(_Positions(point, form).visit(_copy(node))))


def _copy(node: Any) -> Any:
    """A deep copy of the tree: one point function is generated in several forms."""
    if isinstance(node, list):
        return [_copy(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    return type(node)(**{name: _copy(value) for name, value in ast.iter_fields(node)})


class _Positions(ast.NodeTransformer):
    """Accesses become positions in flat memory, numbers get the precision of the arithmetic."""

    def __init__(self, point: PointFunction, form: Form, plane: int = 0) -> None:
        self._form = form
        self._group = dict(form.group)
        self._plane = plane
        self._known = {*point.parameters, *point.namespace}

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        assert isinstance(node.value, ast.Name)
        assert isinstance(node.slice, ast.Tuple)
        where = [entry.value for entry in node.slice.elts if isinstance(entry, ast.Constant)]
        position = ast.parse(self._position(node.value.id, where), mode="eval").body
        return ast.Subscript(node.value, position, node.ctx)

    def _position(self, name: str, where: list[Any]) -> str:
        group = self._group[name]
        suffix = "" if group == 0 else f"_{group}"
        lead = len(where) - self._form.ndim
        where[lead] += self._plane
        strides = [f"c{axis}{suffix}" for axis in range(lead)]
        strides += [f"s{axis}{suffix}" for axis in range(self._form.ndim - 1)] + [""]
        text = f"at{suffix}"
        for step, stride in zip(where, strides, strict=True):
            if step:
                count = f"u{abs(step)}" if not stride or abs(step) > 1 else ""
                text += f" {'-' if step < 0 else '+'} {' * '.join(filter(None, (count, stride)))}"
        return text

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Of two planes, the upper one has temporaries and an index of its own."""
        if not self._plane or node.id in self._known or node.id in ALLOWED_BUILTINS:
            return node
        if node.id.startswith(INDEX_PREFIX):
            return ast.BinOp(node, ast.Add(), ast.Constant(1)) if node.id == f"{INDEX_PREFIX}0" else node
        return ast.Name(f"{node.id}_above", node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if self._form.single and isinstance(node.value, float):
            return ast.Call(ast.Name("float32", ast.Load()), [node], [])
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """In single precision a whole number beside a field's value is one of single precision too."""
        mixed = self._form.single and isinstance(node.op, ARITHMETIC)
        mixed = mixed and not (_whole(node.left) and _whole(node.right))
        for side in ("left", "right"):
            operand = getattr(node, side)
            if mixed and isinstance(operand, ast.Constant) and type(operand.value) is int:
                setattr(node, side, ast.Constant(float(operand.value)))
        return self.generic_visit(node)


def _whole(node: ast.expr) -> bool:
    """Whether an expression is made of whole numbers and global indices only."""
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    if isinstance(node, ast.Name):
        return node.id.startswith(INDEX_PREFIX)
    if isinstance(node, ast.UnaryOp):
        return _whole(node.operand)
    return isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Div) and _whole(node.left) and _whole(node.right)


def namespace(point: PointFunction, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the names in a generated loop mean."""
    reach = [abs(step) for reads in point.reads.values() for where in reads for step in where]
    reach += [8]
    numbers = {f"u{n}": np.uint64(n) for n in range(1, max(reach) + 1)}
    return {
        "uint64": np.uint64, "int64": np.int64, "float64": np.float64, "float32": np.float32, "empty": np.empty,
        **numbers, **point.namespace, **(more or {}),
    }  # fmt: skip
