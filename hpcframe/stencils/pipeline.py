"""How threads that compute bands of a wavefront wait for each other: each band counts the turns that it has done.

A band may do a turn when the band before it has done that turn. A count is written after what was computed, and read
before what is computed next (release and acquire), so that no lock is needed. Compiled, called from compiled loops.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

SPACING = 16  # int64 between two counts: each has two cache lines of its own, since processors fetch lines in pairs
ALL = 2**62  # more turns than there are
PATIENCE = 2000  # looks before the core is offered to others, which there may be more of than cores

INT64 = ir.IntType(64)


@intrinsic
def _load(typing: Any, array: Any, index: Any) -> Any:
    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(memory, [arguments[1]]), "acquire", 8)

    return types.int64(array, types.int64), emit


@intrinsic
def _store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store_atomic(arguments[2], builder.gep(memory, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), emit


@intrinsic
def _offer_core(typing: Any) -> Any:
    """POSIX sched_yield()."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.FunctionType(ir.IntType(32), ())
        known = builder.module.globals.get("sched_yield")
        builder.call(known or ir.Function(builder.module, kind, "sched_yield"), ())
        return context.get_dummy_value()

    return types.void(), emit


@njit(nogil=True)
def publish(done: Any, band: int, turns: int) -> None:
    """Say that a band has done its first turns."""
    _store(done, band * SPACING, turns)


@njit(nogil=True)
def wait_for(done: Any, band: int, turn: int) -> int:
    """Wait until a band has done a turn; returns how many it has done."""
    looks = 0
    turns = _load(done, band * SPACING)
    while turns <= turn:
        looks += 1
        if looks > PATIENCE:
            _offer_core()
        turns = _load(done, band * SPACING)
    return turns
