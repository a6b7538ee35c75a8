"""What a simulation needs to know of a physics: the class that a kernel, or a user's own file, defines."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from hpcframe.errors import InputError, nearest
from hpcframe.grid.boundary import Condition
from hpcframe.grid.field import Field
from hpcframe.stencils.reductions import Grid, Term

STATE_PREFIX = "initial_"


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model's parameters: annotated attributes with defaults, which [parameters] of sim.toml may set."""


class Model:
    """A physics on a grid. Subclasses define what is marked below; a run does the rest.

    Attributes to define:
        Parameters: subclass of `hf.Parameters`.
        fields: names of the fields that have initial values and can be written out; the first is drawn. Each is an
            attribute that holds the newest Field of that name.
        history: names of the attributes that hold other fields which a step, or `diagnostics`, reads: older time
            levels, say. With `fields` they are what a checkpoint holds; what is in neither is lost in a restart.

    Initial states are methods named `initial_<state>(self, *coordinates)` that return values by field; the first is
    the default. The coordinates are open arrays (m), one an axis, that broadcast.
    """

    Parameters: ClassVar[type[Parameters]] = Parameters
    fields: ClassVar[tuple[str, ...]]
    history: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        grid: Grid,
        parameters: Any = None,
        conditions: Callable[[str], Mapping[tuple[int, int], Condition]] = lambda name: {},
    ) -> None:
        """Collective.

        Args:
            grid: the grid to work on.
            parameters: a `Parameters`; its defaults if not given.
            conditions: for a field's name the boundary condition of each wall that does not have zero gradient.
        """
        self.grid = grid
        self.parameters = self.Parameters() if parameters is None else parameters
        self._conditions = conditions
        self.setup()

    def levels(self, name: str, count: int = 2, **options: Any) -> tuple[Field, ...]:
        """Fields for `count` time levels of one quantity, with its boundary conditions. Logically collective."""
        fields = self.grid.fields(*[name] * count, **options)
        conditions = self._conditions(name)
        for field in fields:
            field.boundary = conditions
        return fields

    @property
    def state(self) -> dict[str, Field]:
        """The newest field of each name. Not collective."""
        return {name: getattr(self, name) for name in self.fields}

    @property
    def checkpointed(self) -> dict[str, Field]:
        """All fields that a restart needs. Not collective."""
        return self.state | {name: getattr(self, name) for name in self.history}

    # -- to define ----------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the fields (see `levels`). Collective."""
        raise NotImplementedError(f"{type(self).__name__}.setup")

    def stable_dt(self) -> float:
        """The largest stable time step (s), once initial values are set. Collective; the same on every rank."""
        raise NotImplementedError(f"{type(self).__name__}.stable_dt")

    def prepare(self, dt: float) -> None:
        """Prepare for steps of dt (s), once the fields have initial or restored values. Collective. By default
        nothing."""

    def start(self, dt: float) -> None:
        """Make what the first step of a new run needs, such as older time levels. Collective; after `prepare`, and
        not in a restart. By default nothing."""

    def numbers(self) -> dict[str, Any]:
        """What a restart needs besides fields: numbers, texts, arrays, as a random generator's state. Not
        collective; those of rank 0 count. By default nothing."""
        return {}

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """Take back what `numbers` gave, in a restart, after `prepare`. Logically collective."""

    def advance(self, steps: int, dt: float) -> None:
        """Do some steps of dt (s) each; advance `grid.time`. Collective."""
        raise NotImplementedError(f"{type(self).__name__}.advance")

    def diagnostics(self) -> dict[str, Term | tuple[Any, ...]]:
        """Reductions by name, a column each of diagnostics.csv; as for `grid.reduce`. Not collective."""
        return {}

    def bytes_a_point(self) -> int:
        """Bytes that a step must move for each point: by default each state field is read and written once."""
        return 2 * sum(field.dtype.itemsize * math.prod(field.components) for field in self.state.values())

    # -- what is derived ----------------------------------------------------------------------------------------

    @classmethod
    def states(cls) -> tuple[str, ...]:
        """Names of the initial states, the default one first."""
        names = [name for base in cls.__mro__ for name in vars(base) if name.startswith(STATE_PREFIX)]
        return tuple(name.removeprefix(STATE_PREFIX) for name in dict.fromkeys(names))


def shipped_models() -> list[str]:
    """Names of the kernels that come with hpcframe. Not collective."""
    return sorted(name for _, name, _ in pkgutil.iter_modules(importlib.import_module("hpcframe.kernels").__path__))


def find_model(name: str) -> type[Model]:
    """The class that `[simulation] model` names. Not collective.

    Args:
        name: a shipped kernel ("heat"), or "path/to/file.py:Class".

    Raises:
        InputError: no such kernel, file or class, or the class is not a Model; also what the file itself raises.
    """
    if ":" in name:
        file, _, class_name = name.rpartition(":")
        module = _module_from(Path(file))
    else:
        module, class_name = _shipped(name), ""
    models = {key: value for key, value in vars(module).items() if _is_model(value, module)}
    if not class_name and len(models) == 1:
        return next(iter(models.values()))
    if class_name not in models:
        raise InputError(
            f"[simulation] model: {name!r} has no hf.Model named {class_name!r}{nearest(class_name, models)}"
        )
    return models[class_name]


def _is_model(value: object, module: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Model) and value.__module__ == module.__name__


def _shipped(name: str) -> Any:
    if name not in shipped_models():
        raise InputError(
            f"[simulation] model: no shipped model '{name}'{nearest(name, shipped_models())}"
            f'\n  Your own is named as "path/to/file.py:Class".'
        )
    return importlib.import_module(f"hpcframe.kernels.{name}")


def _module_from(file: Path) -> Any:
    if not file.is_file():
        raise InputError(f"[simulation] model: there is no file {file}; give its path, or the name of a shipped model")
    specification = importlib.util.spec_from_file_location(f"hpcframe_model_{file.stem}", file)
    if specification is None or specification.loader is None:
        raise InputError(f"[simulation] model: {file} is not a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    beside = str(file.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # last, so that a file there hides no library
    try:
        specification.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"[simulation] model: {file} cannot be imported: {type(error).__name__}: {error}") from error
    return module
