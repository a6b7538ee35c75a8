"""Boundary conditions, a side and a field: values of the halo beyond the edge of the domain.

A condition holds on the wall: midway between the last cell and its ghost for a field at cell centres, on the
outermost point for a field staggered along that axis. The halo mirrors the interior about the wall (ghost points,
second order), so a wide halo is filled as consistently as a narrow one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcframe.errors import InputError

Value = float | complex | Callable[[float], float]


@dataclass(frozen=True)
class Dirichlet:
    """The field's value on the wall: a number, or a function of time (s)."""

    value: Value = 0.0


@dataclass(frozen=True)
class Neumann:
    """The derivative along the outward normal on the wall: a number (field unit / m), or a function of time (s)."""

    gradient: Value = 0.0


@dataclass(frozen=True)
class Side:
    """What a user's boundary function gets: fill `ghost` from `inside`.

    Attributes:
        ghost: the halo layers, a view to write to; axis 0 is the normal of the wall, layer 0 is nearest to it.
            A field's leading components come last.
        inside: the interior layers in the same order, same shape; where the field is staggered along the normal,
            `inside[0]` is the first layer off the wall.
        coordinates: x, y, z (m) of the ghost points as open arrays, one an axis of the grid in its own order, each
            shaped to broadcast against `ghost`; of a field with components, against `ghost[..., component]`.
        time: the grid's time (s).
        axis, upper: which wall this is.
    """

    ghost: npt.NDArray
    inside: npt.NDArray
    coordinates: tuple[npt.NDArray, ...]
    time: float
    axis: int
    upper: bool


Condition = Dirichlet | Neumann | Callable[[Side], None]


class Boundary(MutableMapping[tuple[int, int], Condition]):
    """The conditions of one field by (axis, side), side 0 the lower and 1 the upper one.

    A side that is not given has zero gradient. Logically collective: give the same on every rank.

    Attributes:
        changes: how many there were: plans made before one no longer hold.
        steady: whether the halo beyond the walls follows from the interior alone, at any time.
    """

    def __init__(self, periodic: tuple[bool, ...], dtype: np.dtype) -> None:
        self._dtype = dtype
        self._conditions: dict[tuple[int, int], Condition] = {
            (axis, side): Neumann(0.0) for axis, wraps in enumerate(periodic) if not wraps for side in (0, 1)
        }
        self.changes = 0
        self.steady = True

    def __getitem__(self, wall: tuple[int, int]) -> Condition:
        return self._conditions[wall]

    def __setitem__(self, wall: tuple[int, int], condition: Condition) -> None:
        """Raises InputError where there is no such wall, or where `condition` is not one."""
        if wall not in self._conditions:
            raise InputError(self._no_such_wall(wall))
        known = isinstance(condition, Dirichlet | Neumann)
        if isinstance(condition, type) or not (known or callable(condition)):
            raise InputError(
                f"boundary {wall}: expected hf.Dirichlet(value), hf.Neumann(gradient) or a function of a Side, "
                f"got {condition!r}"
            )
        if isinstance(condition, Dirichlet | Neumann):
            self._check_value(wall, condition)
        self._conditions[wall] = condition
        self.changes += 1
        self.steady = not any(map(_may_change, self._conditions.values()))

    def _check_value(self, wall: tuple[int, int], condition: Dirichlet | Neumann) -> None:
        value = condition.value if isinstance(condition, Dirichlet) else condition.gradient
        if callable(value):
            return
        if not isinstance(value, int | float | complex | np.number):
            raise InputError(f"boundary {wall}: {condition} needs a number or a function of time (s)")
        whole = value == int(np.real(value)) if isinstance(condition, Dirichlet) else value == 0
        if self._dtype.kind == "i" and not whole:
            raise InputError(f"boundary {wall}: {condition} does not suit a field of {self._dtype}: take a real dtype")
        if self._dtype.kind != "c" and isinstance(value, complex | np.complexfloating):
            raise InputError(f"boundary {wall}: {condition} is complex, the field is {self._dtype}")

    def __delitem__(self, wall: tuple[int, int]) -> None:
        self[wall] = Neumann(0.0)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._conditions)

    def __len__(self) -> int:
        return len(self._conditions)

    @property
    def standard(self) -> bool:
        """Whether all conditions are Dirichlet or Neumann, of numbers or functions of time."""
        return all(isinstance(condition, Dirichlet | Neumann) for condition in self._conditions.values())

    def set_all(self, condition: Condition) -> None:
        """The same condition on every wall."""
        for wall in self:
            self[wall] = condition

    def _no_such_wall(self, wall: object) -> str:
        walls = ", ".join(map(str, self._conditions)) or "none, all axes are periodic"
        return f"boundary {wall!r}: no such wall; this grid has (axis, side) = {walls}"


def _may_change(condition: Condition) -> bool:
    if isinstance(condition, Dirichlet):
        return callable(condition.value)
    return callable(condition.gradient) if isinstance(condition, Neumann) else True
