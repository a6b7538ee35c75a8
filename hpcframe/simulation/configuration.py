"""Reading sim.toml: the file, the overrides of the command line, and every section checked before anything starts."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hpcframe.errors import InputError, nearest
from hpcframe.simulation.conditions import read_boundary, read_initial
from hpcframe.simulation.conversion import Keys, Override, Source, convert, refuse_not_finite, show
from hpcframe.simulation.schema import (
    AXES,
    CheckpointSection,
    Configuration,
    GridSection,
    MonitorSection,
    OutputSection,
    Section,
    SimulationSection,
    TimeSection,
)
from hpcframe.staging.options import Options

__all__ = ["Configuration", "check_names", "convert_parameters", "load", "nearest"]

S = TypeVar("S", bound=msgspec.Struct)

SIMPLE: dict[str, type[Section]] = {
    "simulation": SimulationSection,
    "grid": GridSection,
    "time": TimeSection,
    "checkpoint": CheckpointSection,
    "output": OutputSection,
    "monitor": MonitorSection,
}
SECTIONS: dict[str, Sequence[str]] = {  # and the keys in them that do not depend on the model
    **{name: section.__struct_fields__ for name, section in SIMPLE.items()},
    "parameters": (),
    "initial": ("state",),
    "boundary": AXES,
    "staging": Options.__struct_fields__,
}
SECRETS = re.compile(r"(?i)(aws_?)?(access_?key|secret|session_?token|token|password|credential|profile).*")
ALTERNATIVES = [
    ("time", "steps", "end_time"),
    ("time", "cfl", "dt"),
    ("output", "every_steps", "every_time"),
    ("checkpoint", "every_steps", "every_seconds", "interval"),
]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Configuration:
    """The simulation that the TOML file at `path` describes.

    overrides: "section.key=value", at any depth. The value is read as TOML, and as a string where it is no TOML. It
    takes the place of what the file says, and of the file's alternative to it (`time.end_time=1` of its `steps`).

    File names in [initial] and [simulation] model are relative to the file's folder; `directory` is to the current
    one. Fields, states and parameters are checked once the model is known: `check_names`, `convert_parameters`.

    Raises InputError, naming the file and the key, for a file that cannot be read, TOML that is none, an unknown
    section or key, a wrong type, or an impossible value. Not collective.
    """
    path = Path(path)
    source = Source(path, tuple(_parse_override(text) for text in overrides))
    table = _read(path)
    for override in source.overrides:
        _drop_alternatives(table, override)
    for override in source.overrides:
        _apply(table, override, source)
    _check_sections(table, source)
    refuse_not_finite(table.get("parameters", {}), ("parameters",), source)
    grid = convert(GridSection, table.get("grid", {}), ("grid",), source)
    dimensions = len(grid.shape)
    return Configuration(
        source=source,
        table=table,
        simulation=_read_simulation(table.get("simulation", {}), source),
        grid=grid,
        parameters=table.get("parameters", {}),
        initial=read_initial(table.get("initial", {}), dimensions, source),
        boundary=read_boundary(table.get("boundary", {}), dimensions, source),
        time=convert(TimeSection, table.get("time", {}), ("time",), source),
        checkpoint=convert(CheckpointSection, table.get("checkpoint", {}), ("checkpoint",), source),
        output=convert(OutputSection, table.get("output", {}), ("output",), source),
        monitor=convert(MonitorSection, table.get("monitor", {}), ("monitor",), source),
        staging=_read_staging(table["staging"], source) if "staging" in table else None,
    )


def convert_parameters(struct_type: type[S], table: dict[str, Any], path: str | Path | Source) -> S:
    """The model's own parameters from the table [parameters].

    struct_type: a msgspec Struct; `Annotated[float, msgspec.Meta(ge=0, description="m2/s")]` bounds a value and
    explains it in an error; a `__post_init__` may raise ValueError. path: of the file, for errors; better the
    `source` of the configuration, which knows the overrides too. Raises InputError. Not collective.
    """
    source = path if isinstance(path, Source) else Source(Path(path))
    return convert(struct_type, table, ("parameters",), source)


def check_names(configuration: Configuration, fields: Sequence[str], states: Sequence[str]) -> None:
    """Raises InputError where [initial], [boundary] or [output] name a field or state that the model does not have.

    fields, states: the names of the model's. Not collective.
    """
    source, initial, boundary = configuration.source, configuration.initial, configuration.boundary
    state = initial.state
    if state and state not in states:
        raise source.error(("initial", "state"), f"the model has no state '{state}'{nearest(state, states)}")
    named: list[tuple[Keys, str]] = [(("initial", name), name) for name in initial.fields]
    named += [(("boundary", name), name) for name in boundary.fields]
    named += [(("output", "fields"), name) for name in configuration.output.fields]
    for keys, name in named:
        if name not in fields:
            raise source.error(keys, f"the model has no field '{name}'{nearest(name, fields)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows may put a byte order mark first
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; write one with `hpcframe new heat > {path}`") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise InputError(
            f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start}); save it as UTF-8"
        ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _syntax_error(path, text, str(problem)) from None


def _syntax_error(path: Path, text: str, message: str) -> InputError:
    """The parser's message, and the line it is about with a caret below the column."""
    hint = '; a text needs quotes, as in model = "heat"' if message.startswith("Invalid value") else ""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if not found:
        return InputError(f"{path}, line {text.count(chr(10)) + 1}: not valid TOML: {message}{hint}")
    what, line, column = found[1], int(found[2]), int(found[3])
    shown = text.replace("\r\n", "\n").split("\n")[line - 1].replace("\t", " ")
    return InputError(
        f"{path}, line {line}, column {column}: not valid TOML: {what}{hint}\n    {shown}\n    {' ' * (column - 1)}^"
    )


