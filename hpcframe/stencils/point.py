"""A point function once it is read: what it reads and writes, and what is left of its body."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hpcframe.errors import InputError

Index = tuple[int, ...]
INDEX_PREFIX = "_index_of_axis_"
OFF_CENTRE = "a stencil writes at offset zero only: another rank may own the neighbour"


def index(axis: int) -> int:
    """The global index of the point along an axis; for use inside a stencil or a reduction only."""
    raise InputError(
        f"hf.index({axis}) means something only inside a function decorated with hf.stencil or hf.reduction"
    )


@dataclass
class PointFunction:
    """What a point function does.

    Attributes:
        name, parameters: as in the source.
        fields: parameters that are indexed by offsets, in order; `scalars` are the others.
        writes: fields that are assigned to.
        reads: for each field the indices it is read at: components first, then offsets.
        index_length: number of entries in each field's indices.
        axes: axes whose global index is used.
        body: statements left after folding; accesses are `ast.Subscript` nodes with constant indices.
        result: the returned expression, for a reduction.
        namespace: what the remaining names mean: njit functions and modules.
    """

    name: str
    parameters: tuple[str, ...]
    fields: tuple[str, ...]
    scalars: tuple[str, ...]
    defaults: dict[str, Any]
    writes: tuple[str, ...] = ()
    reads: dict[str, set[Index]] = field(default_factory=dict)
    index_length: dict[str, int] = field(default_factory=dict)
    axes: set[int] = field(default_factory=set)
    body: list[ast.stmt] = field(default_factory=list)
    result: ast.expr | None = None
    namespace: dict[str, Any] = field(default_factory=dict)
    refusals: dict[tuple[str, Index], Callable[[str], NoReturn]] = field(default_factory=dict)
    axis_refusals: dict[int, Callable[[str], NoReturn]] = field(default_factory=dict)

    def check_indices(self, ndim: int, components: Mapping[str, tuple[int, ...]]) -> None:
        """Check indices against the axes of the fields of a call, which the source alone does not tell.

        Raises:
            InputError: showing the user's line: a wrong number of entries, a write that is not at offset zero, a
                component that a field does not have, or the index of an axis that the grid does not have.
        """
        for axis, refuse in self.axis_refusals.items():
            if axis >= ndim:
                refuse(f"the grid has axes {tuple(range(ndim))} only")
        for (name, where), refuse in self.refusals.items():
            counts = components[name]
            if len(where) != len(counts) + ndim:
                parts = f" and {len(counts)} of components" if counts else ""
                refuse(f"'{name}' is indexed with {len(where)} entries, the field it takes has {ndim} axes{parts}")
            if any(not 0 <= entry < count for entry, count in zip(where, counts, strict=False)):
                refuse(f"'{name}' has components {counts}, there is no {where[: len(counts)]}")
            if name in self.writes and any(where[len(counts) :]):
                refuse(OFF_CENTRE)
