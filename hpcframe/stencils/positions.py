"""A point function's expressions in terms of flat memory: accesses become positions, numbers get their precision."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcframe.stencils.point import INDEX_PREFIX, PointFunction
from hpcframe.stencils.reader import ALLOWED_BUILTINS

ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.FloorDiv)


@dataclass(frozen=True)
class Form:
    """What the text of a loop depends on besides the point function.

    Attributes:
        ndim: axes of the grid.
        group: for each field the number of its memory layout; fields of equal layout share one.
        integers: fields of whole numbers.
        single: whether all floating-point fields are of single precision, and so the arithmetic.
    """

    ndim: int
    group: tuple[tuple[str, int], ...]
    integers: frozenset[str] = frozenset()
    single: bool = False

    @property
    def groups(self) -> int:
        return max(number for _, number in self.group) + 1

    @staticmethod
    def suffix(group: int) -> str:
        """What the names of a memory layout's positions and strides end in."""
        return "" if group == 0 else f"_{group}"


class WholeNumbers:
    """Which expressions of a point function are whole numbers: of literals, global indices and integer fields."""

    def __init__(self, point: PointFunction, form: Form) -> None:
        self._fields = form.integers
        assignments = [node for statement in point.body for node in ast.walk(statement) if isinstance(node, ast.Assign)]
        self._names = {n.id for a in assignments for t in a.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        self._names -= set(point.fields)
        while wrong := {name for assignment in assignments for name in self._not_whole(assignment)} & self._names:
            self._names -= wrong

    def _not_whole(self, assignment: ast.Assign) -> set[str]:
        """Names that an assignment gives something else."""
        wrong = set()
        for target in assignment.targets:
            pairs = [(target, assignment.value)]
            if isinstance(target, ast.Tuple):
                values = assignment.value.elts if isinstance(assignment.value, ast.Tuple) else [ast.Constant(0.5)] * 99
                pairs = list(zip(target.elts, values, strict=False))
            wrong |= {to.id for to, value in pairs if isinstance(to, ast.Name) and not self.holds(value)}
        return wrong

    def holds(self, node: ast.AST) -> bool:
        """Whether an expression is a whole number."""
        if isinstance(node, ast.Constant):
            return type(node.value) in (int, bool)
        if isinstance(node, ast.Name):
            return node.id.startswith(INDEX_PREFIX) or node.id in self._names
        if isinstance(node, ast.Subscript):
            return isinstance(node.value, ast.Name) and node.value.id in self._fields
        if isinstance(node, ast.BinOp):
            return not isinstance(node.op, ast.Div) and self.holds(node.left) and self.holds(node.right)
        if isinstance(node, ast.IfExp):
            return self.holds(node.body) and self.holds(node.orelse)
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and self._call_holds(node.func.id, node.args)
        return isinstance(node, ast.UnaryOp) and self.holds(node.operand)

    def _call_holds(self, name: str, arguments: Sequence[ast.AST]) -> bool:
        return name in ("int", "round") or (name in ("abs", "min", "max") and all(map(self.holds, arguments)))


class Positions(ast.NodeTransformer):
    """Rewrites statements and expressions of a point function, of the lower or the upper of two planes.

    In single precision, literals beside values of fields are of single precision too, as they are in NumPy; else each
    of them would make the arithmetic double.
    """

    def __init__(self, point: PointFunction, form: Form, plane: int = 0) -> None:
        self._form = form
        self._group = dict(form.group)
        self._plane = plane
        self._fixed = {*point.parameters, *point.namespace, *ALLOWED_BUILTINS}
        self._helpers = {name for name, value in point.namespace.items() if hasattr(value, "py_func")}
        self._whole = WholeNumbers(point, form)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        assert isinstance(node.value, ast.Name)
        assert isinstance(node.slice, ast.Tuple)
        where = [entry.value for entry in node.slice.elts if isinstance(entry, ast.Constant)]
        position = ast.parse(self._position(node.value.id, where), mode="eval").body
        return ast.Subscript(node.value, position, node.ctx)

    def _position(self, name: str, where: list[Any]) -> str:
        suffix = self._form.suffix(self._group[name])
        lead = len(where) - self._form.ndim
        where[lead] += self._plane
        strides = [f"_c{axis}{suffix}" for axis in range(lead)]
        strides += [f"_s{axis}{suffix}" for axis in range(self._form.ndim - 1)] + [""]
        text = f"_at{suffix}"
        for step, stride in zip(where, strides, strict=True):
            if step:
                count = f"_{abs(step)}" if not stride or abs(step) > 1 else ""
                text += f" {'-' if step < 0 else '+'} {' * '.join(filter(None, (count, stride)))}"
        return text

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """The upper plane has temporaries and a first index of its own."""
        if not self._plane or node.id in self._fixed:
            return node
        if node.id.startswith(INDEX_PREFIX):
            return ast.BinOp(node, ast.Add(), ast.Constant(1)) if node.id == f"{INDEX_PREFIX}0" else node
        return ast.Name(f"_{node.id}_above", node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        kinds = {float: "_float32", complex: "_complex64"}
        if not self._form.single or type(node.value) not in kinds:
            return node
        return ast.Call(ast.Name(kinds[type(node.value)], ast.Load()), [node], [])

    def _beside_values(self, node: ast.AST) -> ast.AST:
        """A whole literal in a place where a floating-point number is meant."""
        if self._form.single and isinstance(node, ast.Constant) and type(node.value) is int:
            return ast.Constant(float(node.value))
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        whole_target = isinstance(target, ast.Subscript) and self._whole.holds(target)
        if not whole_target and not (isinstance(target, ast.Name) and self._whole.holds(target)):
            node.value = self._beside_values(node.value)  # type: ignore[assignment]
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ARITHMETIC) and not (self._whole.holds(node.left) and self._whole.holds(node.right)):
            node.left, node.right = map(self._beside_values, (node.left, node.right))  # type: ignore[assignment]
        if isinstance(node.op, ast.Pow) and isinstance(node.left, ast.Constant):
            node.left = _signed(node.left)
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        if not self._whole.holds(node):
            node.body, node.orelse = map(self._beside_values, (node.body, node.orelse))  # type: ignore[assignment]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Functions of numpy and math; a helper of the user's gets what the user writes."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in self._helpers and not all(map(self._whole.holds, node.args)):
            node.args = [self._beside_values(argument) for argument in node.args]  # type: ignore[misc]
        return self.generic_visit(node)


def _signed(node: ast.Constant) -> ast.expr:
    """A negative literal as an operation: the text of a power would lose its brackets otherwise."""
    if not isinstance(node.value, int | float) or math.copysign(1.0, node.value) > 0:
        return node
    return ast.UnaryOp(ast.USub(), ast.Constant(-node.value))


def copy_of(node: Any) -> Any:
    """A deep copy of a tree: one point function is generated in several forms."""
    if isinstance(node, list):
        return [copy_of(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    return type(node)(**{name: copy_of(value) for name, value in ast.iter_fields(node)})
