"""The text of the function that walks a table of pieces: computes one, then mirrors it beyond the walls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from hpcframe.stencils.point import PointFunction

Levels = Sequence[Sequence[str]]  # names of parameters, the level that is written to first


def driver_source(point: PointFunction, levels: Levels) -> str:
    """A function `_steps` of (fields..., numbers, steps, turns, regions, bands, done, member, members, walls...).

    Args:
        point: its compiled loop is called `_loop`, that which mirrors `_mirror`; see `pipeline` for the others.
        levels: after a step each level of parameters holds the fields of the one before, as in `iterate`.

    The function's arguments: scalars of each step; for each piece its step, its turn and its region; where the pieces
    of each band begin; turns that each band has done; which thread this is, of how many; for each field written its
    ghosts: ends, table, signs, shifts, slopes.
    """
    written = levels[0]
    walls = [f"_{part}{k}" for k in range(len(written)) for part in ("ends", "table", "signs", "shifts", "slopes")]
    own = ["_numbers", "_step_of", "_turn_of", "_regions", "_bands", "_done", "_member", "_members"]
    lines = [
        f"def _steps({', '.join([*point.fields, *own, *walls])}):",
        "    for _band in range(_member, _bands.shape[0] - 1, _members):",
        "        _ahead = 0",
        "        for _piece in range(_bands[_band], _bands[_band + 1]):",
        "            if _members > 1:",
        "                _publish(_done, _band, _turn_of[_piece])",
        "                if _band > 0 and _ahead <= _turn_of[_piece]:",
        "                    _ahead = _wait_for(_done, _band - 1, _turn_of[_piece])",
        "            _step = _step_of[_piece]",
        "            _region = _regions[_piece : _piece + 1]",
        *(f"            {line}" for turn in range(len(levels)) for line in _piece(point, levels, turn)),
        "        _publish(_done, _band, _all)",
    ]
    return "\n".join(lines) + "\n"


def driver_signature(kinds: Mapping[str, str], levels: Levels, real: str) -> str:
    """Its signature for numba: `kinds` are the element types of the fields, `real` that of scalars."""
    arrays = [f"{kind}[::1]" for kind in kinds.values()]
    tables = [f"{real}[:, ::1]", "int64[::1]", "int64[::1]", "int64[:, ::1]", "int64[::1]", "int64[::1]"]
    ghosts = [("int64[::1]", "int64[:, ::1]", *[f"{kinds[name]}[::1]"] * 3) for name in levels[0]]
    return f"void({', '.join([*arrays, *tables, 'int64', 'int64', *chain(*ghosts)])})"


def _piece(point: PointFunction, levels: Levels, turn: int) -> list[str]:
    """What is done for a piece of a step in which the levels have turned that often.

    The fields of level k are then those that were of level k - turn at first.
    """
    names = {
        name: levels[(row - turn) % len(levels)][k] for row, level in enumerate(levels) for k, name in enumerate(level)
    }
    fields = [names.get(name, name) for name in point.fields]
    scalars = [f"_numbers[_step, {k}]" for k in range(len(point.scalars))]
    lines = [
        f"{'el' * (turn > 0)}if _step % {len(levels)} == {turn}:",
        f"    _loop({', '.join([*fields, *scalars, '_region'])})",
    ]
    for k, name in enumerate(levels[0]):
        parts = ", ".join(f"_{part}{k}" for part in ("table", "signs", "shifts", "slopes"))
        lines.append(f"    _mirror({names[name]}, {parts}, _ends{k}[_piece], _ends{k}[_piece + 1])")
    return lines
