"""From an analysed point function to the text of the loop that numba compiles.

Arrays come as flat memory, addressed by unsigned positions: numba then leaves out the test for negative indices,
which would keep LLVM from vectorising. Fields of one memory layout share positions and strides, so that few
registers and few overlap checks are needed. The loop walks a table of regions, one row a box of points, so that the
interior and all borders of a block are two calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hpcframe.stencils.point import INDEX_PREFIX, PointFunction
from hpcframe.stencils.positions import Form, Positions, copy_of

ROWS_IN_PAIRS = 16  # rows that two planes read together; with more, registers run out and pairs lose (measured)
NUMBERS = "_zero, _one = _int64(0), _int64(1)"  # for literals numba would compile what they are given to once more
CHUNK = 1024  # values of an expression that are summed at once: they stay in the first-level cache


def columns(point: PointFunction, form: Form) -> list[tuple[str, int, str]]:
    """The columns of the table of regions after counts and first indices: (quantity, axis, group's suffix).

    For each memory layout the position of the first point, strides of component axes, and of all axes but the last.
    """
    lengths: dict[int, int] = {}
    for name, group in form.group:
        lengths[group] = max(lengths.get(group, 0), point.index_length[name] - form.ndim)
    found = []
    for group in range(form.groups):
        suffix = form.suffix(group)
        found.append(("start", 0, suffix))
        found += [("c", axis, suffix) for axis in range(lengths.get(group, 0))]
        found += [("s", axis, suffix) for axis in range(form.ndim - 1)]
    return found


def stencil_source(point: PointFunction, form: Form) -> str:
    """The loop of a stencil: (fields..., scalars..., regions).

    Small stencils compute two planes at a time, which halves how often a plane is read from the cache.
    """
    indices = sorted(point.axes)
    single = _along_last(form, indices, _body(point, form))
    if pays_in_pairs(point, form):
        pair = _along_last(form, indices, _pair_body(point, form))
        loops = _nest(form, indices, pair, "_range(0, _n0 - 1, 2)")
        loops += _nest(form, indices, single, "_range(_n0 - _n0 % 2, _n0)")
    else:
        loops = _nest(form, indices, single)
    return function_text(point, [*region_lines(point, form, indices), *indent(loops)])


def extreme_source(point: PointFunction, form: Form, greatest: bool) -> str:
    """The loop of a maximum or minimum: (fields..., scalars..., regions, start), start of the value's type.

    Returns the value and the global indices where it is first; nan wins.
    """
    assert point.result is not None
    axes = range(form.ndim)
    body = [
        *_body(point, form),
        f"_value = {_text(point, form, point.result)}",
        f"if _value {'>' if greatest else '<'} _best or (_value != _value and _best == _best) or _none:",
        "    _best, _none = _value, False",
        *(f"    _found{axis} = {INDEX_PREFIX}{axis}" for axis in axes),
    ]
    lines = ["_none = True", "_best = _start", *(f"_found{axis} = 0" for axis in axes)]
    lines += region_lines(point, form, axes)
    lines += indent(_nest(form, axes, _along_last(form, axes, body)))
    lines += [f"return _best, ({', '.join(f'_found{axis}' for axis in axes)},)"]
    return function_text(point, lines, ["_start"])


def sum_source(point: PointFunction, form: Form, complex_valued: bool, integer: bool) -> str:
    """The loop of an exact sum: (fields..., scalars..., regions, real, imaginary), an accumulator each.

    Values are collected until they fill a chunk, across rows, and then deposited at once.
    """
    assert point.result is not None
    last = form.ndim - 1
    kind = "_int64" if integer else "_float64"
    parts = {".real": "_real", ".imag": "_imaginary"} if complex_valued else {"": "_real"}
    deposits = [_deposit_line(limbs, integer) for limbs in parts.values()]
    row = [
        "_done = 0",
        f"while _done < _n{last}:",
        f"    _count = _min(_n{last} - _done, {CHUNK} - _filled)",
        *(f"    _part{limbs} = _values{limbs}[_filled : _filled + _count]" for limbs in parts.values()),
        f"    for _i{last} in _range(_count):",
        *indent([f"{INDEX_PREFIX}{last} = _first{last} + _done + _i{last}"] if last in point.axes else [], 2),
        *indent(_at_lines(form, f"_uint64(_done + _i{last})"), 2),
        *indent(_body(point, form), 2),
        f"        _value = {_text(point, form, point.result)}",
        *(f"        _part{limbs}[_i{last}] = _value{part}" for part, limbs in parts.items()),
        "    _done += _count",
        "    _filled += _count",
        f"    if _filled == {CHUNK}:",
        *indent([*deposits, "_filled = _zero"], 2),
    ]
    lines = [NUMBERS, *(f"_values{limbs} = _empty({CHUNK}, {kind})" for limbs in parts.values()), "_filled = _zero"]
    lines += [f"_position{limbs} = _zero" for limbs in parts.values()]
    lines += region_lines(point, form, sorted(point.axes))
    lines += indent(_nest(form, sorted(point.axes), row))
    return function_text(point, lines + deposits, ["_real", "_imaginary"])


def _deposit_line(limbs: str, integer: bool) -> str:
    """Deposit a chunk: one row. Of floating-point numbers remember for the next one what fitted this."""
    if integer:
        return f"_deposit(_values{limbs}, _filled, {limbs})"
    return f"_position{limbs} = _deposit(_values{limbs}, _zero, _one, _zero, _filled, {limbs}, _position{limbs})"


def field_sum_source(point: PointFunction, form: Form) -> str:
    """The same where the expression is a field of float64: its rows are deposited from where they lie.

    One call deposits the rows of a plane.
    """
    read = Positions(point, form).visit(copy_of(point.result))
    name, suffix = read.value.id, form.suffix(dict(form.group)[read.value.id])
    along, across = form.ndim - 1, form.ndim - 2
    rows = f"_n{across}, _int64(_s{across}{suffix})" if form.ndim > 1 else "_one, _zero"
    plane = [
        f"_at{suffix} = _begin{suffix}" + (f" + _uint64(_i0) * _s0{suffix}" if form.ndim > 2 else ""),
        f"_first = _int64({ast.unparse(read.slice)})",
        f"_position = _deposit({name}, _first, {rows}, _n{along}, _real, _position)",
    ]
    planes = ["for _i0 in _range(_n0):", *indent(plane)] if form.ndim > 2 else plane
    lines = [NUMBERS, "_position = _zero", *region_lines(point, form, []), *indent(planes)]
    return function_text(point, lines, ["_real", "_imaginary"])


# -- two planes at a time ---------------------------------------------------------------------------------------


def pays_in_pairs(point: PointFunction, form: Form) -> bool:
    """Whether computing the points of two planes together shares enough: few rows, and nothing conditional."""
    return can_share(point, form) and rows_read(point, form, 2) <= ROWS_IN_PAIRS


def can_share(point: PointFunction, form: Form) -> bool:
    """Whether some planes can be computed together: nothing is conditional, and each statement has one target."""
    if form.ndim == 1 or not all(isinstance(s, ast.Assign) and len(s.targets) == 1 for s in point.body):
        return False
    return not any(isinstance(s.targets[0], ast.Tuple) for s in point.body if isinstance(s, ast.Assign))


def rows_read(point: PointFunction, form: Form, planes: int) -> int:
    """How many rows some planes read together."""
    rows = set()
    for name, reads in point.reads.items():
        for where in reads:
            *lead, first = where[: len(where) - form.ndim + 1]
            rest = where[len(where) - form.ndim + 1 : -1]
            rows |= {(name, *lead, first + plane, *rest) for plane in range(planes)}
    return len(rows)


def _pair_body(point: PointFunction, form: Form) -> list[str]:
    """The body for a point and for the one above it; values are stored last, so that loads can be shared."""
    lines, stores = [], []
    for plane in (0, 1):
        for number, statement in enumerate(point.body):
            assert isinstance(statement, ast.Assign)
            target, value = _text(point, form, statement, plane).split(" = ", 1)
            if isinstance(statement.targets[0], ast.Subscript):
                stores.append(f"{target} = _value{number}_{plane}")
                target = f"_value{number}_{plane}"
            lines.append(f"{target} = {value}")
    return lines + stores


# -- pieces -----------------------------------------------------------------------------------------------------


def loop_name(point: PointFunction) -> str:
    """The name of the generated function: nothing in the loop can mean it by accident."""
    return f"_{point.name}"


def function_text(point: PointFunction, lines: Sequence[str], more: Sequence[str] = ()) -> str:
    head = f"def {loop_name(point)}({', '.join((*point.fields, *point.scalars, '_regions', *more))}):"
    return "\n".join([head, *indent(lines)]) + "\n"


def indent(lines: Sequence[str], levels: int = 1) -> list[str]:
    return [f"{'    ' * levels}{line}" for line in lines]


def _nest(form: Form, indices: Iterable[int], row: Sequence[str], planes: str = "_range(_n0)") -> list[str]:
    """Loops over all axes but the last around what is done for a row."""
    lines: list[str] = []
    for axis in range(form.ndim - 1):
        over = planes if axis == 0 else f"_range(_n{axis})"
        lines += indent([f"for _i{axis} in {over}:"], axis)
        lines += indent([f"{INDEX_PREFIX}{axis} = _first{axis} + _i{axis}"] if axis in indices else [], axis + 1)
    return lines + indent([*row_lines(form), *row], form.ndim - 1)


def _along_last(form: Form, indices: Iterable[int], body: Sequence[str]) -> list[str]:
    """The loop over the points of a row."""
    last = form.ndim - 1
    own_index = [f"{INDEX_PREFIX}{last} = _first{last} + _i{last}"] if last in indices else []
    return [f"for _i{last} in _range(_n{last}):", *indent([*own_index, *_at_lines(form, f"_uint64(_i{last})"), *body])]


def region_lines(point: PointFunction, form: Form, indices: Iterable[int]) -> list[str]:
    """Read a row of the table: counts, first global indices, then positions and strides."""
    lines = ["for _region in _range(_regions.shape[0]):"]
    lines += [f"    _n{axis} = _regions[_region, {axis}]" for axis in range(form.ndim)]
    lines += [f"    _first{axis} = _regions[_region, {form.ndim + axis}]" for axis in indices]
    for column, (quantity, axis, suffix) in enumerate(columns(point, form), 2 * form.ndim):
        name = f"_begin{suffix}" if quantity == "start" else f"_{quantity}{axis}{suffix}"
        lines.append(f"    {name} = _uint64(_regions[_region, {column}])")
    return lines


def row_lines(form: Form) -> list[str]:
    lines = []
    for group in range(form.groups):
        suffix = form.suffix(group)
        terms = [f"_begin{suffix}"] + [f"_uint64(_i{axis}) * _s{axis}{suffix}" for axis in range(form.ndim - 1)]
        lines.append(f"_row{suffix} = {' + '.join(terms)}")
    return lines


def _at_lines(form: Form, along: str) -> list[str]:
    return [f"_at{form.suffix(group)} = _row{form.suffix(group)} + {along}" for group in range(form.groups)]


def _body(point: PointFunction, form: Form) -> list[str]:
    return [line for statement in point.body for line in _text(point, form, statement).splitlines()]


def _text(point: PointFunction, form: Form, node: ast.AST, plane: int = 0) -> str:
    return ast.unparse(ast.fix_missing_locations(Positions(point, form, plane).visit(copy_of(node))))


def namespace(point: PointFunction, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the names in a generated loop mean."""
    farthest = max((abs(step) for reads in point.reads.values() for where in reads for step in where), default=0)
    numbers = {f"_{n}": np.uint64(n) for n in range(1, farthest + 2)}  # one more for the upper of two planes
    own = {
        "_uint64": np.uint64, "_int64": np.int64, "_float64": np.float64, "_float32": np.float32,
        "_complex64": np.complex64, "_empty": np.empty, "_range": range, "_min": min,
    }  # fmt: skip
    return {**own, **numbers, **point.namespace, **(more or {})}
