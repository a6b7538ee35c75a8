"""The text of a user's function, and errors that point into it."""

from __future__ import annotations

import ast
import contextlib
import inspect
import linecache
from collections.abc import Callable, Sequence
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
        code = inspect.unwrap(function).__code__
        self.file, self._first = code.co_filename, code.co_firstlineno
        linecache.checkcache(self.file)
        self._lines = _block(linecache.getlines(self.file, function.__globals__)[self._first - 1 :])
        if not self._lines:
            raise InputError(
                f"the source of '{function.__name__}' cannot be found: define it in a file, not in exec or at a prompt"
            )
        self.definition = self._parse()
        self.meaning = {**function.__globals__, **_closure(function)}
        stored = [n for n in ast.walk(self.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self.locals = {node.id for node in stored}
        loops = [node.target for node in ast.walk(self.definition) if isinstance(node, ast.For)]
        self.temporaries = {node.id for node in stored if not any(node is target for target in loops)}

    def _parse(self) -> ast.FunctionDef:
        # A function within another one is indented: it is the body of an `if` then, one line further down.
        indented = self._lines[0][:1].isspace()
        try:
            tree = ast.parse("if True:\n" * indented + "".join(self._lines)).body[0]
        except SyntaxError:  # a lambda in the midst of an expression
            tree = ast.Pass()
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


def _block(lines: Sequence[str]) -> list[str]:
    """Those of the definition that begins with the first line.

    Lines are added until what there is can be parsed and the next one is not further in: `inspect.getsourcelines`
    splits all into tokens instead, in Python, which takes milliseconds of each start.
    """
    depth = _indentation(lines[0]) if lines else 0
    in_body = False
    for count, line in enumerate(lines):
        text = line.lstrip()
        if in_body and text and text[0] != "#" and _indentation(line) <= depth and _parses(lines[:count]):
            return list(lines[:count])
        in_body = in_body or text.startswith("def ")
    return list(lines)


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _parses(lines: Sequence[str]) -> bool:
    try:
        ast.parse("if True:\n" * lines[0][:1].isspace() + "".join(lines))
    except SyntaxError:
        return False
    return True


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
