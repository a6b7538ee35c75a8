"""The reductions that every grid has: sum, dot, norms and so on, over all components of a field."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpcframe.errors import InputError, nearest
from hpcframe.grid.cartesian import CartesianGrid
from hpcframe.grid.field import Field
from hpcframe.stencils.binding import Call
from hpcframe.stencils.point import PointFunction
from hpcframe.stencils.reductions import Reduction, Term


@dataclass(frozen=True)
class _Standard:
    """A reduction by name: its kind, its expression by kind of dtype, what is done to the total.

    `real` says that the expression is real even of complex fields.
    """

    kind: str
    of_real: str
    of_complex: str | None
    finish: Callable[[Any], Any] | None = None
    real: bool = False

    def expression(self, kinds: str) -> str:
        """For the kinds of the fields' dtypes: f, i, c."""
        return (self.of_complex if "c" in kinds else None) or self.of_real


# Products are formed in double precision: exactly for fields of single precision.
SQUARE = "_float64(u.real) * _float64(u.real) + _float64(u.imag) * _float64(u.imag)"
STANDARD = {
    "sum": _Standard("sum", "u", "u"),
    "mean": _Standard("mean", "u", "u"),
    "integral": _Standard("integral", "u", "u"),
    "dot": _Standard("sum", "_float64(u) * _float64(v)", "u.conjugate() * v"),
    "min": _Standard("min", "u", None),
    "max": _Standard("max", "u", None),
    "argmin": _Standard("argmin", "u", None),
    "argmax": _Standard("argmax", "u", None),
    "norm1": _Standard("sum", "abs(_float64(u))", "abs(u)", real=True),
    "norm2": _Standard("sum", "_float64(u) * _float64(u)", SQUARE, finish=math.sqrt, real=True),
    "norminf": _Standard("max", "abs(_float64(u))", "abs(u)", real=True),
}


def standard(name: str, *fields: Field) -> Term:
    """The term of a reduction by name. Not collective. Raises InputError for what cannot be reduced so."""
    if name not in STANDARD:
        raise InputError(f"reduce: no reduction '{name}'{nearest(str(name), STANDARD)}")
    chosen = STANDARD[name]
    names = ["u", "v"] if name == "dot" else ["u"]
    if len(fields) != len(names) or not all(isinstance(field, Field) for field in fields):
        raise InputError(f"reduce: '{name}' takes {len(names)} field(s), got {list(fields)!r:.80}")
    dtype_kinds = "".join(sorted({field.dtype.kind for field in fields}))
    if "c" in dtype_kinds and chosen.of_complex is None:
        raise InputError(f"{name}: field '{fields[0].name}' is complex, and complex numbers have no order")
    if any(field.components != fields[0].components for field in fields):
        raise InputError(f"{name}: fields '{fields[0].name}' and '{fields[-1].name}' differ in components")
    if chosen.kind.startswith("arg") and fields[0].components:
        raise InputError(f"{name}: field '{fields[0].name}' has components; use hf.reduction for one of them")
    reduction = _reduction(name, fields[0].grid.ndim, dtype_kinds, tuple(names))
    return Term(reduction, dict(zip(names, fields, strict=True)), {}, chosen.finish)


@functools.cache
def _reduction(name: str, ndim: int, dtype_kinds: str, names: tuple[str, ...]) -> _Named:
    return _Named(name, ndim, dtype_kinds, names)


class _Named(Reduction):
    """A standard reduction for one number of axes and kind of dtype."""

    def __init__(self, name: str, ndim: int, dtype_kinds: str, names: tuple[str, ...]) -> None:
        chosen = STANDARD[name]
        self.kind = chosen.kind
        self.point = _centred(name, chosen.expression(dtype_kinds), names, ndim)
        self.call = Call(name, names, names, (), {})
        self.real = chosen.real

    def check(self, term: Term) -> CartesianGrid:
        """Fields with components are reduced over all of them, so indices say nothing of those."""
        return self.call.check(term.fields)


def _centred(name: str, expression: str, names: tuple[str, ...], ndim: int) -> PointFunction:
    """A point function that reads its fields at offset zero only."""
    zero = (0,) * ndim
    tree = ast.parse(expression, mode="eval").body

    class AtZero(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            if node.id not in names:
                return node
            return ast.Subscript(node, ast.Tuple([ast.Constant(0)] * ndim, ast.Load()), ast.Load())

    return PointFunction(
        f"standard_{name}", names, names, (), {},
        reads={field: {zero} for field in names},
        index_length=dict.fromkeys(names, ndim),
        result=AtZero().visit(tree),
    )  # fmt: skip
