"""The text of a user's function, and errors that point into it."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from hpcframe.errors import InputError


class Source:
    """A function definition, as text and as a tree.

    Attributes:
        definition: the tree; its line and column numbers are those of `text`.
        meaning: the objects that names outside the function stand for.
        locals: names that the function itself gives a value somewhere: they never mean an object outside.
        temporaries: those that are assigned to, not only names of loops.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises InputError where the source cannot be found or is no plain function. Not collective."""
        if not inspect.isfunction(function):
            raise InputError(f"expected a plain Python function, got {function!r}")
        try:
            lines, self._first = inspect.getsourcelines(function)
        except OSError as error:
            raise InputError(
                f"the source of '{function.__name__}' cannot be found: define it in a file, not in exec or at a prompt"
            ) from error
        self.file = inspect.getsourcefile(function) or "?"
        self._lines = lines
        self.definition = self._parse()
        self.meaning = {**function.__globals__, **_closure(function)}
        stored = [n for n in ast.walk(self.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self.locals = {node.id for node in stored}
        loops = [node.target for node in ast.walk(self.definition) if isinstance(node, ast.For)]
        self.temporaries = {node.id for node in stored if not any(node is target for target in loops)}

    def _parse(self) -> ast.FunctionDef:
        # A function within another one is indented: it is the body of an `if` then, one line further down.
        indented = self._lines[0][:1].isspace()
        tree = ast.parse("if True:\n" * indented + "".join(self._lines)).body[0]
        definition = tree.body[0] if isinstance(tree, ast.If) and indented else tree
        if not isinstance(definition, ast.FunctionDef):
            raise InputError(f"{self.file}:{self._first}: expected a function made with def")
        return ast.increment_lineno(definition, -int(indented))

    def refuse(self, node: ast.AST, why: str) -> NoReturn:
        """Raise an InputError that shows the line, with marks under the node."""
        line = getattr(node, "lineno", 1)
        text = self._lines[line - 1].rstrip()
        begin = _column(text, getattr(node, "col_offset", 0))
        end = _column(text, getattr(node, "end_col_offset", 0))
        if getattr(node, "end_lineno", line) != line or isinstance(node, ast.FunctionDef):
            end = len(text)
        marks = " " * begin + "^" * max(1, end - begin)
        raise InputError(f"{self.file}:{self._first + line - 1}: {why}\n    {text}\n    {marks}")


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """Names of an enclosing function, those that have a value by now."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _column(text: str, byte_offset: int) -> int:
    """Trees count bytes, people count characters."""
    return len(text.encode()[:byte_offset].decode(errors="ignore"))
