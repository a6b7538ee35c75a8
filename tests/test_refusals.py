"""What a stencil cannot mean is refused before anything is computed, on every rank, at the user's line."""

import inspect

import numpy as np
import pytest
from reference import function_of, messages

import hpcframe as hf

mpi = pytest.mark.mpi
NAMES = {"plain": lambda x: x, "LIST": [1, 2], "TEXT": "a", "N": 3, "hf": hf, "np": np}


def refusal(text):
    """The error from a point function given as text, whose marked part is in » «; it must be shown at its line."""
    lines = text.strip("\n").splitlines()
    number, marked = next((n, line) for n, line in enumerate(lines, 1) if "»" in line)
    begin, length = marked.index("»"), marked.index("«") - marked.index("»") - 1
    function = function_of(text.strip("\n").replace("»", "").replace("«", "") + "\n", "point", **NAMES)
    with pytest.raises(hf.InputError) as refused:
        hf.stencil(function)
    place, line, marks = str(refused.value).splitlines()
    assert place.startswith(f"{inspect.getsourcefile(function)}:{number}: ")
    assert line.strip() == marked.replace("»", "").replace("«", "").strip()
    shown = line.index(line.strip()) - (len(marked) - len(marked.lstrip())) + begin
    assert marks == " " * shown + "^" * length
    return place.split(": ", 1)[1]


# -- at the decorator: the line, and marks under what is wrong --------------------------------------------------


@pytest.mark.parametrize("target", ["v[0, 1]", "v[-1, 0]", "v[0, N]"])
def test_an_off_centre_write(target):
    text = f"def point(v, u):\n    w = u[0, 0]\n    »{target}« = w\n"
    assert refusal(text).startswith("a stencil writes at offset zero only")


def test_an_off_centre_write_behind_a_component():
    assert "offset zero only" in refusal("def point(v, u):\n    »v[1, 0, 1]« = u[0, -1, 0]\n")


@pytest.mark.parametrize("body", ["v[0, 0] = u[0, 0] + »v[1, 0]«", "»v[0, 0]« += u[0, 0]", "v[0, 0] = -»v[0, 0]«"])
def test_reading_what_is_written(body):
    assert refusal(f"def point(v, u):\n    a = 1.0\n    {body}\n").startswith("'v' is read and also written")


@pytest.mark.parametrize("offset", ["»k«", "»u[0, 0]«", "»0.5«", "»1 + k«", "»True«", "»LIST«", "»x«"])
def test_an_offset_that_is_not_a_constant(offset):
    text = f"def point(v, u, k):\n    x = 1\n    v[0, 0] = u[0, {offset}]\n"
    assert refusal(text).startswith("an offset must be a whole number known here")


@pytest.mark.parametrize(
    "body",
    [
        "if u[0] > 0:\n        a = 1.0\n    v[0] = »a«",
        "if u[0] > 0:\n        a = 1.0\n    else:\n        b = 1.0\n    v[0] = »a« + 1",
        "v[0] = »a«\n    a = 1.0",
        "»a« += 1.0\n    v[0] = a",
        "if u[0] > 0:\n        N = 1.0\n    v[0] = »N«",  # a local name never means the global one
        "for i in range(3):\n        a = u[i]\n    v[0] = »i«",
        "v[0] = »b« * u[0]",
        "for i in range(0):\n        a = u[0]\n    v[0] = »a«",
    ],
)
def test_a_name_that_has_no_value_on_every_path(body):
    assert "has no value here, or not on every path to here" in refusal(f"def point(v, u):\n    {body}\n")


@pytest.mark.parametrize("body", ["»k« = 2.0", "»u« = 2.0", "»k« *= 2.0", "a, »k« = 1.0, 2.0"])
def test_assigning_to_a_parameter(body):
    text = f"def point(v, u, k):\n    {body}\n    v[0] = u[0] * k\n"
    assert "has its value for all points: use another name" in refusal(text)


