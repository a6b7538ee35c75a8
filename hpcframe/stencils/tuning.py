"""How many steps at once, and how the wavefront is cut: the same on every rank, and never of influence on results."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hpcframe.errors import InputError
from hpcframe.grid.field import Field

VARIABLE = "HPCFRAME_TIME_BLOCK"  # "depth,planes,rows", or 0: one step after another
DEPTH, PLANES, ROWS = 8, 4, 32
SHARE = 4  # of the smallest block, at most, that is computed beyond it
LEAST_BYTES = 2**20  # of one field on each rank: below, all is in the cache anyway


def front_of(evolving: Sequence[Field], levels: int) -> tuple[int, int, int] | None:
    """Depth, planes and rows of the wavefront; None where steps are to be done one after another. Not collective.

    Raises:
        InputError: HPCFRAME_TIME_BLOCK is not understood.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        return _given(given)
    field = evolving[0]
    grid = field.grid
    smallest = grid.decomposition.smallest
    size = field.dtype.itemsize
    for count in smallest:
        size *= count
    if size < LEAST_BYTES or grid.ndim == 1:
        return None
    depth = DEPTH // levels * levels
    halo = max(max(f.halo) for f in evolving) or 1
    cut = [count for axis, count in enumerate(smallest) if grid.periodic[axis] or grid.layout[axis] > 1]
    while depth > 1 and any(depth * halo > count // SHARE for count in cut):
        depth -= levels
    return (depth, PLANES, ROWS) if depth > 1 else None


def _given(text: str) -> tuple[int, int, int] | None:
    numbers = text.split(",")
    if text == "0":
        return None
    if len(numbers) != 3 or not all(number.isdigit() and int(number) for number in numbers):
        raise InputError(f"{VARIABLE}={text}: expected depth,planes,rows, three numbers of at least 1, or 0")
    depth, planes, rows = map(int, numbers)
    return depth, planes, rows
