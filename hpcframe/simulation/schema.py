"""What sim.toml may say: its sections, their keys, types, units and defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hpcframe.simulation.conversion import InvalidKeyError, Source
from hpcframe.staging.options import Options

AXES = ("x", "y", "z")

Count = Annotated[int, Meta(ge=0)]
Model = Annotated[str, Meta(description='a shipped model such as "heat", or "path/to/file.py:Class"')]
Shape = Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1, max_length=3)]
Axis = tuple[int, int]  # (axis, side): side 0 is the lower, 1 the upper


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of sim.toml."""


class SimulationSection(Section, frozen=True):
    """[simulation]: what is simulated, and where its results go."""

    model: Model  # a path in it is absolute once loaded
    directory: str = ""  # relative to the current folder; loaded as runs/<the model's name> where it was not given

    def __post_init__(self) -> None:
        if not self.directory:
            msgspec.structs.force_setattr(self, "directory", f"runs/{self.name}")

    @property
    def name(self) -> str:
        """The model's name: "heat" of "heat", "glacier" of "models/glacier.py:Glacier"."""
        return Path(self.model.rpartition(":")[0]).stem if ":" in self.model else self.model


class GridSection(Section, frozen=True):
    """[grid]: a box of cells. An empty extent, origin or ranks is the same as none."""

    shape: Shape = (64, 64)  # cells an axis
    extent: tuple[Annotated[float, Meta(gt=0)], ...] = ()  # m; 1.0 an axis
    origin: tuple[float, ...] = ()  # m, the lower corner of the box; 0.0 an axis
    ranks: tuple[Count, ...] = ()  # ranks an axis; 0 is chosen

    def __post_init__(self) -> None:
        for key, default in (("extent", 1.0), ("origin", 0.0), ("ranks", 0)):
            values = getattr(self, key) or (default,) * len(self.shape)
            if len(values) != len(self.shape):
                raise InvalidKeyError(
                    key, f"expected {len(self.shape)} values, one an axis of shape, got {len(values)}"
                )
            msgspec.structs.force_setattr(self, key, values)


class FileArray(Section, frozen=True):
    """An array in a file: .npy, or the named one of a .npz or HDF5 file (without a name, the only one in it)."""

    file: str  # relative to the folder of sim.toml, absolute once loaded; or s3://bucket/name
    dataset: str = ""


class InitialSection(Section, frozen=True):
    """[initial]: a state that the model names, or an entry for each field."""

    state: str = ""  # "" is the model's first
    fields: dict[str, float | str | FileArray] = {}  # a number, the text of an expression of x, y, z, or a file


class Condition(Section, frozen=True):
    """What holds at one side: the field's value (dirichlet) or its gradient (neumann)."""

    kind: Literal["dirichlet", "neumann"]
    value: float | str = 0.0  # a number, or the text of an expression of t (s)


class BoundarySection(Section, frozen=True):
    """[boundary]: which axes are periodic, and what holds at the sides of the others."""

    periodic: tuple[bool, ...]
    general: dict[Axis, Condition] = {}
    fields: dict[str, dict[Axis, Condition]] = {}

    def conditions(self, field: str) -> dict[Axis, Condition]:
        """By (axis, side), for every side of an axis that is not periodic: the field's own, or the general one, or
        zero gradient."""
        own = self.fields.get(field, {})
        sides = [(axis, side) for axis, periodic in enumerate(self.periodic) if not periodic for side in (0, 1)]
        return {side: own.get(side, self.general.get(side, Condition("neumann"))) for side in sides}


class TimeSection(Section, frozen=True):
    """[time]: how far, and in which steps. Of steps and end_time one is None, and so it is of cfl and dt."""

    steps: Count | None = None  # 100 without an end_time
    end_time: Annotated[float, Meta(ge=0)] | None = None  # s
    cfl: Annotated[float, Meta(gt=0, le=1)] | None = None  # share of the model's largest stable dt; 0.9 without a dt
    dt: Annotated[float, Meta(gt=0)] | None = None  # s
    blocking: bool = True  # several steps in one pass over memory, where that pays: the same bits

    def __post_init__(self) -> None:
        for key, default, other in (("steps", 100, "end_time"), ("cfl", 0.9, "dt")):
            given, other_given = getattr(self, key) is not None, getattr(self, other) is not None
            if given and other_given:
                raise InvalidKeyError(other, f"{key} is given too; give one of the two")
            if not given and not other_given:
                msgspec.structs.force_setattr(self, key, default)