@pytest.mark.parametrize("loop", ["for »k« in range(3):", "for »a« in range(3):", "for »v« in range(3):"])
def test_a_loop_over_a_name_that_has_another_value(loop):
    text = f"def point(v, u, k):\n    a = 1.0\n    {loop}\n        a = u[0]\n    v[0] = a * k\n"
    assert "choose another name" in refusal(text)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("v[0] = »plain«(u[0])", "'plain' is not compiled: decorate it with numba.njit"),
        ("v[0] = »missing«(u[0])", "'missing' is not known here"),
        ("v[0] = »np.nothing«(u[0])", "'np.nothing' does not exist"),
        ("v[0] = »print«(u[0])", "'print' is not known here"),
        ("v[0] = »np.clip(u[0], a_min=0, a_max=1)«", "positional arguments only"),
        ("v[0] = u[1] + »u«", "'u' is a field: say which point is meant"),
        ("v[0] = »TEXT« * u[0]", "'TEXT' is str: only numbers and njit functions"),
        ("v[0] = u[0] if u[0] > 0 else »[1]«", "List has no meaning at a point"),
        ("v[0] = »u[0].real«", "Attribute has no meaning at a point"),
        ("»u[1]«", "an expression without an assignment does nothing"),
        ("»return«", "a stencil returns nothing"),
        ("»return u[0]«", "a stencil returns nothing"),
        ("v[0] = u[0] + »1 / 0«", "ZeroDivisionError: division by zero"),
        ("for i in range(»k«):\n        v[0] = u[i]", "'k' must be a constant"),
        ("»for i, j in ((0, 1),):«\n        v[0] = u[i]", "a loop at a point has the form"),
        ("v[0] = hf.index(»k«)", "'k' must be a constant"),
        ("v[0] = »hf.index(3)«", "hf.index takes the number of an axis: 0, 1 or 2"),
        ("»LIST[0]« = u[0]", "assigns to temporaries and to fields only"),
        ("»_at« = u[0]", "names that begin with _ are those of the generated loop"),
        ("for i in range(2000):\n        »v[0] = u[0]«", "more than 1000 statements once loops are unrolled"),
        ("v[0] = u[0] + »u[0, 1]«", "'u' is indexed with [1, 2] entries: use one number everywhere"),
    ],
)
def test_what_has_no_meaning_at_a_point(body, reason):
    assert reason in refusal(f"def point(v, u, k):\n    {body}\n")


def test_statements_without_a_meaning_at_a_point():
    for first in ("while u[0] > 0:", "with u[0]:", "try:"):
        function = function_of(
            f"def point(v, u):\n    {first}\n        v[0] = u[0]\n"
            + "    finally:\n        pass\n" * (first == "try:"),
            "point",
        )
        with pytest.raises(hf.InputError, match=r":2: only assignments, if, and for over constants have a meaning"):
            hf.stencil(function)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("def point(v, u, *more):", "only plain parameters are possible"),
        ("def point(v, u, /):", "only plain parameters are possible"),
        ("def point(v, u, _k=1):", "names that begin with _"),
    ],
)
def test_parameters_that_are_not_plain(head, reason):
    assert reason in refusal(f"»{head}«\n    v[0] = u[0]\n")


def test_a_stencil_that_writes_nothing():
    assert "a stencil assigns to at least one field" in refusal("»def point(v, u):«\n    a = u[0]\n")


def test_the_line_is_right_behind_decorators_docstrings_and_letters_of_any_alphabet():
    def decorator(function):
        return function

    with pytest.raises(hf.InputError) as refused:
        # fmt: off
        @hf.stencil
        @decorator
        def point(v, u):
            """A docstring with a line
at the margin.
            """
            # fmt: on
            κ = 0.3
            v[0] = κ * κ * missing * u[0]  # noqa: F821

    place, line, marks = str(refused.value).splitlines()
    lines, first = inspect.getsourcelines(
        test_the_line_is_right_behind_decorators_docstrings_and_letters_of_any_alphabet
    )
    number = first + next(n for n, text in enumerate(lines) if "κ * κ" in text)
    assert place.startswith(f"{__file__}:{number}: 'missing' has no value here")
    assert line[marks.index("^") : marks.rindex("^") + 1] == "missing"


@pytest.mark.parametrize("thing", [3, "text", np.sin, hf.Grid])
def test_what_is_no_function(thing):
    with pytest.raises(hf.InputError, match="expected a plain Python function"):
        hf.stencil(thing)


def test_a_function_without_source():
    names = {}
    exec("def point(v, u):\n    v[0] = u[0]", names)
    with pytest.raises(hf.InputError, match="the source of 'point' cannot be found: define it in a file"):
        hf.stencil(names["point"])


def test_index_means_nothing_outside_a_stencil():
    with pytest.raises(hf.InputError, match=r"hf.index\(1\) means something only inside a function"):
        hf.index(1)


# -- at the call, on all ranks alike ----------------------------------------------------------------------------


@hf.stencil
def shifted(v, u, k=1.0):
    v[0, 0] = k * u[0, 1]


@hf.stencil
def of_component(v, u):
    v[0, 0] = u[2, 0, 0]


@hf.stencil
def off_centre_in_two_axes(v, u):
    v[1, 0] = u[0, 0]


@hf.stencil
def third_axis(v, u):
    v[0, 0] = u[0, 0] * hf.index(2)


