"""From a TOML table to a msgspec Struct, with errors that name the file, the key, what was wrong and what is right."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from hpcframe.errors import InputError, nearest

Keys = tuple[str | int, ...]
S = TypeVar("S", bound=msgspec.Struct)


class InvalidKeyError(ValueError):
    """Raised by the `__post_init__` of a Struct: the value of `key` is impossible beside the others."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Override(msgspec.Struct, frozen=True):
    """One `--set section.key=value`: `text` as typed, and what it means."""

    text: str
    keys: tuple[str, ...]
    value: Any


class Source(msgspec.Struct, frozen=True):
    """Where a table came from, so that an error can say so."""

    path: Path
    overrides: tuple[Override, ...] = ()

    def error(self, keys: Keys, message: str) -> InputError:
        """The error "file: [section] key: message", naming the `--set` that the value came from, if one did."""
        place = f"{_show_keys(keys)}{self._show_override(keys)}: " if keys else ""
        return InputError(f"{self.path}: {place}{message}")

    def _show_override(self, keys: Keys) -> str:
        for override in reversed(self.overrides):
            common = min(len(keys), len(override.keys))
            if len(keys) > 1 and keys[:common] == override.keys[:common]:
                return f" (from --set {override.text})"
        return ""


def convert(struct_type: type[S], table: object, keys: Keys, source: Source) -> S:
    """The Struct that `table`, found at `keys` of `source`, describes. Not collective.

    Raises InputError for an unknown key, a missing one, a wrong type, a value outside the bounds that `msgspec.Meta`
    gives, nan or infinity, and whatever the Struct's `__post_init__` raises ValueError or TypeError for.
    """
    if not isinstance(table, dict):
        raise source.error(keys, f"expected a table, got {show(table)}")
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct_type)}
    for key in table:
        if key not in fields:
            raise source.error((*keys, key), f"unknown key{nearest(key, fields)}")
    for key, field in fields.items():
        if field.required and key not in table:
            raise source.error((*keys, key), f"missing; expected {_expected(field.type)}")
    values = {fields[key].name: convert_value(fields[key].type, table[key], (*keys, key), source) for key in table}
    try:
        return struct_type(**values)
    except InvalidKeyError as problem:
        raise source.error((*keys, problem.key), str(problem)) from None
    except (ValueError, TypeError) as problem:
        raise source.error(keys, str(problem)) from problem


def convert_value(value_type: Any, value: object, keys: Keys, source: Source) -> Any:
    """`value` as a `value_type`; raises InputError as `convert` does. Not collective."""
    if isinstance(value_type, type) and issubclass(value_type, msgspec.Struct):
        return convert(value_type, value, keys, source)
    refuse_not_finite(value, keys, source)
    try:
        return msgspec.convert(value, value_type)
    except msgspec.ValidationError as problem:
        _refuse(value_type, value, keys, source, problem)
    except (TypeError, ValueError) as problem:  # the type itself is one that msgspec cannot check
        raise source.error(
            keys, f"the model declares it as {value_type}, which is not possible: {problem}"
        ) from problem


def refuse_not_finite(value: object, keys: Keys, source: Source) -> None:
    """Raises InputError where a number within `value`, found at `keys` of `source`, is nan or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise source.error(keys, f"expected a finite number, got {value}")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        refuse_not_finite(item, (*keys, key), source)


def show(value: object) -> str:
    """A TOML value as it would be typed, cut to a length that fits an error."""
    if isinstance(value, dict):
        text = "a table" + (f" of {', '.join(value)}" if value else "")
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 70 else f"{text[:67]}..."


def _show_keys(keys: Keys) -> str:
    section, *rest = keys
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in rest)
    return f"[{section}] {path[1:]}" if path else f"[{section}]"


def _refuse(value_type: Any, value: object, keys: Keys, source: Source, problem: Exception) -> NoReturn:
    choices = _choices(inspect.type_info(value_type))
    hint = nearest(value, map(str, choices), or_all=False) if isinstance(value, str) else ""
    raise source.error(keys, f"expected {_expected(value_type)}, got {show(value)}{hint}") from problem


def _expected(value_type: Any) -> str:
    return _describe(inspect.type_info(value_type))


def _describe(info: inspect.Type) -> str:
    """A type in words, for example "an array of at most 3 values, each a whole number >= 1"."""
    match info:
        case inspect.Metadata(type=inner):
            meaning = (info.extra_json_schema or {}).get("description")
            return f"{_describe(inner)} ({meaning})" if meaning else _describe(inner)
        case inspect.UnionType(types=types):
            return " or ".join(_describe(member) for member in types if not isinstance(member, inspect.NoneType))
        case inspect.IntType():
            return f"a whole number{_bounds(info)}"
        case inspect.FloatType():
            return f"a number{_bounds(info)}"
        case inspect.StrType():
            pattern = f" that matches {info.pattern}" if info.pattern else ""
            return f"a string{_length(info, ' of {} characters')}{pattern}"
        case inspect.BoolType():
            return "true or false"
        case inspect.TupleType(item_types=items):
            return f"an array of {len(items)} values: {', '.join(_describe(item) for item in items)}"
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return f"an array of{_length(info, ' {}')} values, each {_describe(item)}"
        case inspect.StructType() | inspect.DictType():
            return "a table"
    choices = _choices(info)
    return f"one of {', '.join(show(choice) for choice in choices)}" if choices else f"a value of {info!r}"


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    limits = [(">=", info.ge), (">", info.gt), ("<=", info.le), ("<", info.lt), ("a multiple of", info.multiple_of)]
    bounds = " and ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)
    return f" {bounds}" if bounds else ""


def _length(info: inspect.StrType | inspect.VarTupleType | inspect.ListType, words: str) -> str:
    """The bounds of a length put into `words`, or nothing where there are none."""
    least, most = info.min_length, info.max_length
    if least and most is not None:
        return words.format(f"{least} to {most}")
    if least:
        return words.format(f"at least {least}")
    return words.format(f"at most {most}") if most is not None else ""


def _choices(info: inspect.Type) -> Sequence[Any]:
    """The strings or numbers that an enumeration, maybe within a union, takes."""
    match info:
        case inspect.Metadata(type=inner):
            return _choices(inner)
        case inspect.UnionType(types=types):
            return [choice for member in types for choice in _choices(member)]
        case inspect.LiteralType(values=values):
            return list(values)
        case inspect.EnumType(cls=enumeration):
            return [member.value for member in enumeration]
    return []
