"""Initial and boundary conditions: the two sections of sim.toml whose keys are the names of fields and axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcframe.errors import InputError, nearest
from hpcframe.simulation.conversion import Keys, Source, convert, convert_value, show
from hpcframe.simulation.expression import Expression
from hpcframe.simulation.schema import AXES, Axis, BoundarySection, Condition, FileArray, InitialSection
from hpcframe.staging.url import Location, is_url

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
KINDS = ("dirichlet", "neumann")
SIDES = ("lower", "upper")
CONDITION = '"neumann", "dirichlet", { neumann = number or expression of t } or { dirichlet = ... }'


def read_initial(table: dict[str, Any], dimensions: int, source: Source) -> InitialSection:
    """[initial]. Raises InputError. Not collective."""
    keys = ("initial",)
    state = convert_value(str, table.get("state", ""), (*keys, "state"), source)
    entries = {name: value for name, value in table.items() if name != "state"}
    if state and entries:
        raise source.error((*keys, "state"), f"{', '.join(entries)} is given too; give a state, or an entry each field")
    axes = AXES[:dimensions]
    return InitialSection(
        state, {name: _read_entry(value, axes, (*keys, name), source) for name, value in entries.items()}
    )


def _read_entry(value: object, axes: Sequence[str], keys: Keys, source: Source) -> float | str | FileArray:
    if isinstance(value, dict):
        return _read_file(value, keys, source)
    return read_value(value, axes, keys, source, "{ file = ..., dataset = ... }")


def _read_file(table: dict[str, Any], keys: Keys, source: Source) -> FileArray:
    array = convert(FileArray, table, keys, source)
    remote = is_url(array.file)
    path = Path(array.file) if remote else Path(source.path).absolute().parent / array.file
    if path.suffix not in SUFFIXES:
        raise source.error(
            (*keys, "file"), f"expected a file that ends in {', '.join(SUFFIXES)}, got {show(array.file)}"
        )
    if path.suffix == ".npy" and array.dataset:
        raise source.error((*keys, "dataset"), "a .npy file has one array and no names; leave this out")
    if remote:
        try:
            Location.parse(array.file)
        except InputError as problem:
            raise source.error((*keys, "file"), str(problem)) from None
        return array
    if not path.is_file():
        raise source.error(
            (*keys, "file"), f"no file {path}; a relative path starts at the folder of {source.path.name}"
        )
    return FileArray(str(path), array.dataset)


def read_value(value: object, variables: Sequence[str], keys: Keys, source: Source, other: str = "") -> float | str:
    """A number, or the text of an expression of `variables` that was found to be one. Raises InputError."""
    if isinstance(value, str):
        try:
            return Expression(value, variables).text
        except InputError as problem:
            raise source.error(keys, str(problem)) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        either = f"a number, an expression of {', '.join(variables)}" + (f", or {other}" if other else "")
        raise source.error(keys, f"expected {either}; got {show(value)}")
    number: float = convert_value(float, value, keys, source)
    return number


def read_boundary(table: dict[str, Any], dimensions: int, source: Source) -> BoundarySection:
    """[boundary], of the whole grid and of single fields. Raises InputError. Not collective."""
    keys = ("boundary",)
    whole = {key: value for key, value in table.items() if key in AXES}
    periodic = tuple(whole.get(axis) == "periodic" for axis in AXES[:dimensions])
    general = _read_axes(whole, periodic, keys, source, own=False)
    fields = {}
    for name, own in table.items():
        if name in AXES:
            continue
        if not isinstance(own, dict):
            hint = nearest(name, AXES[:dimensions])
            raise source.error((*keys, name), f"unknown axis{hint} (or, for a field of that name, a table of axes)")
        fields[name] = _read_axes(own, periodic, (*keys, name), source, own=True)
    return BoundarySection(periodic, general, fields)


def _read_axes(
    table: dict[str, Any], periodic: tuple[bool, ...], keys: Keys, source: Source, own: bool
) -> dict[Axis, Condition]:
    axes = AXES[: len(periodic)]
    conditions = {}
    for key, value in table.items():
        if key not in axes:
            why = (
                f"the grid has no such axis{nearest(key, axes)}" if key in AXES else f"unknown axis{nearest(key, axes)}"
            )
            raise source.error((*keys, key), why)
        axis = axes.index(key)
        if value == "periodic":
            if own and not periodic[axis]:
                raise source.error(
                    (*keys, key), f'an axis is periodic for all fields: set [boundary] {key} = "periodic"'
                )
        elif periodic[axis]:
            raise source.error((*keys, key), f"the axis is periodic, so it has no sides; leave out {key} here")
        else:
            for side, condition in _read_sides(value, (*keys, key), source).items():
                conditions[axis, side] = condition
    return conditions


def _read_sides(value: object, keys: Keys, source: Source) -> dict[int, Condition]:
    """Conditions by side of one axis: a table of sides, or one condition for both."""
    if not isinstance(value, dict) or value.keys() & set(KINDS):
        condition = _read_condition(value, keys, source, f'"periodic", {CONDITION}, or {{ lower = ..., upper = ... }}')
        return {0: condition, 1: condition}
    for key in value:
        if key not in SIDES:
            raise source.error((*keys, key), f"unknown key{nearest(key, (*SIDES, *KINDS))}")
    return {
        SIDES.index(side): _read_condition(condition, (*keys, side), source, CONDITION)
        for side, condition in value.items()
    }


def _read_condition(value: object, keys: Keys, source: Source, expected: str) -> Condition:
    if value == "dirichlet" or value == "neumann":
        return Condition(value)
    if value == "periodic":
        raise source.error(keys, f'both sides of an axis are periodic or neither is: set {keys[-2]} = "periodic"')
    if not isinstance(value, dict):
        hint = nearest(value, (*KINDS, "periodic"), or_all=False) if isinstance(value, str) else ""
        raise source.error(keys, f"expected {expected}; got {show(value)}{hint}")
    for key in value:
        if key not in KINDS:
            raise source.error((*keys, key), f"unknown key{nearest(key, KINDS)}")
    if len(value) != 1:
        raise source.error(keys, f"expected {expected}; got {show(value)}")
    [(kind, number)] = value.items()
    return Condition(kind, read_value(number, ("t",), (*keys, kind), source))
