"""What compiled code depends on: a function's source and all that it refers to."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
from numba.extending import _Intrinsic

from hpcframe.compilation import source_of

STABLE = ("numpy", "math", "cmath", "numba")  # modules that change with their versions only
BUILTIN_TYPES = (bool, int, float, complex, range)


def identity_of(names: Mapping[str, Any]) -> str | None:
    """A text that changes whenever one of these objects does something else; None where that cannot be told."""
    known: dict[int, str] = {}
    parts = [_describe(value, known) for _, value in sorted(names.items())]
    return (
        None if None in parts else "\n".join(f"{name}={part}" for name, part in zip(sorted(names), parts, strict=True))
    )


def function_identity(function: Callable[..., Any]) -> str | None:
    """The same for one plain or njit-decorated function."""
    return identity_of({"function": function})


def _describe(value: Any, known: dict[int, str]) -> str | None:
    if id(value) in known:  # recursion: described already
        return known[id(value)]
    if isinstance(value, bool | int | float | complex | str | bytes | None.__class__ | np.generic):
        return repr(value)
    if isinstance(value, tuple):
        parts = [_describe(item, known) for item in value]
        return None if None in parts else repr(parts)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:  # numba compiles a global array's values in
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if inspect.ismodule(value):  # what a module of the user's holds may change: nothing is known of it
        return f"module {value.__name__}" if value.__name__ in STABLE else None
    if (
        isinstance(value, np.ufunc)
        or any(value is kind for kind in BUILTIN_TYPES)
        or (isinstance(value, type) and issubclass(value, np.generic))
    ):
        return f"{type(value).__name__} {value.__name__}"
    if isinstance(value, _Intrinsic):  # of hpcframe's own, its module is all that it depends on
        own = value._defn.__module__.startswith("hpcframe.")
        return inspect.getsource(sys.modules[value._defn.__module__]) if own else None
    if isinstance(value, numba.core.dispatcher.Dispatcher):
        return _describe_function(value.py_func, known, repr(sorted(value.targetoptions.items(), key=str)))
    if inspect.isbuiltin(value) or (getattr(value, "__module__", None) or "").split(".")[0] in (
        "numpy",
        "math",
        "cmath",
    ):
        return f"{value.__module__}.{value.__qualname__}"
    if inspect.isfunction(value):
        return _describe_function(value, known, "")
    return None


def _describe_function(function: Any, known: dict[int, str], options: str) -> str | None:
    known[id(function)] = f"itself {function.__qualname__}"
    try:
        source = source_of(function)
    except OSError:
        return None
    closure = zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True)
    meaning = dict(closure)
    # Names of attributes are among them: too many objects described do no harm, too few would.
    meaning |= {n: function.__globals__[n] for n in _names(function.__code__) if n in function.__globals__}
    parts = [source, options, repr(function.__defaults__)]
    for name, value in sorted(meaning.items()):
        part = _describe(value, known)
        if part is None:
            return None
        parts.append(f"{name}={part}")
    return "\n".join(parts)


def _names(code: types.CodeType) -> set[str]:
    """Names that a function looks up outside itself, and those of functions within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))
