"""Arithmetic expressions of coordinates and time, as written in sim.toml, evaluated without `eval`.

The syntax tree of the text is turned into nested functions of NumPy arrays. Only what this module lists can be
in it, so an expression reaches no attribute, no other function and no file, and its cost is bounded by its length.
"""

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hpcframe.errors import InputError, nearest

LONGEST = 4096  # characters
DEEPEST = 200  # levels of nesting; a sum of n terms has n - 1

Array = NDArray[np.float64]
Evaluator = Callable[[Mapping[str, Any]], Any]

CONSTANTS = {"pi": math.pi, "e": math.e}


def _as_number(truth: Any) -> Any:
    """True and False as 1.0 and 0.0: NumPy would add two booleans to a boolean."""
    return np.where(truth, 1.0, 0.0)


FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {  # name: (number of arguments, function)
    "exp": (1, np.exp),
    "log": (1, np.log),
    "sqrt": (1, np.sqrt),
    "sin": (1, np.sin),
    "cos": (1, np.cos),
    "tan": (1, np.tan),
    "asin": (1, np.arcsin),
    "acos": (1, np.arccos),
    "atan": (1, np.arctan),
    "atan2": (2, np.arctan2),
    "sinh": (1, np.sinh),
    "cosh": (1, np.cosh),
    "tanh": (1, np.tanh),
    "abs": (1, np.abs),
    "minimum": (2, np.minimum),
    "maximum": (2, np.maximum),
    "where": (3, np.where),
    "floor": (1, np.floor),
    "ceil": (1, np.ceil),
    "sign": (1, np.sign),
    "hypot": (2, np.hypot),
}
UNARY: dict[type[ast.unaryop], Callable[..., Any]] = {
    ast.UAdd: np.positive,
    ast.USub: np.negative,
    ast.Not: lambda a: _as_number(np.logical_not(a)),
}
BINARY: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.remainder,
    ast.Pow: np.power,
}
COMPARISONS: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
OPERATORS = "+ - * / ** %, < <= > >= == !=, and or not, a if c else b"
INSTEAD: dict[type[ast.operator], str] = {
    ast.BitXor: "; write a power as x**2",
    ast.FloorDiv: "; write floor(a / b)",
    ast.BitAnd: "; write a and b",
    ast.BitOr: "; write a or b",
}
SYNONYMS = {"min": "minimum", "max": "maximum", "ln": "log"}  # whose nearest name would mislead
NAMES: dict[type[ast.AST], str] = {
    ast.Attribute: "an attribute (a dot after a name)",
    ast.Subscript: "an index in brackets",
    ast.Tuple: "a comma outside a function's arguments",
    ast.NamedExpr: "an assignment",
}


class Expression:
    """An arithmetic expression of the named variables, called with a number or an array for each.

    text: for example "exp(-100*((x-0.5)**2 + (y-0.5)**2))" or "1 if 0.2 < x < 0.4 else 0". Python's syntax and
    precedence; all arithmetic is in float64, and so are numbers without a point. A comparison is 1 where it holds
    and 0 elsewhere; `and`, `or`, `not` take anything but 0 as true; `a if c else b` chooses point by point.
    variables: the names it may use, in the order of the arguments of a call.

    Raises InputError, with a caret below the place, for text that is no such expression. Not collective.
    """

    __slots__ = ("_evaluate", "text", "variables")

    def __init__(self, text: str, variables: Sequence[str] = ("x", "y", "z")) -> None:
        self.text = " ".join(text.split())
        self.variables = tuple(variables)
        self._evaluate = _Builder(self.text, self.variables).build_all()

    @overload
    def __call__(self, *values: float) -> float: ...
    @overload
    def __call__(self, *values: Array) -> Array: ...
    def __call__(self, *values: float | Array) -> float | Array:
        """The value at every point: float64 of the shape the arguments broadcast to (maybe a read-only view); a
        float for numbers.

        Raises InputError where a value is nan or infinite, naming the first such point, and TypeError for a wrong
        number of arguments. Not collective: another rank's points may be good.
        """
        if len(values) != len(self.variables):
            raise TypeError(f"'{self.text}' takes {', '.join(self.variables)}; got {len(values)} values")
        arrays = [np.asarray(value, dtype=np.float64) for value in values]
        # Both branches of a choice are evaluated everywhere: only what was chosen has to be finite.
        with np.errstate(all="ignore"):
            result = self._evaluate(dict(zip(self.variables, arrays, strict=True)))
        result = np.broadcast_to(result, np.broadcast_shapes(*(array.shape for array in arrays)))
        self._refuse_not_finite(result, arrays)
        return result if result.ndim else float(result)

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.variables!r})"

    def _refuse_not_finite(self, result: Array, arrays: Sequence[Array]) -> None:
        finite = np.isfinite(result)
        if finite.all():
            return
        first = np.unravel_index(np.argmin(finite), result.shape)
        point = [float(np.broadcast_to(array, result.shape)[first]) for array in arrays]
        where = ", ".join(f"{name} = {value:.6g}" for name, value in zip(self.variables, point, strict=True))
        raise InputError(f"'{self.text}' is {result[first]} at {where or 'every point'}; it must be finite everywhere")


