"""sim.toml: what it means, and that whatever is wrong with it is refused with the place and the remedy."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import pytest

from hpcframe.errors import HpcframeError, InputError, RemoteError
from hpcframe.simulation.configuration import Configuration, check_names, convert_parameters, load, nearest
from hpcframe.simulation.schema import Condition, FileArray

HEAT = '[simulation]\nmodel = "heat"\n'
NEUMANN = Condition("neumann", 0.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(folder: Path):
    """Loads a sim.toml of the given text, below the section [simulation] of the heat model."""

    def read(text: str = "", *overrides: str, head: str = HEAT) -> Configuration:
        (folder / "sim.toml").write_text(head + text, encoding="utf-8")
        return load("sim.toml", overrides)

    return read


@pytest.fixture
def refused(read):
    """The message with which such a text is refused."""

    def refused(text: str, *overrides: str, head: str = HEAT) -> str:
        with pytest.raises(InputError) as caught:
            read(text, *overrides, head=head)
        return str(caught.value)

    return refused


# What a file means


def test_only_the_model_is_needed(read) -> None:
    configuration = read()
    assert (configuration.simulation.model, configuration.simulation.directory) == ("heat", "runs/heat")
    grid = configuration.grid
    assert (grid.shape, grid.extent, grid.origin, grid.ranks) == ((64, 64), (1.0, 1.0), (0.0, 0.0), (0, 0))
    assert configuration.parameters == {}
    assert (configuration.initial.state, configuration.initial.fields) == ("", {})
    assert configuration.boundary.periodic == (False, False)
    assert configuration.boundary.conditions("u") == dict.fromkeys([(0, 0), (0, 1), (1, 0), (1, 1)], NEUMANN)
    time = configuration.time
    assert (time.steps, time.end_time, time.cfl, time.dt) == (100, None, 0.9, None)
    output = configuration.output
    assert (output.every_steps, output.every_time, output.fields, output.picture) == (0, 0.0, (), True)
    assert configuration.monitor.every_steps == 0


def test_a_whole_file(read) -> None:
    configuration = read(
        """
        directory = "results"
        [grid]
        shape = [256, 128, 32]
        extent = [2, 1.0, 0.5]
        origin = [-1.0, 0, 0]
        ranks = [0, 2, 1]
        [parameters]
        diffusivity = 1.0e-4
        [initial]
        state = "gaussian"
        [time]
        end_time = 3
        dt = 0.5
        [output]
        every_time = 1.5
        fields = ["u"]
        picture = false
        [monitor]
        every_steps = 10
        """
    )
    grid = configuration.grid
    assert (grid.shape, grid.extent) == ((256, 128, 32), (2.0, 1.0, 0.5))
    assert (grid.origin, grid.ranks) == ((-1.0, 0.0, 0.0), (0, 2, 1))
    assert configuration.simulation.directory == "results"
    assert configuration.parameters == {"diffusivity": 1.0e-4}
    assert configuration.initial.state == "gaussian"
    time = configuration.time
    assert (time.steps, time.end_time, time.cfl, time.dt) == (None, 3.0, None, 0.5)
    output = configuration.output
    assert (output.every_steps, output.every_time, output.fields, output.picture) == (0, 1.5, ("u",), False)
    assert configuration.monitor.every_steps == 10


def test_defaults_follow_the_shape(read) -> None:
    grid = read("[grid]\nshape = [8]").grid
    assert (grid.extent, grid.origin, grid.ranks) == ((1.0,), (0.0,), (0,))


def test_initial_fields(read, folder: Path) -> None:
    np.save(folder / "dem.npy", np.zeros((2, 2)))
    np.savez(folder / "dem.npz", elevation=np.zeros((2, 2)))
    fields = read(
        """
        [initial]
        a = 3
        b = "exp(-x**2) * y"
        c = { file = "dem.npy" }
        d = { file = "dem.npz", dataset = "elevation" }
        """
    ).initial.fields
    assert fields["a"] == 3.0
    assert fields["b"] == "exp(-x**2) * y"
    assert fields["c"] == FileArray(str(folder / "dem.npy"))
    assert fields["d"] == FileArray(str(folder / "dem.npz"), "elevation")


def test_boundaries_by_side_and_by_field(read) -> None:
    boundary = read(
        """
        [grid]
        shape = [8, 8, 8]
        [boundary]
        x = "periodic"
        y = { lower = { dirichlet = 1 }, upper = { neumann = "sin(2*pi*t)" } }
        z = "dirichlet"
        [boundary.v]
        x = "periodic"
        y = { upper = "dirichlet" }
        z = { neumann = 2.0 }
        """
    ).boundary
    assert boundary.periodic == (True, False, False)
    assert boundary.conditions("u") == {
        (1, 0): Condition("dirichlet", 1.0),
        (1, 1): Condition("neumann", "sin(2*pi*t)"),
        (2, 0): Condition("dirichlet", 0.0),
        (2, 1): Condition("dirichlet", 0.0),
    }
    assert boundary.conditions("v") == {
        (1, 0): Condition("dirichlet", 1.0),
        (1, 1): Condition("dirichlet", 0.0),
        (2, 0): Condition("neumann", 2.0),
        (2, 1): Condition("neumann", 2.0),
    }


def test_a_side_that_is_not_named_has_zero_gradient(read) -> None:
    boundary = read("[boundary]\nx = { lower = 'dirichlet' }").boundary
    assert boundary.conditions("u")[0, 1] == NEUMANN


def test_paths_start_at_the_folder_of_the_file_but_results_at_the_current_one(folder: Path) -> None:
    case = folder / "case"
    (case / "models").mkdir(parents=True)
    (case / "models" / "glacier.py").touch()
    np.save(case / "bed.npy", np.zeros(3))
    (case / "sim.toml").write_text(
        '[simulation]\nmodel = "models/glacier.py:Glacier"\n[initial]\nbed = { file = "bed.npy" }\n'
    )
    configuration = load("case/sim.toml")
    assert configuration.simulation.model == f"{case / 'models' / 'glacier.py'}:Glacier"
    assert configuration.simulation.directory == "runs/glacier"
    assert configuration.initial.fields["bed"] == FileArray(str(case / "bed.npy"))


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Path) -> None:
    (folder / "sim.toml").write_bytes(b'\xef\xbb\xbf[simulation]\r\nmodel = "heat"\r\n')
    assert load("sim.toml").simulation.model == "heat"


# --set


def test_overrides_of_any_depth_and_type(read) -> None:
    configuration = read(
        "[grid]\nshape = [8, 8]\n[boundary]\nx = { lower = { dirichlet = 1 } }",
        "grid.shape=[16, 32]",
        "simulation.directory=runs/a b=c",
        "boundary.x.lower.dirichlet=t**2",
        'boundary."my field".y = "dirichlet"',
        "boundary.y=periodic",
        'boundary."my field".y=periodic',
        "output.picture=false",
        "parameters.deep.er=1e-3",
    )
    assert configuration.grid.shape == (16, 32)
    assert configuration.simulation.directory == "runs/a b=c"
    assert configuration.boundary.periodic == (False, True)
    assert configuration.boundary.conditions("u")[0, 0] == Condition("dirichlet", "t**2")
    assert configuration.output.picture is False
    assert configuration.parameters == {"deep": {"er": 1e-3}}
    assert configuration.table["grid"]["shape"] == [16, 32]


def test_the_last_override_counts(read) -> None:
    assert read("", "time.steps=1", "time.steps=2").time.steps == 2


def test_an_override_replaces_the_alternative_in_the_file(read) -> None:
    time = read("[time]\nsteps = 5\ncfl = 0.5", "time.end_time=2", "time.dt=0.1").time
    assert (time.steps, time.end_time, time.cfl, time.dt) == (None, 2.0, None, 0.1)
    initial = read('[initial]\nstate = "gaussian"', "initial.u=x", "initial.v=1").initial
    assert (initial.state, initial.fields) == ("", {"u": "x", "v": 1.0})
    assert read("[initial]\nu = 1", "initial.state=gaussian").initial.fields == {}


def test_a_value_cannot_smuggle_in_a_second_key(read) -> None:
    assert read("", "simulation.directory=1\nmodel = 2").simulation.directory == "1\nmodel = 2"


@pytest.mark.parametrize("text", ["time.steps", "steps=3", "=3", "", "time..steps=3", "time steps=3"])
def test_an_override_that_is_none(refused, text: str) -> None:
    assert refused("", text) == f"--set {text}: expected section.key=value, for example --set time.steps=100"


def test_errors_name_the_override_at_fault(refused) -> None:
    assert refused("[time]\nsteps = 3", "time.steps=-3") == (
        "sim.toml: [time] steps (from --set time.steps=-3): expected a whole number >= 0, got -3"
    )
    assert "(from" not in refused("[time]\nsteps = -3", "time.dt=1")
    assert "[time] end_time (from --set time.end_time=1): steps is given too" in refused(
        "", "time.steps=1", "time.end_time=1"
    )


def test_an_override_below_a_value(refused) -> None:
    assert refused('[boundary]\nx = "periodic"', "boundary.x.lower.dirichlet=0") == (
        'sim.toml: --set boundary.x.lower.dirichlet=0: boundary.x is "periodic", not a table; set boundary.x as a whole'
    )


# Refused: the file


def test_a_missing_file(folder: Path) -> None:
    with pytest.raises(InputError, match=r"case.toml: no such file; write one with `hpcframe new heat > case.toml`"):
        load("case.toml")


def test_a_folder_and_a_binary_file(folder: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        load(folder)
    (folder / "sim.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"sim.toml: not UTF-8 text"):
        load("sim.toml")


def test_a_syntax_error_is_pointed_at(refused) -> None:
    assert refused("", head="[simulation]\nmodel = heat\n") == (
        'sim.toml, line 2, column 9: not valid TOML: Invalid value; a text needs quotes, as in model = "heat"\n'
        "    model = heat\n"
        "            ^"
    )
    assert refused("[grid\n").startswith("sim.toml, line 3, column 6: not valid TOML: ")
    assert refused("[grid]\nshape = [1,\n").startswith("sim.toml, line 5: not valid TOML: ")


# Refused: names


def test_misspelt_names(refused) -> None:
    assert refused("[gird]") == "sim.toml: unknown section [gird]; did you mean 'grid'?"
    assert refused("[grid]\nshpae = [3]") == "sim.toml: [grid] shpae: unknown key; did you mean 'shape'?"
    assert refused("[time]\nSTEPS = 3").endswith("did you mean 'steps'?")
    assert refused("[monitor]\ncolour = 3") == (
        "sim.toml: [monitor] colour: unknown key; expected one of: every_steps, stall_seconds, time_limit"
    )
    assert refused("[boundary]\nx = 'periodc'").endswith("did you mean 'periodic'?")
    assert refused("[boundary]\nx = { lwer = 'neumann' }") == (
        "sim.toml: [boundary] x.lwer: unknown key; did you mean 'lower'?"
    )
    assert refused("[boundary]\nx = { lower = { dirichelt = 1 } }") == (
        "sim.toml: [boundary] x.lower.dirichelt: unknown key; did you mean 'dirichlet'?"
    )
    assert (
        refused("[initial]\nu = { fiel = 'a.npy' }") == "sim.toml: [initial] u.fiel: unknown key; did you mean 'file'?"
    )


def test_a_key_outside_its_section(refused) -> None:
    assert refused("", head='model = "heat"') == "sim.toml: 'model' is in no section; put it below [simulation]"
    assert refused("", head="shape = [3]\n" + HEAT) == "sim.toml: 'shape' is in no section; put it below [grid]"
    assert refused("", head="grid = 3\n" + HEAT) == "sim.toml: [grid] is a section, but got grid = 3"


def test_when_checkpoints_are_made_is_said_once(refused) -> None:
    assert "every_steps is given too" in refused("[checkpoint]\nevery_steps = 100\nevery_seconds = 5.0")
    assert "every_steps is given too" in refused('[checkpoint]\nevery_steps = 100\ninterval = "auto"')
    assert "only interval" in refused("[checkpoint]\nmean_hours = 5.0")
    assert "the driver mpio cannot" in refused('[checkpoint]\ndriver = "mpio"\nasynchronous = true')
    assert "did you mean 'keep'?" in refused("[checkpoint]\nkep = 2")


def test_no_model(refused) -> None:
    assert refused("", head="[grid]\nshape = [3]") == (
        "sim.toml: [simulation] model: missing; expected a string "
        '(a shipped model such as "heat", or "path/to/file.py:Class")'
    )


@pytest.mark.parametrize("model", ["models/heat.py", "heat:Heat", "models/heat.py:", "models/heat.py:a b", ""])
def test_a_model_that_is_neither_a_name_nor_a_class_in_a_file(refused, model: str) -> None:
    message = refused("", head=f'[simulation]\nmodel = "{model}"')
    assert message.startswith('sim.toml: [simulation] model: expected a shipped model such as "heat", or')


def test_files_that_are_not_there(refused, folder: Path) -> None:
    (folder / "data.npy").touch()
    assert f"[simulation] model: no file {folder / 'glacier.py'}; a relative path starts at" in refused(
        "", head='[simulation]\nmodel = "glacier.py:Glacier"'
    )
    assert f"[initial] u.file: no file {folder / 'bed.h5'};" in refused("[initial]\nu = { file = 'bed.h5' }")
    assert "[initial] u.file: expected a file that ends in .npy, " in refused("[initial]\nu = { file = 'bed.tif' }")
    assert "[initial] u.file: missing; expected a string" in refused("[initial]\nu = { dataset = 'a' }")
    assert "[initial] u.dataset: a .npy file has one array" in refused(
        "[initial]\nu = { file = 'data.npy', dataset = 'a' }"
    )


# Refused: values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nshape = 64", "[grid] shape: expected an array of 1 to 3 values, each a whole number >= 1, got 64"),
        ("[grid]\nshape = []", "[grid] shape: expected an array of 1 to 3 values, each a whole number >= 1, got []"),
        ("[grid]\nshape = [4, 0]", "each a whole number >= 1, got [4, 0]"),
        ("[grid]\nshape = [4.0]", "each a whole number >= 1, got [4.0]"),
        ("[grid]\nshape = [true]", "each a whole number >= 1, got [true]"),
        ("[grid]\nshape = ['4']", 'each a whole number >= 1, got ["4"]'),
        ("[grid]\nshape = [4, 4, 4, 4]", "array of 1 to 3 values"),
        ("[grid]\nextent = [1.0]", "[grid] extent: expected 2 values, one an axis of shape, got 1"),
        ("[grid]\norigin = [1, 2, 3]", "[grid] origin: expected 2 values, one an axis of shape, got 3"),
        ("[grid]\nranks = [1]", "[grid] ranks: expected 2 values"),
        (
            "[grid]\nextent = [1.0, 0.0]",
            "[grid] extent: expected an array of values, each a number > 0, got [1.0, 0.0]",
        ),
        ("[grid]\nextent = [1.0, -1]", "each a number > 0"),
        ("[grid]\nextent = [1.0, inf]", "[grid] extent[1]: expected a finite number, got inf"),
        ("[grid]\norigin = [nan, 0]", "[grid] origin[0]: expected a finite number"),
        ("[grid]\nranks = [0, -1]", "each a whole number >= 0, got [0, -1]"),
        ("[time]\nsteps = 3\nend_time = 1", "[time] end_time: steps is given too; give one of the two"),
        ("[time]\ncfl = 0.3\ndt = 1", "[time] dt: cfl is given too; give one of the two"),
        ("[time]\nsteps = -1", "[time] steps: expected a whole number >= 0, got -1"),
        ("[time]\nend_time = -1", "[time] end_time: expected a number >= 0, got -1"),
        ("[time]\nend_time = inf", "[time] end_time: expected a finite number"),
        ("[time]\ndt = 0", "[time] dt: expected a number > 0, got 0"),
        ("[time]\ncfl = 0", "[time] cfl: expected a number > 0 and <= 1, got 0"),
        ("[time]\ncfl = 1.1", "[time] cfl: expected a number > 0 and <= 1, got 1.1"),
        ("[time]\nsteps = 1e3", "[time] steps: expected a whole number >= 0, got 1000.0"),
        ("[output]\nevery_steps = 3\nevery_time = 1", "[output] every_time: every_steps is given too"),
        ("[output]\nevery_time = -1", "[output] every_time: expected a number >= 0, got -1"),
        ("[output]\nfields = 'u'", '[output] fields: expected an array of values, each a string, got "u"'),
        ("[output]\nfields = ['u', 'u']", "[output] fields: 'u' is there twice"),
        ("[output]\npicture = 1", "[output] picture: expected true or false, got 1"),
        ("[monitor]\nevery_steps = -1", "[monitor] every_steps: expected a whole number >= 0, got -1"),
        ("[parameters]\na = [1, nan]", "[parameters] a[1]: expected a finite number"),
        ("[initial]\nstate = 3", "[initial] state: expected a string, got 3"),
        ("[initial]\nstate = 'a'\nu = 3", "[initial] state: u is given too; give a state, or an entry each field"),
        (
            "[initial]\nu = true",
            "[initial] u: expected a number, an expression of x, y, or { file = ..., dataset = ... }",
        ),
        ("[initial]\nu = nan", "[initial] u: expected a finite number"),
        ("[initial]\nu = 'z + x'", "[initial] u: unknown name 'z' (column 1)\n    z + x\n    ^\n"),
        ("[boundary]\nz = 'neumann'", "[boundary] z: the grid has no such axis; expected one of: x, y"),
        ("[boundary]\nw = 'neumann'", "[boundary] w: unknown axis; expected one of: x, y"),
        ("[boundary.u]\nw = 'neumann'", "[boundary] u.w: unknown axis; expected one of: x, y"),
        ("[boundary]\nx = 0", '[boundary] x: expected "periodic", "neumann", "dirichlet", { neumann = '),
        (
            "[boundary]\nx = { lower = 'periodic' }",
            'x.lower: both sides of an axis are periodic or neither is: set x = "',
        ),
        ("[boundary]\nx = { lower = 3 }", '[boundary] x.lower: expected "neumann", "dirichlet", { neumann = '),
        ("[boundary]\nx = { lower = {} }", "[boundary] x.lower: expected"),
        ("[boundary]\nx = { lower = { dirichlet = 1, neumann = 1 } }", "got a table of dirichlet, neumann"),
        ("[boundary]\nx = { lower = { dirichlet = inf } }", "[boundary] x.lower.dirichlet: expected a finite number"),
        ("[boundary]\nx = { lower = { dirichlet = 'x' } }", "[boundary] x.lower.dirichlet: unknown name 'x'"),
        ("[boundary]\nx = { lower = { dirichlet = [1] } }", "expected a number, an expression of t; got [1]"),
        ("[boundary.u]\nx = 'periodic'", 'u.x: an axis is periodic for all fields: set [boundary] x = "periodic"'),
        ("[boundary]\nx = 'periodic'\nu = { x = 'neumann' }", "u.x: the axis is periodic, so it has no sides"),
    ],
)
def test_impossible_values(refused, text: str, message: str) -> None:
    assert message in refused(text)
    assert refused(text).startswith("sim.toml: [")


# The model's own names and parameters


class Parameters(msgspec.Struct):
    diffusivity: Annotated[float, msgspec.Meta(gt=0, description="m2/s")]
    scheme: Literal["explicit", "implicit"] = "explicit"
    sources: list[tuple[float, float]] = []
    rate: float | None = None
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=3, pattern="^[a-z]*$")] = "m"
    steps: Annotated[int, msgspec.Meta(ge=1048577)] = 1048577

    def __post_init__(self) -> None:
        if self.scheme == "implicit" and self.rate is None:
            raise ValueError("the implicit scheme needs a rate")


def test_parameters_of_a_model() -> None:
    table = {"diffusivity": 2, "scheme": "implicit", "sources": [[1, 2.5]], "rate": 0.5}
    parameters = convert_parameters(Parameters, table, "sim.toml")
    assert parameters == Parameters(2.0, "implicit", [(1.0, 2.5)], 0.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "diffusivity: missing; expected a number > 0 (m2/s)"),
        ({"diffusivity": -1}, "diffusivity: expected a number > 0 (m2/s), got -1"),
        ({"diffusivity": float("nan")}, "diffusivity: expected a finite number, got nan"),
        ({"diffusivity": 10**400}, "diffusivity: expected a number > 0 (m2/s), got 1000"),
        ({"difusivity": 1}, "difusivity: unknown key; did you mean 'diffusivity'?"),
        (
            {"diffusivity": 1, "scheme": "explict"},
            'scheme: expected one of "explicit", "implicit", got "explict"; did you mean \'explicit\'?',
        ),
        (
            {"diffusivity": 1, "sources": [1]},
            "sources: expected an array of values, each an array of 2 values: a number, a number, got [1]",
        ),
        (
            {"diffusivity": 1, "unit": "metre"},
            'unit: expected a string of 1 to 3 characters that matches ^[a-z]*$, got "metre"',
        ),
        ({"diffusivity": 1, "steps": 3}, "steps: expected a whole number >= 1048577, got 3"),
        ({"diffusivity": 1, "rate": "fast"}, 'rate: expected a number, got "fast"'),
    ],
)
def test_wrong_parameters_of_a_model(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert_parameters(Parameters, table, "sim.toml")
    assert str(caught.value).startswith(f"sim.toml: [parameters] {message}")


def test_what_a_model_refuses_itself() -> None:
    with pytest.raises(InputError, match=r"^sim.toml: \[parameters\]: the implicit scheme needs a rate$"):
        convert_parameters(Parameters, {"diffusivity": 1, "scheme": "implicit"}, "sim.toml")


def test_a_wrong_parameter_names_its_override(read) -> None:
    configuration = read("", "parameters.diffusivity=-2")
    with pytest.raises(
        InputError, match=r"diffusivity \(from --set parameters.diffusivity=-2\): expected a number > 0"
    ):
        convert_parameters(Parameters, configuration.parameters, configuration.source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[initial]\nstate = 'gausian'", "[initial] state: the model has no state 'gausian'; did you mean 'gaussian'?"),
        ("[initial]\nw = 1", "[initial] w: the model has no field 'w'; expected one of: u, v"),
        ("[boundary.w]\nx = 'neumann'", "[boundary] w: the model has no field 'w'; expected one of: u, v"),
        ("[output]\nfields = ['u', 'w']", "[output] fields: the model has no field 'w'; expected one of: u, v"),
    ],
)
def test_names_that_the_model_does_not_have(read, text: str, message: str) -> None:
    configuration = read(text)
    with pytest.raises(InputError) as caught:
        check_names(configuration, fields=["u", "v"], states=["gaussian"])
    assert str(caught.value) == f"sim.toml: {message}"


def test_names_that_the_model_has(read) -> None:
    configuration = read("[initial]\nu = 1\n[boundary.v]\nx = 'neumann'\n[output]\nfields = ['v']")
    check_names(configuration, fields=["u", "v"], states=[])


# Errors and imports


def test_nearest() -> None:
    assert nearest("shpae", ["shape", "extent"]) == "; did you mean 'shape'?"
    assert nearest("SHAPE", ["shape", "extent"]) == "; did you mean 'shape'?"
    assert nearest("colour", ["shape", "extent"]) == "; expected one of: shape, extent"
    assert nearest("colour", ["shape", "extent"], or_all=False) == ""
    assert nearest("colour", []) == ""


def test_one_except_clause_catches_all_and_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, HpcframeError)
    assert issubclass(InputError, ValueError)
    assert issubclass(RemoteError, HpcframeError)
    assert not issubclass(RemoteError, ValueError)


def test_reading_a_file_imports_neither_mpi_nor_numba() -> None:
    program = (
        "import sys, hpcframe.simulation.configuration; print({'mpi4py', 'numba', 'h5py', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