class OutputSection(Section, frozen=True):
    """[output]: what is written, and when; neither every_steps nor every_time: only at the end."""

    every_steps: Count = 0
    every_time: Annotated[float, Meta(ge=0)] = 0.0  # s
    fields: tuple[str, ...] = ()  # () is all of the model's
    picture: bool = True  # a PNG at the end

    def __post_init__(self) -> None:
        if self.every_steps and self.every_time:
            raise InvalidKeyError("every_time", "every_steps is given too; give one of the two")
        for name in self.fields:
            if self.fields.count(name) > 1:
                raise InvalidKeyError("fields", f"'{name}' is there twice; name it once")


class CheckpointSection(Section, frozen=True):
    """[checkpoint]: when the state is kept, and how. Without a when: only if the run is interrupted."""

    every_steps: Count = 0
    every_seconds: Annotated[float, Meta(ge=0)] = 0.0  # s of wall-clock time
    interval: Literal["", "auto"] = ""  # "auto": from what a checkpoint costs and how often runs are interrupted
    mean_hours: Annotated[float, Meta(ge=0)] = 0.0  # between interruptions, for "auto"; 0: learnt
    keep: Annotated[int, Meta(ge=1)] = 3  # the latest
    keep_every: Count = 0  # and those whose step is a multiple of this
    pinned: tuple[Count, ...] = ()  # and these steps
    driver: Literal["auto", "direct", "mpio"] = "auto"
    asynchronous: bool = False  # write behind the simulation: needs memory for a second copy of the state
    files: Annotated[int, Meta(ge=1)] = 1  # HDF5 data files of a checkpoint
    stripe_count: Annotated[int, Meta(ge=-1)] = 0  # on Lustre; 0 is chosen, -1 all storage targets
    stripe_size: Count = 0  # bytes, on Lustre; 0 is 16 MiB
    hints: dict[str, str] = {}  # for MPI-IO, with the driver "mpio"
    collective: bool = False  # with the driver "mpio"

    def __post_init__(self) -> None:
        given = [key for key in ("every_steps", "every_seconds", "interval") if getattr(self, key)]
        if len(given) > 1:
            raise InvalidKeyError(given[1], f"{given[0]} is given too; give one of the two")
        if self.mean_hours and not self.interval:
            raise InvalidKeyError("mean_hours", 'only interval = "auto" uses it; set that, or leave this out')
        if self.driver == "mpio" and self.asynchronous:
            raise InvalidKeyError("asynchronous", 'the driver mpio cannot; choose driver = "direct"')

    @property
    def periodic(self) -> bool:
        """Whether there are checkpoints without an interruption."""
        return bool(self.every_steps or self.every_seconds or self.interval)


class MonitorSection(Section, frozen=True):
    """[monitor]: the rows of diagnostics.csv, and the limits of a run."""

    every_steps: Count = 0  # 0 is about 100 rows a run
    stall_seconds: Annotated[float, Meta(ge=0)] = 1800.0  # s without progress until the run is ended; 0: never
    time_limit: Annotated[float, Meta(ge=0)] = 0.0  # s from the start, to stop in time; 0: that of the Slurm job


class Configuration(msgspec.Struct, frozen=True):
    """A sim.toml that was read, completed with defaults and found possible."""

    source: Source  # where it came from, for errors
    table: dict[str, Any]  # as written, with the overrides in it
    simulation: SimulationSection
    grid: GridSection
    parameters: dict[str, Any]  # for `convert_parameters`
    initial: InitialSection
    boundary: BoundarySection
    time: TimeSection
    checkpoint: CheckpointSection
    output: OutputSection
    monitor: MonitorSection
    staging: Options | None = None
