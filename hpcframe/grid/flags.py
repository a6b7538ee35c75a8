"""Numbers in memory by which ranks of a node, or threads of a rank, tell each other how far they are. Compiled.

A number is stored after what was written before it, and loaded before what is read after it (release and acquire), so
that no lock is needed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

APART = 128  # bytes between two numbers: two cache lines, since processors fetch them in pairs
PATIENCE = 2000  # looks before the core is offered to others, which there may be more of than cores

INT64 = ir.IntType(64)


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """The int64 at an address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.load_atomic(builder.inttoptr(arguments[0], INT64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), emit


@intrinsic
def store(typing: Any, address: Any, value: Any) -> Any:
    """Set the int64 at an address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        builder.store_atomic(arguments[1], builder.inttoptr(arguments[0], INT64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def offer_core(typing: Any) -> Any:
    """POSIX sched_yield()."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.FunctionType(ir.IntType(32), ())
        known = builder.module.globals.get("sched_yield")
        builder.call(known or ir.Function(builder.module, kind, "sched_yield"), ())
        return context.get_dummy_value()

    return types.void(), emit


@njit(nogil=True)
def set_all(addresses, value):  # type: ignore[no-untyped-def]  # compiled
    """Set all numbers."""
    for address in addresses:
        store(address, value)


@njit(nogil=True)
def all_reached(addresses, value, looks):  # type: ignore[no-untyped-def]  # compiled
    """Look at all numbers until they are at least `value`, so often at most; whether they are."""
    for address in addresses:
        while load(address) < value:
            looks -= 1
            if looks < 0:
                return False
            if looks % PATIENCE == 0:
                offer_core()
    return True
