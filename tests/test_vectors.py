"""Loops of vector code: the bits of the scalar loop, in every place of a block."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from reference import function_of, values

import hpcframe as hf
from hpcframe.stencils import generate, vector
from hpcframe.stencils.loops import compile_loop, form_of, loop_of, region_table, typed_scalars

COMPONENTS = 2


def subscript(chance, name, components, ndim, reach=2):
    offsets = [chance.randint(-reach, reach) for _ in range(ndim)]
    lead = [chance.randrange(COMPONENTS)] if components[name] else []
    return f"{name}[{', '.join(map(str, [*lead, *offsets]))}]"


def expression(chance, names, components, ndim, single, depth=2):
    """Text of a random expression over two fields, a scalar, and numbers."""
    field = subscript(chance, chance.choice("uw"), components, ndim)
    if depth == 0 or chance.random() < 0.1:
        index = [] if single else [f"(hf.index({chance.randrange(ndim)}) + 0.5)"]
        return chance.choice([field, field, field, "k", "0.3", f"(2 * {field})", *names, *index])
    left, right, low, high = (expression(chance, names, components, ndim, single, depth - 1) for _ in range(4))
    forms = [f"({left} {sign} {right})" for sign in "+-*"] + [f"({left} / {field})", f"(-{left})"]
    forms += [f"({left} if {field} {chance.choice(['<', '>=', '!='])} {low} and not {field} == {high} else {right})"]
    forms += [] if single else [f"{field} ** {chance.randint(1, 5)}"]
    return chance.choice(forms)


def random_stencil(seed, ndim, single):
    """Two written fields, a temporary; one of the fields that are read has components."""
    chance = random.Random(seed)
    components = {"u": False, "w": chance.random() < 0.5}
    first, second, third = (
        expression(chance, names, components, ndim, single) for names in ([], ["between"], ["between"])
    )
    zero = ", ".join(["0"] * ndim)
    text = f"def point(a, b, u, w, k):\n    between = {first} + u[{zero}] + w[{'0, ' * components['w']}{zero}]\n"
    text += f"    a[{zero}] = {second} + 0.5\n    b[{zero}] = {third} - between\n"
    return hf.stencil(function_of(text, "point", hf=hf)), components


def results(stencil, fields, boxes, scalars):
    """What is written into the boxes, and around them nothing."""
    point, grid = stencil.point, fields["a"].grid
    form = form_of(point, fields, grid.ndim)
    source, names = loop_of(point, form, fields, scalars)
    loop = compile_loop(source, point, form, fields, scalars, grid.shared, more=names)
    for name in point.writes:
        fields[name].storage.fill(7)
    table = region_table(point, form, fields, fields["a"].block, boxes)
    loop(*(fields[name].storage for name in point.fields), *typed_scalars(form, scalars, point.scalars), table)
    return vector.uses_vectors(names), [fields[name].storage.copy() for name in point.writes]


def both(monkeypatch, *arguments):
    """Results of the vector loop and of the scalar loop."""
    found = {}
    for wish in "10":
        monkeypatch.setenv("HPCFRAME_VECTORS", wish)
        used, found[wish] = results(*arguments)
        assert used == (wish == "1")
    return found["1"], found["0"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_stencils_have_the_bits_of_the_scalar_loop(ndim, dtype, seed):
    chance = random.Random(seed)
    stencil, components = random_stencil(seed, ndim, dtype == "float32")
    shape = [*(chance.randint(3, 5) for _ in range(ndim - 1)), 70]
    grid = hf.Grid(shape, comm=MPI.COMM_SELF)
    fields = {name: grid.field(name, dtype=dtype, halo=chance.choice([2, 3])) for name in "ab"}
    for name, has in components.items():
        fields[name] = grid.field(name, dtype=dtype, halo=2, components=(COMPONENTS,) if has else ())
        fields[name].storage[...] = values(fields[name].storage.shape, dtype, seed % 1000)
    lengths = chance.sample(range(1, 71), 8)
    boxes = []
    for length in lengths:  # of all lengths, at any place of the row
        begin = chance.randint(0, 70 - length)
        boxes.append((*((0, chance.randint(1, count)) for count in shape[:-1]), (begin, begin + length)))
    with pytest.MonkeyPatch.context() as patch:
        for box in boxes:
            vectors, scalar = both(patch, stencil, fields, [box], {"k": 0.7})
            for one, other in zip(vectors, scalar, strict=True):
                assert np.array_equal(one, other, equal_nan=True), (box, stencil.source)


@hf.stencil
def star(a, u, k):
    a[0, 0, 0] = u[0, 0, 0] + k * (u[1, 0, 0] + u[-1, 0, 0] + u[0, 2, 0] - u[0, 0, 1] ** 3 + u[0, 0, -2])


def test_rows_of_every_length_and_begin(monkeypatch):
    grid = hf.Grid((3, 2, 70), comm=MPI.COMM_SELF)
    fields = {"a": grid.field("a", halo=2), "u": grid.field("u", halo=2)}
    fields["u"].storage[...] = values(fields["u"].storage.shape)
    boxes = [((0, 3), (0, 2), (begin, begin + n)) for n, begin in itertools.product(range(1, 66), range(5))]
    for box in boxes:
        vectors, scalar = both(monkeypatch, star, fields, [box], {"k": 0.1})
        assert np.array_equal(vectors, scalar), box


@hf.stencil
def far(a, u, k):
    a[0, 0, 0] = u[0, 0, 0] + k * (
        u[4, 0, 0] + u[-4, 0, 0] - u[0, 4, 0] - u[0, -4, 0] + u[0, 0, 4] * u[0, 0, -4] + u[3, 0, 1] - u[-3, 0, -1]
        + u[2, 0, 0] - u[-2, 0, 0] + u[0, 2, 0] * u[0, -2, 0]
        + u[1, 0, 0] - u[-1, 0, 0] + u[0, 1, 0] - u[0, -1, 0]
    )  # fmt: skip


@pytest.mark.parametrize("length, together", [(70, (2, 1)), (300, (4, 2, 1))])
def test_any_number_of_planes_together(monkeypatch, length, together):
    """Four of long rows, two of short ones, and what is left."""
    grid = hf.Grid((9, 4, length), comm=MPI.COMM_SELF)
    fields = {"a": grid.field("a", halo=4), "u": grid.field("u", halo=4)}
    fields["u"].storage[...] = values(fields["u"].storage.shape)
    assert vector._together(far.point, form_of(far.point, fields, 3), fields) == together
    for begin, planes in itertools.product((0, 1), range(1, 9)):
        box = ((begin, begin + planes), (1, 4), (3, length))
        vectors, scalar = both(monkeypatch, far, fields, [box], {"k": 0.1})
        assert np.array_equal(vectors, scalar), box


def test_larger_blocks_are_computed_in_vectors(monkeypatch):
    """Which `source` says; a variable switches it off."""
    grid = hf.Grid((32, 33, 34), comm=MPI.COMM_SELF, periodic=True)
    u, a, b = grid.field("u"), grid.field("a"), grid.field("b")
    u.scatter(values(u.shape))
    monkeypatch.delenv("HPCFRAME_VECTORS", raising=False)
    star(a, u, 0.1)
    assert star.source.startswith(vector.NOTE)
    monkeypatch.setenv("HPCFRAME_VECTORS", "0")
    star(b, u, 0.1)
    assert star.source == generate.stencil_source(star.point, star._form)
    assert np.array_equal(a.local_interior, b.local_interior)


@pytest.mark.parametrize(
    "statement",
    [
        "max(u[0], 0.0)", "u[0] // 2.0", "u[0] % 2.0", "u[0] ** 0.5", "u[0] ** k", "hf.index(0) * 2 + u[0]",
        "(u[0] > 0.0) * u[0]", "u[0] if k else 0.0", "1 if u[0] > 0.0 else 0",
    ],
)  # fmt: skip
def test_what_is_left_to_the_scalar_loop(statement):
    stencil = hf.stencil(function_of(f"def point(a, u, k):\n    a[0] = {statement}\n", "point", hf=hf))
    grid = hf.Grid((9,), comm=MPI.COMM_SELF)
    fields = {"a": grid.field("a"), "u": grid.field("u")}
    assert not vector.expressible(stencil.point, form_of(stencil.point, fields, 1))


@pytest.mark.mpi
def test_blocks_of_different_shape_have_loops_of_their_own(comm, monkeypatch):
    grid = hf.Grid((7, 9, 41), comm=comm, periodic=(True, False, True))
    u, a, b = grid.field("u"), grid.field("a"), grid.field("b")
    u.scatter(values(u.shape) if comm.rank == 0 else None)
    monkeypatch.setenv("HPCFRAME_VECTORS", "1")
    star(a, u, 0.1)
    monkeypatch.setenv("HPCFRAME_VECTORS", "0")
    star(b, u, 0.1)
    assert all(comm.allgather(np.array_equal(a.local_interior, b.local_interior)))
