"""Expressions in sim.toml: what they mean, and that nothing but arithmetic can be in them."""

import math

import numpy as np
import pytest

from hpcframe.errors import InputError
from hpcframe.simulation.expression import FUNCTIONS, Expression

X = np.linspace(-1.0, 1.0, 41)[:, None]
Y = np.linspace(0.1, 3.0, 30)[None, :]


def refused(text: str, variables: tuple[str, ...] = ("x", "y")) -> str:
    with pytest.raises(InputError) as caught:
        Expression(text, variables)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exp(-100*((x-0.5)**2 + y**2))", np.exp(-100 * ((X - 0.5) ** 2 + Y**2))),
        ("sin(2*pi*x)*cos(pi*y) + e", np.sin(2 * np.pi * X) * np.cos(np.pi * Y) + math.e),
        ("-x**2 % 0.3", np.remainder(-(X**2), 0.3) + 0 * Y),
        ("1 if 0.2 < x <= 0.4 else y", np.where((X > 0.2) & (X <= 0.4), 1.0, Y)),
        ("where(x > 0, log(maximum(x, 1e-9)), 0)", np.where(X > 0, np.log(np.maximum(X, 1e-9)), 0.0) + 0 * Y),
        ("(x > 0) + (y > 1)", (X > 0).astype(float) + (Y > 1)),
        ("-(x > 0) - (y == 0.1)", -(X > 0).astype(float) - (Y == 0.1)),
        ("not (x > 0 and y > 1 or x < -0.5)", (~((X > 0) & (Y > 1) | (X < -0.5))).astype(float)),
        ("atan2(y, x) * hypot(x, y)", np.arctan2(Y, X) * np.hypot(X, Y)),
        ("+floor(y) + ceil(x) - sign(x) * abs(x)", np.floor(Y) + np.ceil(X) - np.sign(X) * np.abs(X)),
        ("7", np.full((41, 30), 7.0)),
    ],
)
def test_means_what_numpy_means(text: str, expected: np.ndarray) -> None:
    result = Expression(text, ("x", "y"))(X, Y)
    assert result.dtype == np.float64
    assert result.shape == (41, 30)
    assert np.array_equal(result, expected)


def test_a_choice_may_be_impossible_where_it_is_not_chosen() -> None:
    assert np.array_equal(Expression("sqrt(x) if x > 0 else 0", ("x",))(X), np.sqrt(np.maximum(X, 0)))


def test_numbers_in_give_a_float() -> None:
    value = Expression("1 if t < 2 else sin(t)", ("t",))(3)
    assert type(value) is float
    assert value == math.sin(3)


def test_numbers_are_floats_so_that_powers_stay_small() -> None:
    assert Expression("7/2", ())() == 3.5
    assert Expression("2**0.5", ())() == 2**0.5
    with pytest.raises(InputError, match=r"is inf at every point"):
        Expression("9**9**9", ())()


def test_line_breaks_are_spaces() -> None:
    assert Expression("\n  x\n  + 1\n", ("x",))(2.0) == 3.0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_point_has_the_same_bits_whatever_is_computed_with_it(name: str) -> None:
    count = FUNCTIONS[name][0]
    expression = Expression(f"abs({name}({', '.join('xyz'[:count])}))**1.7 + x**2 + x**3 + x**-1", tuple("xyz"[:count]))
    generator = np.random.default_rng(5)
    values = [generator.uniform(0.01, 0.99, (60, 17)) for _ in range(count)]
    whole = expression(*values)
    for height, width in [(1, 1), (2, 17), (7, 3), (13, 5), (60, 1)]:
        pieces = np.full_like(whole, np.nan)
        for i in range(0, 60, height):
            for j in range(0, 17, width):
                piece = np.s_[i : i + height, j : j + width]
                pieces[piece] = expression(*[value[piece] for value in values])
        assert np.array_equal(pieces, whole)


