"""Folding and recording the body of a point function, statement by statement."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np

from hpcframe.stencils.point import INDEX_PREFIX, Index, PointFunction, index
from hpcframe.stencils.source import Source

UNROLL_LIMIT = 1000  # statements: beyond it a loop was not meant to be unrolled


class Reader:
    """Folds and records a function body, statement by statement."""

    def __init__(self, point: PointFunction, source: Source, returns: bool) -> None:
        self.point = point
        self.source = source
        self.returns = returns
        self.written: dict[str, set[Index]] = {}
        self.read_at: dict[str, ast.AST] = {}
        self.assigned: set[str] = set()  # temporaries that have a value on every path to here
        self.count = 0

    # -- statements ---------------------------------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt], constants: Mapping[str, Any]) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for statement in body:
            self.count += 1
            if self.count > UNROLL_LIMIT:
                self.source.refuse(statement, f"more than {UNROLL_LIMIT} statements once loops are unrolled")
            if self.point.result is not None:
                self.source.refuse(statement, "nothing may follow the return")
            handler = getattr(self, f"_{type(statement).__name__.lower()}", None)
            if handler is None:
                self.source.refuse(statement, "only assignments, if, and for over constants have a meaning at a point")
            done += handler(statement, constants)
        return done

    def _pass(self, statement: ast.Pass, constants: Mapping[str, Any]) -> list[ast.stmt]:
        return []

    def _expr(self, statement: ast.Expr, constants: Mapping[str, Any]) -> list[ast.stmt]:
        if not isinstance(statement.value, ast.Constant):  # a constant is a docstring
            self.source.refuse(statement, "an expression without an assignment does nothing")
        return []

    def _return(self, statement: ast.Return, constants: Mapping[str, Any]) -> list[ast.stmt]:
        if not self.returns or statement.value is None:
            self.source.refuse(statement, "a stencil returns nothing: assign to a field, as in v[0, 0] = ...")
        self.point.result = self.expression(statement.value, constants)
        return []

    def _assign(self, statement: ast.Assign, constants: Mapping[str, Any]) -> list[ast.stmt]:
        value = self.expression(statement.value, constants)
        targets = [self._target(target, constants) for target in statement.targets]
        return [ast.copy_location(ast.Assign(targets, value), statement)]

    def _annassign(self, statement: ast.AnnAssign, constants: Mapping[str, Any]) -> list[ast.stmt]:
        if statement.value is None:
            return []
        return self._assign(ast.copy_location(ast.Assign([statement.target], statement.value), statement), constants)

    def _augassign(self, statement: ast.AugAssign, constants: Mapping[str, Any]) -> list[ast.stmt]:
        loaded = ast.copy_location(ast.parse(ast.unparse(statement.target), mode="eval").body, statement.target)
        ast.fix_missing_locations(loaded)
        for node in ast.walk(loaded):
            ast.copy_location(node, statement.target)
        value = ast.copy_location(ast.BinOp(loaded, statement.op, statement.value), statement)
        return self._assign(ast.copy_location(ast.Assign([statement.target], value), statement), constants)

    def _if(self, statement: ast.If, constants: Mapping[str, Any]) -> list[ast.stmt]:
        test = self.expression(statement.test, constants)
        if isinstance(test, ast.Constant):  # decided by constants: only one branch is left
            return self.statements(statement.body if test.value else statement.orelse, constants)
        before = set(self.assigned)
        body = self.statements(statement.body, constants)
        after_body, self.assigned = self.assigned, before
        orelse = self.statements(statement.orelse, constants)
        self.assigned &= after_body
        if self.point.result is not None:
            self.source.refuse(statement, "return once, at the end: use a conditional expression")
        return [ast.copy_location(ast.If(test, body or [ast.Pass()], orelse), statement)]

    def _for(self, statement: ast.For, constants: Mapping[str, Any]) -> list[ast.stmt]:
        if not isinstance(statement.target, ast.Name) or statement.orelse:
            self.source.refuse(statement, "a loop at a point has the form: for name in range(...) or in (a, b, c)")
        if statement.target.id in self.point.parameters or statement.target.id in self.source.temporaries:
            self.source.refuse(statement.target, f"'{statement.target.id}' has another value too: choose another name")
        done: list[ast.stmt] = []
        for value in self._loop_values(statement.iter, constants):
            done += self.statements(statement.body, {**constants, statement.target.id: value})
        return done

    def _loop_values(self, node: ast.expr, constants: Mapping[str, Any]) -> Sequence[Any]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            bounds = [self._constant(argument, constants) for argument in node.args]
            if all(isinstance(bound, int) for bound in bounds) and 1 <= len(bounds) <= 3:
                return range(*bounds)
        values = self._constant(node, constants)
        if isinstance(values, tuple | list) and all(isinstance(v, int | float | complex) for v in values):
            return values
        self.source.refuse(node, "the loop is unrolled, so its bounds must be known here: use constants")

    def _target(self, target: ast.expr, constants: Mapping[str, Any]) -> ast.expr:
        if isinstance(target, ast.Tuple):
            parts = [self._target(part, constants) for part in target.elts]
            return ast.copy_location(ast.Tuple(parts, ast.Store()), target)
        if isinstance(target, ast.Name):
            if target.id in self.point.parameters or target.id in constants:
                self.source.refuse(
                    target, f"'{target.id}' has its value for all points: use another name for a temporary"
                )
            if target.id.startswith("_"):
                self.source.refuse(target, "names that begin with _ are those of the generated loop: use another name")
            self.assigned.add(target.id)
            return target
        if isinstance(target, ast.Subscript) and self._field_of(target):
            return self._write(target, constants)
        self.source.refuse(target, "a point function assigns to temporaries and to fields only")

    def _write(self, target: ast.Subscript, constants: Mapping[str, Any]) -> ast.expr:
        name = self._field_of(target)
        where = self._index(target, constants)
        self.written.setdefault(name, set()).add(where)
        self._may_refuse(target, name, where)
        return _access(target, name, where, ast.Store())

    # -- expressions --------------------------------------------------------------------------------------------

    def expression(self, node: ast.expr, constants: Mapping[str, Any]) -> ast.expr:
        value = self._fold(node, constants)
        if value is not None:
            return ast.copy_location(ast.Constant(value), node)
        if isinstance(node, ast.Subscript) and self._field_of(node):
            return self._read(node, constants)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Call):
            return self._call(node, constants)
        if isinstance(node, ast.IfExp):
            test = self.expression(node.test, constants)
            if isinstance(test, ast.Constant):
                return self.expression(node.body if test.value else node.orelse, constants)
        if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare | ast.IfExp | ast.Tuple):
            return self._children(node, constants)
        self.source.refuse(node, f"{type(node).__name__} has no meaning at a point")

    def _children(self, node: ast.expr, constants: Mapping[str, Any]) -> ast.expr:
        changed: dict[str, Any] = {}
        for name, child in ast.iter_fields(node):
            if isinstance(child, list):
                changed[name] = [self.expression(c, constants) if isinstance(c, ast.expr) else c for c in child]
            else:
                changed[name] = self.expression(child, constants) if isinstance(child, ast.expr) else child
        return ast.copy_location(type(node)(**changed), node)

    def _read(self, node: ast.Subscript, constants: Mapping[str, Any]) -> ast.expr:
        name = self._field_of(node)
        where = self._index(node, constants)
        self.point.reads.setdefault(name, set()).add(where)
        self.read_at.setdefault(name, node)
        self._may_refuse(node, name, where)
        return _access(node, name, where, ast.Load())

    def _name(self, node: ast.Name) -> ast.expr:
        if node.id in self.point.fields:
            self.source.refuse(node, f"'{node.id}' is a field: say which point is meant, as in {node.id}[0, 0]")
        if node.id in self.point.scalars or node.id in self.assigned:
            return node
        if node.id in self.source.meaning and node.id not in self.source.locals:
            meaning = self.source.meaning[node.id]
            self.source.refuse(
                node, f"'{node.id}' is {type(meaning).__name__}: only numbers and njit functions are possible"
            )
        self.source.refuse(node, f"'{node.id}' has no value here, or not on every path to here")

    def _call(self, node: ast.Call, constants: Mapping[str, Any]) -> ast.expr:
        if node.keywords:
            self.source.refuse(node, "calls at a point take positional arguments only")
        called = self._called(node.func)
        if called is index:
            return self._global_index(node, constants)
        arguments = [self.expression(argument, constants) for argument in node.args]
        return ast.copy_location(ast.Call(self._function(node.func, called), arguments, []), node)

    def _global_index(self, node: ast.Call, constants: Mapping[str, Any]) -> ast.expr:
        axis = self._constant(node.args[0], constants) if len(node.args) == 1 else None
        if axis not in (0, 1, 2):
            self.source.refuse(node, "hf.index takes the number of an axis: 0, 1 or 2")
        self.point.axes.add(axis)
        self.point.axis_refusals[axis] = functools.partial(self.source.refuse, node)
        return ast.copy_location(ast.Name(f"{INDEX_PREFIX}{axis}", ast.Load()), node)

    def _called(self, node: ast.expr) -> Any:
        """The object that a call's function expression means."""
        if isinstance(node, ast.Attribute):
            owner = self._called(node.value)
            if not hasattr(owner, node.attr):
                self.source.refuse(node, f"'{ast.unparse(node)}' does not exist")
            return getattr(owner, node.attr)
        if isinstance(node, ast.Name):
            if node.id in self.source.locals or node.id in self.point.parameters:
                self.source.refuse(node, f"'{node.id}' is a value, not a function")
            if node.id in self.source.meaning:
                return self.source.meaning[node.id]
            if node.id in ALLOWED_BUILTINS:
                return ALLOWED_BUILTINS[node.id]
        self.source.refuse(node, f"'{ast.unparse(node)}' is not known here")

    def _function(self, node: ast.expr, called: Any) -> ast.expr:
        """A name under which the generated loop knows a function."""
        numeric = getattr(called, "__module__", None) in ("math", "numpy", "cmath") or isinstance(called, np.ufunc)
        if not (numeric or called in ALLOWED_BUILTINS.values() or isinstance(called, numba.core.dispatcher.Dispatcher)):
            self.source.refuse(node, f"'{ast.unparse(node)}' is not compiled: decorate it with numba.njit")
        name = ast.unparse(node).replace(".", "_").lstrip("_") or "function"
        if called in ALLOWED_BUILTINS.values():
            return ast.copy_location(ast.Name(called.__name__, ast.Load()), node)
        taken = {*self.point.parameters, *self.source.locals, *ALLOWED_BUILTINS}
        while self.point.namespace.get(name, called) is not called or name in taken:
            name += "_"
        self.point.namespace[name] = called
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def _may_refuse(self, node: ast.AST, name: str, where: Index) -> None:
        self.point.refusals.setdefault((name, where), functools.partial(self.source.refuse, node))

    # -- constants and indices ----------------------------------------------------------------------------------

    def _fold(self, node: ast.expr, constants: Mapping[str, Any]) -> Any:
        """The value of an expression of numbers only; None where it is not one."""
        value = self._evaluate(node, constants)
        return value if isinstance(value, bool | int | float | complex) else None

    def _evaluate(self, node: ast.expr, constants: Mapping[str, Any]) -> Any:
        known = {}
        for child in ast.walk(node):
            if isinstance(child, ast.Name):
                known[child.id] = self._known(child.id, constants)
            if isinstance(child, ast.Call | ast.Lambda) or (isinstance(child, ast.Name) and known[child.id] is None):
                return None
        try:
            return eval(compile(ast.Expression(node), self.source.file, "eval"), {"__builtins__": {}}, known)
        except Exception as error:  # whatever the user's constants raise is the user's to see
            self.source.refuse(node, f"{type(error).__name__}: {error}")

    def _known(self, name: str, constants: Mapping[str, Any]) -> Any:
        if name in constants:
            return constants[name]
        if name in self.point.parameters or name in self.source.locals:
            return None
        value = self.source.meaning.get(name)
        value = value.item() if isinstance(value, np.generic) else value
        value = tuple(value.tolist()) if isinstance(value, np.ndarray) and value.ndim == 1 else value
        is_module = inspect.ismodule(value) and value.__name__ in ("math", "numpy")
        return value if is_module or isinstance(value, bool | int | float | complex | tuple | list) else None

    def _constant(self, node: ast.expr, constants: Mapping[str, Any]) -> Any:
        value = self._evaluate(node, constants)
        if value is None:
            self.source.refuse(node, f"'{ast.unparse(node)}' must be a constant")
        return value

    def _field_of(self, node: ast.Subscript) -> str:
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        return name if name in self.point.fields else ""

    def _index(self, node: ast.Subscript, constants: Mapping[str, Any]) -> Index:
        entries = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        values = []
        for entry in entries:
            value = self._evaluate(entry, constants)
            if isinstance(value, bool) or not isinstance(value, int):
                self.source.refuse(
                    entry, "an offset must be a whole number known here: a literal, a constant or a loop's name"
                )
            values.append(value)
        return tuple(values)


def _access(node: ast.Subscript, name: str, where: Index, context: ast.expr_context) -> ast.expr:
    entries: list[ast.expr] = [ast.Constant(entry) for entry in where]
    access = ast.Subscript(ast.Name(name, ast.Load()), ast.Tuple(entries, ast.Load()), context)
    return ast.fix_missing_locations(ast.copy_location(access, node))


ALLOWED_BUILTINS: dict[str, Any] = {
    "abs": abs, "min": min, "max": max, "pow": pow, "int": int, "float": float, "bool": bool, "complex": complex,
    "round": round,
}  # fmt: skip