def _parse_override(text: str) -> Override:
    name, equals, value = text.partition("=")
    keys = _parse_keys(name)
    if not equals or len(keys) < 2:
        raise InputError(f"--set {text}: expected section.key=value, for example --set time.steps=100")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    # A text with a line break could hold further keys: then it is a string as well.
    return Override(text, keys, parsed["value"] if parsed.keys() == {"value"} else value.strip())


def _parse_keys(name: str) -> tuple[str, ...]:
    """The keys of a dotted TOML name, whose parts may be quoted; none where it is no such name."""
    try:
        table: Any = tomllib.loads(f"{name.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys = []
    while isinstance(table, dict) and len(table) == 1:
        [(key, table)] = table.items()
        keys.append(key)
    return tuple(keys)


def _drop_alternatives(table: dict[str, Any], override: Override) -> None:
    """Takes out of the file's `table` what cannot be given beside the override."""
    section, key, *_ = override.keys
    content = table.get(section)
    if not isinstance(content, dict):
        return
    for owner, *keys in ALTERNATIVES:
        if section == owner and key in keys:
            for other in set(keys) - {key}:
                content.pop(other, None)
    if section == "initial":
        for other in [name for name in content if (name == "state") != (key == "state")]:
            del content[other]


def _apply(table: dict[str, Any], override: Override, source: Source) -> None:
    *parents, last = override.keys
    for depth, key in enumerate(parents, start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            whole = ".".join(parents[:depth])
            raise InputError(
                f"{source.path}: --set {override.text}: {whole} is {show(table)}, not a table; set {whole} as a whole"
            )
    table[last] = override.value


def _check_sections(table: dict[str, Any], source: Source) -> None:
    for name, content in table.items():
        if name not in SECTIONS:
            owners = [section for section, keys in SECTIONS.items() if name in keys]
            if not isinstance(content, dict) and owners:
                raise source.error((), f"'{name}' is in no section; put it below [{owners[0]}]")
            raise source.error((), f"unknown section [{name}]{nearest(name, SECTIONS)}")
        if not isinstance(content, dict):
            raise source.error((), f"[{name}] is a section, but got {name} = {show(content)}")


def _read_staging(table: dict[str, Any], source: Source) -> Options:
    """Who may read this file may not thereby write to S3."""
    for key in table:
        if SECRETS.match(key):
            raise source.error(
                ("staging", key),
                "no credentials are taken from this file; they come from the role of the instances, or from what "
                "`aws configure` or AWS_PROFILE says. Remove this line, and change the key if others could read it",
            )
    return convert(Options, table, ("staging",), source)


def _read_simulation(table: dict[str, Any], source: Source) -> SimulationSection:
    simulation = convert(SimulationSection, table, ("simulation",), source)
    model = simulation.model
    if re.fullmatch(r"[\w-]+", model):
        return simulation
    file, _, name = model.rpartition(":")
    keys = ("simulation", "model")
    if not file.endswith(".py") or not name.isidentifier():
        raise source.error(
            keys, f'expected a shipped model such as "heat", or "path/to/file.py:Class", got {show(model)}'
        )
    path = source.path.absolute().parent / file
    if not path.is_file():
        raise source.error(keys, f"no file {path}; a relative path starts at the folder of {source.path.name}")
    return msgspec.structs.replace(simulation, model=f"{path}:{name}")
