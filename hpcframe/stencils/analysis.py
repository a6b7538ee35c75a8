"""From the source of a point function to what it reads and writes.

A point function says what happens at one point; `u[1, 0]` is the neighbour at offset (1, 0). Its source is read
once: loops over constants are unrolled, constants folded, and every access recorded, so that neither the halo nor
the arguments' roles have to be declared. What has no meaning at a point is refused, with the user's line.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from hpcframe.stencils.point import OFF_CENTRE, PointFunction
from hpcframe.stencils.reader import Reader
from hpcframe.stencils.source import Source


def analyse(function: Callable[..., Any], returns: bool = False) -> PointFunction:
    """Read a point function.

    Args:
        function: plain Python function whose source can be found.
        returns: whether it returns an expression (a reduction) instead of writing to fields (a stencil).

    Raises:
        InputError: naming file, line and column of what cannot be done at a point.
    """
    source = Source(function)
    definition = source.definition
    parameters, defaults = _parameters(function, source)
    indexed = {
        node.value.id
        for node in ast.walk(definition)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
    }
    fields = tuple(name for name in parameters if name in indexed)
    point = PointFunction(
        definition.name, parameters, fields, tuple(name for name in parameters if name not in indexed), defaults
    )
    reader = Reader(point, source, returns)
    point.body = reader.statements(definition.body, {})
    _check(point, reader, source, definition, returns)
    return point


def _parameters(function: Callable[..., Any], source: Source) -> tuple[tuple[str, ...], dict[str, Any]]:
    found = inspect.signature(function).parameters.values()
    for parameter in found:
        if parameter.name.startswith("_"):
            source.refuse(source.definition, f"parameter '{parameter}': names that begin with _ are those of the loop")
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            source.refuse(source.definition, f"parameter '{parameter}': only plain parameters are possible")
    defaults = {p.name: p.default for p in found if p.default is not p.empty}
    return tuple(p.name for p in found), defaults


def _check(point: PointFunction, reader: Reader, source: Source, definition: ast.FunctionDef, returns: bool) -> None:
    point.writes = tuple(name for name in point.fields if name in reader.written)
    if returns and (point.result is None or point.writes):
        source.refuse(definition, "a reduction returns one expression and writes to no field")
    if returns and not point.fields:
        source.refuse(definition, "a reduction reads at least one field, as in u[0, 0]")
    if not returns and not point.writes:
        source.refuse(definition, "a stencil assigns to at least one field, as in v[0, 0] = ...")
    for name in point.writes:
        if name in reader.read_at:
            source.refuse(
                reader.read_at[name],
                f"'{name}' is read and also written: points are computed in any order, so the result would depend on "
                f"it. Read from another field, or keep the value in a temporary",
            )
    _check_centred(point, reader)
    for name in point.fields:
        point.index_length[name] = _index_length(name, source)


def _index_length(name: str, source: Source) -> int:
    """The number of entries of a field's indices, in code that never runs too."""
    lengths = set()
    for node in ast.walk(source.definition):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == name:
            lengths.add(len(node.slice.elts) if isinstance(node.slice, ast.Tuple) else 1)
            if len(lengths) > 1:
                source.refuse(node, f"'{name}' is indexed with {sorted(lengths)} entries: use one number everywhere")
    return lengths.pop()


def _check_centred(point: PointFunction, reader: Reader) -> None:
    """Refuse off-centre writes as far as the source tells: an entry that is negative somewhere is an offset."""
    reads = [where for name in point.reads for where in point.reads[name]]
    for name, indices in reader.written.items():
        for where in indices:
            offsets = {len(where) - 1} | {
                axis for read in reads if len(read) == len(where) for axis, entry in enumerate(read) if entry < 0
            }
            if min(where) < 0 or any(where[axis] for axis in offsets):
                point.refusals[name, where](OFF_CENTRE)