class _Builder:
    """Turns the syntax tree of one text into a function of its variables' values."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        self.text = text
        self.variables = variables

    def build_all(self) -> Evaluator:
        if not self.text:
            raise InputError(f"the expression is empty; give a number or an expression\n{self.allowed()}")
        if len(self.text) > LONGEST:
            raise InputError(f"the expression has {len(self.text)} characters; at most {LONGEST} are allowed")
        for column, character in enumerate(self.text):
            # A comment would hide the lines that were joined behind it; a null byte ends the parser's text.
            if character == "#" or not character.isprintable():
                raise self.error(column, f"{character!r} is not allowed in an expression")
        try:
            return self.build(ast.parse(self.text, mode="eval").body)
        except SyntaxError as problem:
            raise self.syntax_error(problem) from None
        except (RecursionError, MemoryError):
            raise self.too_deep(0) from None

    def build(self, node: ast.expr, depth: int = 0) -> Evaluator:
        if depth > DEEPEST:
            raise self.too_deep(node)
        match node:
            case ast.Constant():
                return self.number(node)
            case ast.Name():
                return self.name(node)
            case ast.UnaryOp():
                return self.unary(node, depth + 1)
            case ast.BinOp():
                return self.binary(node, depth + 1)
            case ast.BoolOp():
                return self.logical(node, depth + 1)
            case ast.Compare():
                return self.comparison(node, depth + 1)
            case ast.IfExp():
                return self.choice(node, depth + 1)
            case ast.Call():
                return self.call(node, depth + 1)
        raise self.error(node, f"{NAMES.get(type(node), 'this')} is not allowed in an expression")

    def number(self, node: ast.Constant) -> Evaluator:
        if type(node.value) not in (int, float):
            raise self.error(node, f"{node.value!r} is not allowed in an expression; write a real number")
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            raise self.error(node, "the number is too large for float64")
        return lambda values: value

    def name(self, node: ast.Name) -> Evaluator:
        name = node.id
        if name in self.variables:
            return lambda values: values[name]
        if name in CONSTANTS:
            return lambda values: CONSTANTS[name]
        if name in FUNCTIONS:
            raise self.error(node, f"'{name}' is a function; write {name}(...)")
        raise self.error(node, f"unknown name '{name}'{self.alike(name, (*self.variables, *CONSTANTS, *FUNCTIONS))}")

    def unary(self, node: ast.UnaryOp, depth: int) -> Evaluator:
        if type(node.op) not in UNARY:
            raise self.error(node, "this operator is not allowed in an expression")
        function, operand = UNARY[type(node.op)], self.build(node.operand, depth)
        return lambda values: function(operand(values))

    def binary(self, node: ast.BinOp, depth: int) -> Evaluator:
        left = self.build(node.left, depth)
        if type(node.op) not in BINARY:
            hint = INSTEAD.get(type(node.op), "")
            place = self.column(node.left.end_col_offset or 0)
            raise self.error(place, f"this operator is not allowed in an expression{hint}")
        function, right = BINARY[type(node.op)], self.build(node.right, depth)
        return lambda values: function(left(values), right(values))

    def logical(self, node: ast.BoolOp, depth: int) -> Evaluator:
        function = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        first, *others = [self.build(operand, depth) for operand in node.values]

        def evaluate(values: Mapping[str, Any]) -> Any:
            truth = first(values)
            for operand in others:
                truth = function(truth, operand(values))
            return _as_number(truth)

        return evaluate

    def comparison(self, node: ast.Compare, depth: int) -> Evaluator:
        for operator in node.ops:
            if type(operator) not in COMPARISONS:
                raise self.error(node, "`is` and `in` are not allowed in an expression; compare with == or !=")
        functions = [COMPARISONS[type(operator)] for operator in node.ops]
        operands = [self.build(operand, depth) for operand in (node.left, *node.comparators)]

        def evaluate(values: Mapping[str, Any]) -> Any:
            left, truth = operands[0](values), np.True_
            for function, operand in zip(functions, operands[1:], strict=True):
                right = operand(values)
                left, truth = right, np.logical_and(truth, function(left, right))
            return _as_number(truth)

        return evaluate

    def choice(self, node: ast.IfExp, depth: int) -> Evaluator:
        condition, chosen, other = [self.build(part, depth) for part in (node.test, node.body, node.orelse)]
        return lambda values: np.where(condition(values), chosen(values), other(values))

    def call(self, node: ast.Call, depth: int) -> Evaluator:
        if not isinstance(node.func, ast.Name):
            raise self.error(node, "only the functions listed below can be called")
        name = node.func.id
        if name not in FUNCTIONS:
            wrong = "is not a function" if name in (*self.variables, *CONSTANTS) else "is no function known here"
            raise self.error(node, f"'{name}' {wrong}{self.alike(name, FUNCTIONS)}")
        count, function = FUNCTIONS[name]
        if node.keywords or len(node.args) != count or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise self.error(node, f"{name} takes {count} argument{'s' if count > 1 else ''}, without names")
        arguments = [self.build(argument, depth) for argument in node.args]
        return lambda values: function(*[argument(values) for argument in arguments])

    def alike(self, name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
        """The nearest right name; the whole list is printed below the caret anyway."""
        return nearest(SYNONYMS.get(name, name), names, or_all=False)

    def syntax_error(self, problem: SyntaxError) -> InputError:
        offset = problem.offset or 0
        if not 0 < offset <= len(self.text):  # how the parser marks the end
            return self.error(len(self.text), "the expression ends too early")
        hint = "; write a product as 2*x" if "decimal literal" in problem.msg else ""
        return self.error(offset - 1, f"{problem.msg}{hint}")

    def too_deep(self, place: ast.expr | int) -> InputError:
        return self.error(place, f"nested deeper than {DEEPEST} levels; write it shorter")

    def column(self, byte_offset: int) -> int:
        """The column of a character, from the offset in UTF-8 bytes that a syntax tree has."""
        return len(self.text.encode()[:byte_offset].decode())

    def error(self, place: ast.expr | int, message: str) -> InputError:
        column = place if isinstance(place, int) else self.column(place.col_offset)
        start = max(0, column - 60)
        shown = self.text[start : column + 60]  # of a long expression only what surrounds the place
        return InputError(
            f"{message} (column {column + 1})\n    {shown}\n    {' ' * (column - start)}^\n{self.allowed()}"
        )

    def allowed(self) -> str:
        return (
            f"  variables: {', '.join(self.variables) or 'none'}; constants: {', '.join(CONSTANTS)}\n"
            f"  operators: {OPERATORS}\n"
            f"  functions: {', '.join(FUNCTIONS)}"
        )
