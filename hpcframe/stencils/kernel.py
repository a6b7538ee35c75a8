"""`hf.kernel`: the escape hatch, a plain compiled function over arrays and bounds, its halo declared."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numba
import numpy.typing as npt
from numba.core.errors import NumbaError

from hpcframe.compilation import compile_once_a_node
from hpcframe.errors import InputError, nearest
from hpcframe.grid.agreement import collectively
from hpcframe.grid.field import Field
from hpcframe.grid.halo import halo_of
from hpcframe.stencils.binding import Call, Scalar, Sweep, reach
from hpcframe.stencils.identity import function_identity
from hpcframe.stencils.stencil import Plan, PointOperator

if TYPE_CHECKING:
    from hpcframe.stencils.regions import Box

BOUNDS = ("lower", "upper")


class Kernel(PointOperator):
    """A function over arrays, called like a stencil. Made by `hf.kernel`."""

    def __init__(
        self, function: Callable[..., Any], writes: Sequence[str], reads: Mapping[str, int | Sequence[int]]
    ) -> None:
        """Not collective. Raises InputError where declaration and parameters do not agree."""
        functools.update_wrapper(self, function)
        self._function = getattr(function, "py_func", function)
        names = tuple(inspect.signature(self._function).parameters)
        if names[-2:] != BOUNDS:
            raise InputError(f"kernel '{function.__name__}': its last two parameters must be lower, upper; got {names}")
        names = names[:-2]
        for name in (*writes, *reads):
            if name not in names:
                raise InputError(f"kernel '{function.__name__}': no parameter '{name}'{nearest(name, names)}")
        both = set(writes) & {name for name, width in reads.items() if width}
        if both or not writes:
            raise InputError(
                f"kernel '{function.__name__}': writes={list(writes)}, reads={dict(reads)}: it writes to at least one "
                f"field, and not to one whose neighbours it reads"
            )
        self.reads = dict(reads)
        fields = tuple(name for name in names if name in {*writes, *reads})
        self.call = Call(function.__name__, names, fields, tuple(writes), _defaults(self._function))

    def _new_plan(self, fields: dict[str, Field], scalars: Mapping[str, Scalar]) -> Plan:
        return _KernelPlan(self, self._function, fields, scalars)

    def __repr__(self) -> str:
        return f"<kernel {self.call.name}({', '.join(self.call.parameters)})>"


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


class _KernelPlan(Plan):
    def __init__(
        self,
        kernel: Kernel,
        function: Callable[..., Any],
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
    ) -> None:
        """Collective: plans the exchange and compiles."""
        call = kernel.call
        first = next(iter(fields.values()))
        with collectively(first.grid.comm, f"checking the fields of '{call.name}'"):
            grid = call.check(fields)
            indices = {name: _box(kernel, name, fields[name]) for name in kernel.reads}
        written = fields[call.writes[0]]
        reads = reach(indices, fields, written.staggered)
        super().__init__(grid, Sweep(grid, fields, call, reads))
        widths = [halo_of(offsets, grid.ndim) for offsets in reads.values()]
        self._halo = tuple(max((width[axis] for width in widths), default=0) for axis in range(grid.ndim))
        for field in fields.values():  # every array comes with the same halo, so that one bound fits all
            field.widen(self._halo)
        self._order = call.parameters
        self._arrays = {name: self._trimmed(field) for name, field in fields.items()}
        self._call = self._compile(function, call, fields, scalars)
        self.sweep.planned_for(fields)

    def _trimmed(self, field: Field) -> Callable[[], npt.NDArray]:
        block: tuple[Any, ...] = tuple(
            slice(own - width, own + count + width)
            for own, width, count in zip(field.halo, self._halo, field.local.points, strict=True)
        )
        return lambda: field.local_data[(..., *block)]

    def _compile(
        self,
        function: Callable[..., Any],
        call: Call,
        fields: Mapping[str, Field],
        scalars: Mapping[str, Scalar],
    ) -> Callable[..., None]:
        kinds = [self._kind(fields.get(name), scalars.get(name)) for name in call.parameters]
        bounds = f"UniTuple(int64, {self.grid.ndim})"
        signature = f"void({', '.join([*kinds, bounds, bounds])})"
        try:
            return compile_once_a_node(function, signature, self.grid.shared.node, function_identity(function))
        except NumbaError as error:
            raise InputError(f"kernel '{call.name}' cannot be compiled for {signature}:\n{error}") from error

    def _kind(self, field: Field | None, scalar: Scalar | None) -> str:
        if field is None:
            return "complex128" if isinstance(scalar, complex) else "float64"
        axes = len(field.components) + self.grid.ndim
        return f"{numba.from_dtype(field.dtype)}[{', '.join(':' * axes)}]"

    def run(self, scalars: Mapping[str, Scalar]) -> None:
        arrays = {name: array() for name, array in self._arrays.items()}
        arguments = [arrays.get(name, scalars.get(name)) for name in self._order]

        def compute(boxes: Sequence[Box]) -> None:
            for box in boxes:
                lower = tuple(begin + width for (begin, _), width in zip(box, self._halo, strict=True))
                upper = tuple(end + width for (_, end), width in zip(box, self._halo, strict=True))
                self._call(*arguments, lower, upper)

        interior = [[[box] for box in share] for share in self.sweep.interior]
        self.sweep.run(compute, interior, self.sweep.borders or None)


def _box(kernel: Kernel, name: str, field: Field) -> set[tuple[int, ...]]:
    """Indices that stand for everything within the declared width."""
    width = kernel.reads[name]
    ndim = field.grid.ndim
    widths = (width,) * ndim if isinstance(width, int) else tuple(width)
    if len(widths) != ndim or any(not isinstance(w, int) or w < 0 for w in widths):
        raise InputError(f"kernel '{kernel.call.name}': halo {width!r} of '{name}' for a grid of {ndim} axes")
    lead = (0,) * len(field.components)
    return {lead + offset for offset in product(*((-w, 0, w) for w in widths))}


def kernel(*, writes: Sequence[str] | str, reads: Mapping[str, int | Sequence[int]]) -> Callable[..., Kernel]:
    """Make a plain function a kernel: a decorator. Not collective.

    For what a point function cannot say. The function takes arrays (components first), scalars, and at last `lower`
    and `upper`, tuples that bound the points to compute; it must compute each of them once, in any order, from what
    lies within the declared halo. All arrays have the same halo, the widest that is declared. It is compiled by
    numba and called like a stencil; parts of a block may be computed in separate calls, by several threads at a time.
    Scalars are of double precision, beside arrays of single precision too.

    Args:
        writes: names of the fields written to.
        reads: for each field that is read the width of its halo, for all axes or one an axis; 0 where only the
            point itself is read.

    Example:
        @hf.kernel(writes="v", reads={"u": 1})
        def smooth(v, u, k, lower, upper):
            for i in range(lower[0], upper[0]):
                v[i] = u[i] + k * (u[i - 1] - 2 * u[i] + u[i + 1])

    Raises:
        InputError: the declaration names no parameter, or the function lacks `lower, upper`.
    """
    written = (writes,) if isinstance(writes, str) else tuple(writes)
    return lambda function: Kernel(function, written, reads)
