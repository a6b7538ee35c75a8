"""Compiling numba functions once a node, kept in a cache that cannot be poisoned.

numba's own cache has one index a function, which ranks that compile at the same time can break for good. Here a
compiled function is one file, named after everything that its code depends on, sealed with a checksum and renamed
into place: it is there and whole, or it is not used. One rank a node compiles, the others load.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import stat
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core import compiler
from numba.core.serialize import dumps

from hpcframe.errors import HpcframeError

# No fast-math: a point's value must not depend on where a vector loop begins (see docs/reference/bits.md).
# The numpy error model leaves out the test for a zero divisor, which would keep loops from being vectorised.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
CHECKSUM_BYTES = 32

_ready: dict[str, Any] = {}


def cache_folder() -> Path:
    """`HPCFRAME_CACHE_DIR`, or a folder of this user's in the node's temporary folder."""
    given = os.environ.get("HPCFRAME_CACHE_DIR")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"hpcframe-cache-{os.getuid()}"


def compile_once_a_node(function: Callable[..., Any], signature: str, node: Any, identity: str | None) -> Any:
    """The compiled function. Collective over `node`, the communicator of the ranks that share this machine.

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
            compiled = _ensure(function, signature, key, leader=True)
    finally:
        node.Barrier()
    return compiled if leads else _ensure(function, signature, key, leader=False)


def compile_here(function: Callable[..., Any], signature: str, identity: str) -> Any:
    """The compiled function, for a process that asks on its own. Not collective; see `compile_once_a_node`."""
    return _ensure(function, signature, _key(f"{function.__module__}\n{identity}", signature), leader=True)


def _ensure(function: Callable[..., Any], signature: str, key: str | None, leader: bool) -> Any:
    if key is None:
        known = f"{id(function)} {signature}"  # what is in _ready keeps the function, so its id stays its own
        if known not in _ready:
            _ready[known] = numba.njit(signature, **OPTIONS)(function)
        return _ready[known]
    if key not in _ready:
        _ready[key] = _load(function, key, leader) or _compile(function, signature, key, leader)
    return _ready[key]


def _key(identity: str, signature: str) -> str:
    """Everything that decides about the machine code, digested."""
    cpu = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()
    versions = numba.__version__, llvmlite.__version__, platform.python_version()
    parts = (identity, signature, repr(sorted(OPTIONS.items())), *cpu, *versions)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _compile(function: Callable[..., Any], signature: str, key: str, leader: bool) -> Any:
    dispatcher = numba.njit(signature, **OPTIONS)(function)
    if not leader:  # the leader has tried to keep it, and said why it could not
        return dispatcher
    (result,) = dispatcher.overloads.values()
    try:
        _store(cache_folder(), key, dumps(result._reduce()))
    except OSError as error:
        _notice(f"compiled code is not kept: {error}; set HPCFRAME_CACHE_DIR to a folder that can be written")
    return dispatcher


def _load(function: Callable[..., Any], key: str, leader: bool) -> Any | None:
    """The function from the cache, or None where it is not there, not whole, or not ours."""
    folder = cache_folder()
    try:
        if _why_not_private(folder):
            return None
        sealed = (folder / key).read_bytes()
    except OSError:  # not there or not readable: compile
        return None
    code = sealed[CHECKSUM_BYTES:]
    if hashlib.sha256(key.encode() + code).digest() != sealed[:CHECKSUM_BYTES]:
        if leader:
            _notice(f"{folder / key} is damaged: compiling again")
        return None
    dispatcher = numba.njit(**OPTIONS)(function)
    dispatcher.targetctx.refresh()
    try:
        dispatcher.add_overload(compiler.CompileResult._rebuild(dispatcher.targetctx, *pickle.loads(code)))
    except (AttributeError, ImportError, TypeError, ValueError, pickle.UnpicklingError) as error:
        if leader:
            _notice(f"{folder / key} cannot be loaded ({error}): compiling again")
        return None
    dispatcher.disable_compile()
    return dispatcher


def _store(folder: Path, key: str, code: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if reason := _why_not_private(folder):
        raise PermissionError(f"{folder} {reason}")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".part-", delete=False) as part:
        try:
            part.write(hashlib.sha256(key.encode() + code).digest() + code)
            part.flush()
            os.replace(part.name, folder / key)
        except OSError:
            os.unlink(part.name)
            raise


def _why_not_private(folder: Path) -> str:
    """Loading runs what is in the folder, so nobody else may be able to write to it."""
    status = folder.stat()
    if status.st_uid not in (os.getuid(), 0):
        return "belongs to another user"
    return "can be written by others" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def _notice(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
