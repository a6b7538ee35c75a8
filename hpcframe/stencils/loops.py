"""Generated loops, compiled for the fields of a call, with the table of regions that they walk."""

from __future__ import annotations

import hashlib
import linecache
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core.errors import NumbaError

from hpcframe.compilation import compile_once_a_node
from hpcframe.errors import InputError
from hpcframe.grid.field import Field
from hpcframe.stencils import generate, vector
from hpcframe.stencils.binding import Scalar
from hpcframe.stencils.identity import identity_of
from hpcframe.stencils.point import PointFunction
from hpcframe.stencils.positions import Form
from hpcframe.stencils.regions import Box

if TYPE_CHECKING:
    from hpcframe.grid.communicator import Communicator


def form_of(point: PointFunction, fields: Mapping[str, Field], ndim: int) -> Form:
    """Which fields share a memory layout, and the precision of the arithmetic."""
    layouts: dict[Any, int] = {}
    group = []
    for name in point.fields:
        start, strides = fields[name].addressing()
        group.append((name, layouts.setdefault((start, strides[-ndim:], strides[:-ndim]), len(layouts))))
    inexact = [field.dtype for field in fields.values() if field.dtype.kind in "fc"]
    single = bool(inexact) and all(dtype.name in ("float32", "complex64") for dtype in inexact)
    integers = frozenset(name for name, field in fields.items() if field.dtype.kind == "i")
    return Form(ndim, tuple(group), integers, single)


def default_form(point: PointFunction) -> Form:
    """The form that is shown before there are fields: scalars of double precision, equal halos."""
    ndim = min(3, *point.index_length.values())
    components = sorted({length - ndim for length in point.index_length.values()})
    group = tuple((name, components.index(point.index_length[name] - ndim)) for name in point.fields)
    return Form(ndim, group)


def region_table(
    point: PointFunction,
    form: Form,
    fields: Mapping[str, Field],
    block: Sequence[slice],
    boxes: Sequence[Box] | npt.NDArray,
) -> npt.NDArray[np.int64]:
    """A row a box: counts, first global indices, and where it lies in each memory layout.

    Args:
        boxes: (number, axes, 2), or as such: begin and end, counted from the first point of the block.
    """
    bounds = np.array(boxes, np.int64).reshape(len(boxes), form.ndim, 2)
    begin, counts = bounds[:, :, 0], bounds[:, :, 1] - bounds[:, :, 0]
    representative = {group: fields[name] for name, group in reversed(form.group)}
    columns = [*counts.T, *(begin + [part.start for part in block]).T]
    for quantity, axis, suffix in generate.columns(point, form):
        start, strides = representative[int(suffix[1:] or 0)].addressing()
        along, components = strides[-form.ndim :], strides[: -form.ndim]
        if quantity == "start":
            columns.append(start + begin @ np.array(along, np.int64))
        else:
            columns.append(np.full(len(boxes), components[axis] if quantity == "c" else along[axis]))
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.int64)


def typed_scalars(form: Form, scalars: Mapping[str, Scalar], order: Sequence[str]) -> list[Any]:
    """Scalars in the precision of the arithmetic."""
    values = [scalars[name] for name in order]
    if not form.single:
        return values
    return [np.complex64(value) if isinstance(value, complex) else np.float32(value) for value in values]


def loop_of(
    point: PointFunction, form: Form, fields: Mapping[str, Field], scalars: Mapping[str, Scalar]
) -> tuple[str, dict[str, Any]]:
    """The text of a stencil's loop over these fields, in vectors where that pays, and what its names mean."""
    if vector.pays(point, form, fields, scalars):
        return vector.stencil_source(point, form, fields), generate.namespace(point, vector.namespace())
    return generate.stencil_source(point, form), generate.namespace(point)


def compile_loop(
    source: str,
    point: PointFunction,
    form: Form,
    fields: Mapping[str, Field],
    scalars: Mapping[str, Scalar],
    shared: Communicator,
    extra: str = "",
    returns: str = "void",
    more: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """The generated text as machine code for these dtypes. Collective.

    Raises:
        InputError: on every rank, with numba's words, where it cannot be compiled.
    """
    names = generate.namespace(point, more)
    arrays = [f"{numba.from_dtype(fields[name].dtype)}[::1]" for name in point.fields]
    real, cplx = ("float32", "complex64") if form.single else ("float64", "complex128")
    numbers = [cplx if isinstance(scalars[name], complex) else real for name in point.scalars]
    signature = f"{returns}({', '.join([*arrays, *numbers, 'int64[:, ::1]', *filter(None, [extra])])})"
    known = identity_of(names)
    identity = None if known is None else source + known
    function = executed(source, names, generate.loop_name(point))
    try:
        return compile_once_a_node(function, signature, shared.node, identity)
    except NumbaError as error:
        raise InputError(f"'{point.name}' cannot be compiled for {signature}:\n{error}\n{source}") from error


_executed: dict[tuple[Any, ...], Callable[..., Any]] = {}


def executed(source: str, names: dict[str, Any], name: str) -> Callable[..., Any]:
    """The function that a generated text defines: the same one for the same text and the same objects.

    Its lines can be shown in tracebacks.
    """
    objects = ((known, id(value)) for known, value in sorted(names.items()) if not isinstance(value, np.generic))
    key = (source, *objects)
    if key not in _executed:
        _executed[key] = _execute(source, names, name)  # whose globals keep the objects, so their ids stay their own
    return _executed[key]


def _execute(source: str, names: dict[str, Any], name: str) -> Callable[..., Any]:
    file = f"<hpcframe {name} {hashlib.sha256(source.encode()).hexdigest()[:12]}>"  # the same on every rank
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names["__name__"] = __name__  # numba looks the module up when it loads the compiled function again
    exec(compile(source, file, "exec"), names)
    return names[name]
