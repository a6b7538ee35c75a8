"""Compiled copies between a block and message buffers, and mirror images beyond walls.

A copy is a row of a table, made when an exchange is planned; one call then does all rows of all fields, so a step
has no Python loop over fields or neighbours. Rows are contiguous along the last axis on both sides, which keeps
every face as fast as memory allows, thin ones of the last axis included.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from hpcframe.compilation import compile_once_a_node
from hpcframe.grid.communicator import Communicator
from hpcframe.grid.decomposition import Block

# A row of either table: to, from, counts of four axes, then the strides of the first three (of both sides of a copy).


@intrinsic
def _move(typingctx: Any, target: Any, source: Any, word: Any) -> Any:
    """Copy one word of the type of `word` between two addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(signature.args[2].bitwidth).as_pointer()
        to, origin = (builder.inttoptr(address, pointer) for address in arguments[:2])
        builder.store(builder.load(origin, align=4), to, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, word), generate


def _copy_words(word: Any) -> Callable[[npt.NDArray], None]:
    size = np.dtype(word).itemsize
    one = word(1)

    def copy(table: npt.NDArray) -> None:
        for row in range(table.shape[0]):
            for a in range(table[row, 2]):
                for b in range(table[row, 3]):
                    for c in range(table[row, 4]):
                        target = table[row, 0] + a * table[row, 6] + b * table[row, 7] + c * table[row, 8]
                        source = table[row, 1] + a * table[row, 9] + b * table[row, 10] + c * table[row, 11]
                        for d in range(table[row, 5]):
                            _move(target + d * size, source + d * size, one)

    return copy


def _mirror(flat: npt.NDArray, table: npt.NDArray, signs: npt.NDArray, shifts: npt.NDArray) -> None:
    for row in range(table.shape[0]):
        sign, shift = signs[row], shifts[row]
        for a in range(table[row, 2]):
            for b in range(table[row, 3]):
                for c in range(table[row, 4]):
                    at = a * table[row, 6] + b * table[row, 7] + c * table[row, 8]
                    target, source = table[row, 0] + at, table[row, 1] + at
                    for d in range(table[row, 5]):
                        flat[target + d] = sign * flat[source + d] + shift


class Copies:
    """A table of copies between arrays, done in one call.

    The arrays must outlive it: the table holds their addresses.
    """

    def __init__(self, pairs: Sequence[tuple[npt.NDArray, npt.NDArray]], shared: Communicator) -> None:
        """Collective. `pairs` are (to, from), of four axes, equal shapes, contiguous along the last."""
        self._calls = []
        for word in (np.uint64, np.uint32):
            size = np.dtype(word).itemsize
            rows = [_copy_row(to, origin, size) for to, origin in pairs if (to.itemsize % 8 == 0) == (size == 8)]
            identity = f"{inspect.getsource(_move._defn)}{inspect.getsource(_copy_words)}{size}"
            copy = compile_once_a_node(_copy_words(word), "void(int64[:, ::1])", shared.node, identity)
            if rows:
                self._calls.append((copy, np.array(rows, dtype=np.int64)))

    def __call__(self) -> None:
        for copy, table in self._calls:
            copy(table)


def _copy_row(to: npt.NDArray, origin: npt.NDArray, word: int) -> tuple[int, ...]:
    counts = (*to.shape[:3], to.shape[3] * to.itemsize // word)
    return (to.ctypes.data, origin.ctypes.data, *counts, *to.strides[:3], *origin.strides[:3])


def compile_mirror(dtype: np.dtype, shared: Communicator) -> Callable[..., None]:
    """mirror(flat, table, signs, shifts): ghost = sign * inside + shift for each row of the table. Collective."""
    kind = numba.from_dtype(dtype)
    signature = f"void({kind}[::1], int64[:, ::1], {kind}[::1], {kind}[::1])"
    return compile_once_a_node(_mirror, signature, shared.node, inspect.getsource(_mirror))


def mirror_table(array: npt.NDArray, flat: npt.NDArray, layers: Sequence[tuple[Block, Block]]) -> npt.NDArray:
    """Rows for a field's local array of four axes, `flat` its storage in one axis; layers are (ghost, inside)."""
    start = flat.ctypes.data
    rows = [_mirror_row(array[to], array[origin], start) for to, origin in layers]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 9)


def _mirror_row(to: npt.NDArray, origin: npt.NDArray, start: int) -> tuple[int, ...]:
    strides = tuple(stride // to.itemsize for stride in to.strides[:3])
    return (
        (to.ctypes.data - start) // to.itemsize,
        (origin.ctypes.data - start) // to.itemsize,
        *to.shape,
        *strides,
    )