def line_of(stencil, part):
    """file:line of the line of a stencil that holds a part, and the part."""
    lines, first = inspect.getsourcelines(stencil.__wrapped__)
    return f"{__file__}:{first + next(n for n, line in enumerate(lines) if part in line)}: "


def refused_alike(comm, call):
    refused = messages(comm, call)
    assert len(set(refused)) == 1
    assert refused[0].startswith("InputError: ")
    return refused[0].removeprefix("InputError: ")


@mpi
@pytest.mark.parametrize(
    ("stencil", "part", "reason", "options"),
    [
        (of_component, "u[2, 0, 0]", "'u' has components (2,), there is no (2,)", {"components": (2,)}),
        (off_centre_in_two_axes, "v[1, 0]", "a stencil writes at offset zero only", {}),
        (third_axis, "hf.index(2)", "the grid has axes (0, 1) only", {}),
        (
            shifted,
            "u[0, 1]",
            "'u' is indexed with 2 entries, the field it takes has 2 axes and 1",
            {"components": (2,)},
        ),
    ],
)
def test_what_only_the_fields_tell_is_shown_at_the_line_too(comm, stencil, part, reason, options):
    grid = hf.Grid((8, 8), comm=comm)
    error = refused_alike(comm, lambda: stencil(grid.field("v"), grid.field("u", **options)))
    assert error.startswith(line_of(stencil, part) + reason)
    _, line, marks = error.splitlines()
    assert line[marks.index("^") : marks.rindex("^") + 1] == part


@mpi
@pytest.mark.parametrize("shape", [(16,), (4, 4, 4)])
def test_a_wrong_number_of_axes(comm, shape):
    error = refused_alike(comm, lambda: shifted(*hf.Grid(shape, comm=comm).fields("v", "u")))
    assert error.startswith(line_of(shifted, "v[0, 0]"))
    assert f"is indexed with 2 entries, the field it takes has {len(shape)} axes" in error


@mpi
def test_a_field_passed_twice(comm):
    u = hf.Grid((8, 8), comm=comm).field("u")
    error = refused_alike(comm, lambda: shifted(u, u))
    assert "shifted: field 'u' is passed twice, as 'v', which is written, and as 'u'" in error


@mpi
def test_fields_of_two_grids_and_outputs_on_different_points(comm):
    @hf.stencil
    def both(a, b, u):
        a[0, 0] = u[0, 0]
        b[0, 0] = u[0, 0]

    one, other = hf.Grid((8, 8), comm=comm), hf.Grid((8, 8), comm=comm)
    assert "live on different grids" in refused_alike(comm, lambda: shifted(one.field("v"), other.field("u")))
    fields = one.field("a"), one.field("b", staggered=(0,)), one.field("u")
    assert "staggered in different ways, [(), (0,)]" in refused_alike(comm, lambda: both(*fields))


@mpi
@pytest.mark.parametrize(
    ("arguments", "named", "reason"),
    [
        ("v", {}, "takes (v, u, k); missing: u"),
        ("vu", {"kk": 1}, "no parameter 'kk'; did you mean 'k'?"),
        ("vu", {"u": 1}, "'u' is given twice"),
        ("vuuu", {}, "takes (v, u, k), got 4 arguments"),
        ("vu", {"k": "fast"}, "'k' takes a number; got 'fast'"),
        ("vu", {"k": None}, "'k' takes a number; got None"),
        ("vuu", {}, "'k' is never indexed by offsets, so it takes a number; got Field('u'"),
        ("v", {"u": np.zeros((8, 8))}, "'u' is indexed by offsets, so it takes a Field; got array("),
    ],
)
def test_arguments_that_do_not_fit(comm, arguments, named, reason):
    fields = dict(zip("vu", hf.Grid((8, 8), comm=comm).fields("v", "u"), strict=True))
    refused = messages(comm, lambda: shifted(*(fields[name] for name in arguments), **named))
    assert all(error.startswith(f"InputError: shifted: {reason}") for error in refused)


@mpi
def test_after_a_refusal_the_stencil_works(comm):
    grid = hf.Grid((8, 8), periodic=True, comm=comm)
    v, u = grid.fields("v", "u")
    refused_alike(comm, lambda: shifted(u, u))
    refused_alike(comm, lambda: shifted(v, grid.field("w", components=(2,))))
    u.fill(3.0)
    shifted(v, u, 2)
    assert np.all(v.interior == 6)


@mpi
def test_what_numba_cannot_compile_is_an_error_on_all_ranks(comm):
    @hf.stencil
    def bitwise(v, u):
        v[0, 0] = u[0, 0] & 1

    refused = messages(comm, lambda: bitwise(*hf.Grid((8, 8), comm=comm).fields("v", "u")))
    assert all(error.startswith("InputError: 'bitwise' cannot be compiled for ") for error in refused)