def test_refuses_a_result_that_is_not_finite_and_says_where() -> None:
    with pytest.raises(InputError, match=r"'sqrt\(x - 0.5\)' is nan at x = -1, y = 0.1; it must be finite"):
        Expression("sqrt(x - 0.5)", ("x", "y"))(X, Y)
    with pytest.raises(InputError, match=r"is inf at x = 0, y = 0.1"):
        Expression("1/abs(x)", ("x", "y"))(X, Y)


def test_a_misspelt_function_is_pointed_at() -> None:
    assert refused("1 + sine(x)") == (
        "'sine' is no function known here; did you mean 'sin'? (column 5)\n"
        "    1 + sine(x)\n"
        "        ^\n"
        "  variables: x, y; constants: pi, e\n"
        "  operators: + - * / ** %, < <= > >= == !=, and or not, a if c else b\n"
        "  functions: exp, log, sqrt, sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, tanh, abs, minimum, maximum, "
        "where, floor, ceil, sign, hypot"
    )


def test_the_caret_counts_characters_and_long_texts_are_cut() -> None:
    message, text, caret, *_ = refused("0*x + " * 100 + "z").splitlines()
    assert "column 601" in message
    assert text[caret.index("^")] == "z"
    assert len(text) < 130
    message, text, caret, *_ = refused("x + été + é").splitlines()
    assert text[caret.index("^")] == "é"
    assert "column 5" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x + z", "unknown name 'z' (column 5)"),
        ("Pi * x", "did you mean 'pi'?"),
        ("max(x, 0)", "did you mean 'maximum'?"),
        ("x(1)", "'x' is not a function"),
        ("exp", "'exp' is a function; write exp(...)"),
        ("atan2(x)", "atan2 takes 2 arguments"),
        ("sin(x, y)", "sin takes 1 argument,"),
        ("sin(a=x)", "sin takes 1 argument,"),
        ("sin(*x)", "sin takes 1 argument,"),
        ("x^2", "write a power as x**2"),
        ("x // 2", "write floor(a / b)"),
        ("~x", "this operator is not allowed"),
        ("2x", "write a product as 2*x"),
        ("(x + 1", "never closed"),
        ("x +", "the expression ends too early (column 4)"),
        ("x = 1", "invalid syntax"),
        ("", "the expression is empty"),
        ("x # + 1", "'#' is not allowed in an expression (column 3)"),
        ("1e999", "too large for float64"),
        ("9" * 400, "too large for float64"),
        ("x if y", "expected 'else'"),
        ("x\0", "is not allowed in an expression (column 2)"),
    ],
)
def test_says_what_is_wrong(text: str, part: str) -> None:
    assert part in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "x.__class__",
        "().__class__.__bases__",
        "__import__('os')",
        "open('file')",
        "exp.reduce(x)",
        "(lambda: 1)()",
        "[x for x in y]",
        "x[0]",
        "x, y",
        "(x := 1)",
        "'text'",
        "f'{x}'",
        "b'1'",
        "True",
        "None",
        "...",
        "1j",
        "x is y",
        "x in y",
        "{x: 1}",
        "await x",
        "x @ y",
        "1 << 99",
        "exp(exp)",
    ],
)
def test_nothing_but_arithmetic(text: str) -> None:
    assert "^" in refused(text)


@pytest.mark.parametrize(
    "text", ["-" * 4000 + "x", "(" * 2000 + "x" + ")" * 2000, "x+" * 2000 + "x", "x**" * 1000 + "x", "x+" * 3000 + "x"]
)
def test_cost_is_bounded(text: str) -> None:
    assert "nested" in refused(text) or "at most 4096" in refused(text)


def test_the_deepest_that_is_allowed_can_be_evaluated() -> None:
    assert Expression("x+" * 200 + "x", ("x",))(1.0) == 201.0


def test_wrong_number_of_values() -> None:
    with pytest.raises(TypeError, match="takes x, y; got 1 values"):
        Expression("x", ("x", "y"))(X)
