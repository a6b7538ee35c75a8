"""Compiled copies between a block and message buffers, and mirror images beyond walls.

A copy is a row of a table, made when an exchange is planned; one call then does all rows of all fields, so a step
has no Python loop over fields or neighbours. Rows are contiguous along the last axis on both sides, which keeps
every face as fast as memory allows, thin ones of the last axis included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from mpi4py import MPI
from numba.core import types
from numba.extending import intrinsic

from hpcframe.compilation import OPTIONS, compile_once_a_node, source_of
from hpcframe.grid.communicator import Communicator


@intrinsic
def _move(typingctx: Any, target: Any, source: Any, word: Any) -> Any:
    """Copy one word of the type of `word` between two addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(signature.args[2].bitwidth).as_pointer()
        to, origin = (builder.inttoptr(address, pointer) for address in arguments[:2])
        builder.store(builder.load(origin, align=4), to, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, word), generate


# A row of a copy's table: addresses to and from, counts of four axes, strides (bytes) of the first three to and from,
# bytes of a word.
# A row of a mirror's: positions to and from, counts of four axes, strides of all to and from, the axis of layers, the
# number of the first layer, counted from the wall.


def _copy_of_words(word: Any) -> Callable[[npt.NDArray], None]:
    size = np.dtype(word).itemsize
    one = word(1)

    def copy(row: npt.NDArray) -> None:
        to, origin = row[0], row[1]
        n0, n1, n2, n3 = row[2], row[3], row[4], row[5]
        for a in range(n0):
            for b in range(n1):
                target = to + a * row[6] + b * row[7]
                source = origin + a * row[9] + b * row[10]
                for _ in range(n2):
                    # Rows of a thin face of the last axis are a few words: no loop with its set-up for those.
                    _move(target, source, one)
                    if n3 > 1:
                        _move(target + size, source + size, one)
                    for d in range(2, n3):
                        _move(target + d * size, source + d * size, one)
                    target += row[8]
                    source += row[11]

    return copy


_copy_longs, _copy_shorts = (numba.njit(**OPTIONS)(_copy_of_words(word)) for word in (np.uint64, np.uint32))


@numba.njit(**OPTIONS)
def copy_all(table: npt.NDArray) -> None:
    """What `Copies` compiles; also for compiled code that calls it."""
    for row in table:
        if row[12] == 8:
            _copy_longs(row)
        else:
            _copy_shorts(row)


def mirror(
    flat: npt.NDArray,
    table: npt.NDArray,
    signs: npt.NDArray,
    shifts: npt.NDArray,
    slopes: npt.NDArray,
    begin: int,
    end: int,
) -> None:
    """What `compile_mirror` compiles; also for compiled code that calls it.

    Positions are unsigned where memory is addressed: numba tests signed ones for negative indices.
    """
    for row in range(begin, end):
        sign, shift, slope, layered, first = signs[row], shifts[row], slopes[row], table[row, 14], table[row, 15]
        count, rise, rise_inside = table[row, 4], table[row, 8], table[row, 12]
        for a in range(table[row, 2]):
            for b in range(table[row, 3]):
                target = table[row, 0] + a * table[row, 6] + b * table[row, 7]
                source = table[row, 1] + a * table[row, 10] + b * table[row, 11]
                if layered == 3:  # a layer is one point of each row: the long loop runs over rows
                    for d in range(table[row, 5]):
                        constant = shift + (first + d) * slope
                        to, origin = target + d * table[row, 9], source + d * table[row, 13]
                        for c in range(count):
                            inside = flat[np.uint64(origin + c * rise_inside)]
                            flat[np.uint64(to + c * rise)] = sign * inside + constant if sign != 0 else constant
                else:
                    for c in range(count):
                        layer = first + (b if layered == 1 else c)
                        constant = shift + layer * slope
                        to, origin = target + c * rise, source + c * rise_inside
                        for d in range(table[row, 5]):
                            inside = flat[np.uint64(origin + d)]
                            flat[np.uint64(to + d)] = sign * inside + constant if sign != 0 else constant


COLUMNS = 13
Pair = tuple[npt.NDArray, npt.NDArray]  # to, from
COPYING = "".join(map(source_of, (_move._defn, _copy_of_words, copy_all)))  # what compiled copies depend on


class Copies:
    """A table of copies between arrays, done in one call.

    The arrays must outlive it: it holds their addresses.
    """

    def __init__(self, pairs: Sequence[Pair], shared: Communicator) -> None:
        """Collective. `pairs` are (to, from), of four axes, equal shapes, contiguous along the last."""
        self._table = copy_table(pairs)
        self._copy: Callable[..., None] | None = None
        if shared.node.allreduce(len(pairs)):  # else nobody has to load it
            self._copy = compile_copy(shared.node)

    def __call__(self) -> None:
        if self._copy and len(self._table):
            self._copy(self._table)


def compile_copy(node: MPI.Intracomm) -> Callable[..., None]:
    """copy_all(table), to be called from Python. Collective over `node`."""
    return compile_once_a_node(copy_all.py_func, "void(int64[:, ::1])", node, COPYING)


def copy_table(pairs: Sequence[Pair]) -> npt.NDArray[np.int64]:
    """What `copy_all` takes, for pairs as `Copies` has them. The arrays must outlive it. Not collective."""
    rows = [_copy_row(to, origin, 8 if to.itemsize % 8 == 0 else 4) for to, origin in pairs]
    return np.array(rows, np.int64).reshape(len(rows), COLUMNS)


def _copy_row(to: npt.NDArray, origin: npt.NDArray, word: int) -> tuple[int, ...]:
    counts = (*to.shape[:3], to.shape[3] * to.itemsize // word)
    return (to.ctypes.data, origin.ctypes.data, *counts, *to.strides[:3], *origin.strides[:3], word)


def compile_mirror(dtype: np.dtype, shared: Communicator) -> Callable[..., None]:
    """mirror(flat, table, signs, shifts, slopes, begin, end): for each of these rows of the table and layer m of it
    ghost = sign * inside + (shift + m * slope), without the inside, whatever it is, where sign is 0. Collective."""
    kind = numba.from_dtype(dtype)
    signature = f"void({kind}[::1], int64[:, ::1], {kind}[::1], {kind}[::1], {kind}[::1], int64, int64)"
    return compile_once_a_node(mirror, signature, shared.node, source_of(mirror))


def mirror_table(flat: npt.NDArray, regions: Sequence[tuple[npt.NDArray, npt.NDArray, int]]) -> npt.NDArray:
    """A row a region of a field whose storage in one axis is `flat`.

    Regions are (ghost, inside, axis): views of four axes, of which `axis` counts layers from the wall on both sides.
    """
    start = flat.ctypes.data
    rows = [
        (_position(to, start), _position(at, start), *to.shape, *_strides(to), *_strides(at), axis, 0)
        for to, at, axis in regions
    ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 16)


def _position(array: npt.NDArray, start: int) -> int:
    return (array.ctypes.data - start) // array.itemsize


def _strides(array: npt.NDArray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)
