"""Compiling numba functions once a node, kept in a cache that cannot be poisoned.

numba's own cache has one index a function, which ranks that compile at the same time can break for good. Here a
compiled function is one file, named after everything that its code depends on, sealed with a checksum and renamed
into place: it is there and whole, or it is not used. One rank a node compiles, the others load.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import itertools
import linecache
import os
import pickle
import platform
import re
import secrets
import stat
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core import bytecode, compiler, environment
from numba.core.runtime import _nrt_python
from numba.core.serialize import dumps

from hpcframe.errors import HpcframeError

# No fast-math: a point's value must not depend on where a vector loop begins (see docs/reference/bits.md).
# The numpy error model leaves out the test for a zero divisor, which would keep loops from being vectorised.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
CHECKSUM_BYTES = 32
UNRESOLVED = ".numba.unresolved$"  # begins the names of what numba finds out when code is made ready to run
LAYOUT = "3"  # of what a file holds
OUTSIDE = re.compile(r'^(?:declare .*?@|@)"?(?!llvm\.)([^"(\s]+)"?(?:\(| = external)', re.MULTILINE)  # in LLVM's text

# numba numbers the functions of a process, and the number is in the names by which machine code calls them. Code that
# another process has kept may have the same names for other functions, and LLVM takes the first of a name that it
# knows: a wrong answer, without a word. So no two processes use the same numbers.
bytecode.FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))

_ready: dict[str, tuple[Callable[..., Any], compiler.CompileResult]] = {}


def cache_folder() -> Path:
    """`HPCFRAME_CACHE_DIR`, or a folder of this user's in the node's temporary folder."""
    given = os.environ.get("HPCFRAME_CACHE_DIR")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"hpcframe-cache-{os.getuid()}"


def compile_once_a_node(function: Callable[..., Any], signature: str, node: Any, identity: str | None) -> Any:
    """The compiled function. Collective over `node`, the communicator of the ranks that share this machine.

    It does not look at the types of what it is called with: arrays must be those of the signature.

    Args:
        function: plain Python function that numba can compile.
        signature: numba signature, such as "void(float64[::1], int64[:, ::1])".
        node: communicator of the ranks on this node.
        identity: text that changes whenever the compiled code would: its source and that of all it calls; None
            where that is unknown, and the code is kept in this process only.

    Raises:
        numba.core.errors.NumbaError: on every rank, where the function cannot be compiled.
        HpcframeError: numba was set up in a way that does not keep the bits.
    """
    if numba.config.USING_SVML:
        raise HpcframeError(
            "numba uses Intel's vector functions (package icc_rt), with which results depend on the number of ranks: "
            "import hpcframe before numba, or set NUMBA_DISABLE_INTEL_SVML=1"
        )
    key = None if identity is None else _key(f"{function.__module__}\n{identity}", signature)
    # Blocks of different shape may have loops of their own: the first rank of those that need the same one compiles.
    leads = node.allgather(key).index(key) == node.rank
    try:
        if leads:
            _ensure(function, signature, key, leader=True)
        elif key and key not in _ready:  # what an earlier run has kept all ranks load at the same time
            _find(function, key, leader=False)
    finally:
        node.Barrier()
    return _ensure(function, signature, key, leader=leads)


def compile_here(function: Callable[..., Any], signature: str, identity: str) -> Any:
    """The compiled function, for a process that asks on its own. Not collective; see `compile_once_a_node`."""
    return _ensure(function, signature, _key(f"{function.__module__}\n{identity}", signature), leader=True)


@functools.cache
def source_of(function: Callable[..., Any]) -> str:
    """The lines of a plain Python function, as what its compiled code depends on. Not collective.

    What `inspect.getsource` gives, some milliseconds faster: the code object knows where it ends.

    Raises:
        OSError: its file cannot be read.
    """
    function = inspect.unwrap(function)
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    if not lines:
        raise OSError(f"{code.co_filename}, with the source of {function.__qualname__}, cannot be read")
    return "".join(lines[code.co_firstlineno - 1 : _last_line(code)])


def _last_line(code: CodeType) -> int:
    ends = [end or 0 for _, end, _, _ in code.co_positions()]
    return max([*ends, *(_last_line(inner) for inner in code.co_consts if isinstance(inner, CodeType))])


def _ensure(function: Callable[..., Any], signature: str, key: str | None, leader: bool) -> Any:
    known = key or f"{id(function)} {signature}"  # what is in _ready keeps the function, so its id stays its own
    if known not in _ready and not (key and _find(function, key, leader)):
        _ready[known] = function, _compile(function, signature, key, leader)
    # Not numba's dispatcher, which looks at the types of all arguments at each call, and loads numpy.ma at the first.
    return _ready[known][1].entry_point


def _key(identity: str, signature: str) -> str:
    """Everything that decides about the machine code, digested."""
    cpu = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()
    versions = numba.__version__, llvmlite.__version__, platform.python_version()
    parts = (LAYOUT, identity, signature, repr(sorted(OPTIONS.items())), *cpu, *versions)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _find(function: Callable[..., Any], key: str, leader: bool) -> bool:
    """Load what is kept; whether there is something."""
    found = _load(function, key, leader)
    if found:
        _ready[key] = function, found
    return bool(found)


def _compile(function: Callable[..., Any], signature: str, key: str | None, leader: bool) -> compiler.CompileResult:
    (result,) = numba.njit(signature, **OPTIONS)(function).overloads.values()
    if key is None or not leader:  # the leader has tried to keep it, and said why it could not
        return result
    text = result.library.get_llvm_str()
    if UNRESOLVED in text:  # a function of the user's that calls itself: numba cannot load those again
        return result
    try:
        outside = sorted(set(OUTSIDE.findall(text)))
        code = dumps((outside, result._reduce()))
        keep(key, hashlib.sha256(key.encode() + code).digest() + code)
    except OSError as error:
        _notice(f"compiled code is not kept: {error}; set HPCFRAME_CACHE_DIR to a folder that can be written")
    return result


def _load(function: Callable[..., Any], key: str, leader: bool) -> compiler.CompileResult | None:
    """The function from the cache, or None where it is not there, not whole, or not ours."""
    sealed = kept(key)
    if sealed is None:
        return None
    code = sealed[CHECKSUM_BYTES:]
    if hashlib.sha256(key.encode() + code).digest() != sealed[:CHECKSUM_BYTES]:
        if leader:
            _notice(f"{cache_folder() / key} is damaged: compiling again")
        return None
    context = numba.njit(**OPTIONS)(function).targetctx
    try:
        outside, result = _Unpickler(io.BytesIO(code)).load()
        _provide(outside, context)
        return compiler.CompileResult._rebuild(context, *result)
    except (AttributeError, ImportError, TypeError, ValueError, pickle.UnpicklingError) as error:
        if leader:
            _notice(f"{cache_folder() / key} cannot be loaded ({error}): compiling again")
        return None


class _Unpickler(pickle.Unpickler):
    """Does not import what numba compiled in of its own: machine code does not look into those modules."""

    def find_class(self, module: str, name: str) -> Any:
        own = (module, name) == (environment.__name__, "_rebuild_env")
        return _environment if own else super().find_class(module, name)


def _environment(module: str, constants: Any, name: str) -> Any:
    """What numba keeps for a function that was compiled in: its module and the Python objects that it uses."""
    known = environment.lookup_environment(name)
    if known is not None or constants or not module.startswith("numba."):
        return known or environment._rebuild_env(module, constants, name)
    made = environment.Environment({"__name__": module})
    made.env_name = name
    environment.Environment._memo[name] = made
    return made


@functools.cache
def _provide_references() -> None:
    """What numba counts references to arrays with."""
    for name, address in getattr(_nrt_python, "c_helpers", {}).items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def _provide(names: Sequence[str], context: Any) -> None:
    """Make known what machine code calls outside itself, without which LLVM would end the process.

    numba does so when it makes ready to compile, which takes longer than all else here: so only where it is needed.
    """
    _provide_references()
    if not all(map(llvmlite.binding.address_of_symbol, names)):
        context.refresh()


def keep(name: str, content: bytes) -> None:
    """Write a file of the cache folder, whole or not at all. Not collective. Raises OSError."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if reason := _why_not_private(folder):
        raise PermissionError(f"{folder} {reason}")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".part-", delete=False) as part:
        try:
            part.write(content)
            part.flush()
            os.replace(part.name, folder / name)
        except OSError:
            os.unlink(part.name)
            raise


def kept(name: str) -> bytes | None:
    """A file of the cache folder; None where it is not there, or others could have written it. Not collective."""
    folder = cache_folder()
    try:
        return None if _why_not_private(folder) else (folder / name).read_bytes()
    except OSError:  # not there or not readable
        return None


def _why_not_private(folder: Path) -> str:
    """Loading runs what is in the folder, so nobody else may be able to write to it."""
    status = folder.stat()
    if status.st_uid not in (os.getuid(), 0):
        return "belongs to another user"
    return "can be written by others" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def _notice(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
