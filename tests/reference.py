"""What fields and stencils must give, in plain NumPy on whole arrays, and what tests on several ranks share."""

import linecache
import random

import numpy as np

import hpcframe as hf

SHAPES = {1: (17,), 2: (13, 10), 3: (6, 7, 9)}


def whole(field):
    """The global array, on every rank. Collective."""
    return field.grid.comm.bcast(field.gather())


def everywhere(comm, right):
    """Whether something is right on all ranks, so that a test fails on all of them or on none. Collective."""
    return all(comm.allgather(bool(right)))


def messages(comm, call):
    """The error that each rank gets from a call that must be refused. Collective."""
    try:
        call()
        message = "not refused"
    except hf.HpcframeError as error:
        message = f"{type(error).__name__}: {error}"
    return comm.allgather(message)


def values(shape, dtype=np.float64, seed=1):
    """Random numbers whose last bits matter; whole ones for integers."""
    chance = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "i":
        return chance.integers(-1000, 1000, shape).astype(dtype)
    imaginary = chance.standard_normal(shape) if dtype.kind == "c" else 0
    return (
        chance.standard_normal(shape) + 1j * imaginary if dtype.kind == "c" else chance.standard_normal(shape)
    ).astype(dtype)


def exact_values(shape, dtype=np.float64, seed=1):
    """Random multiples of 1/16, so that boundary conditions of such numbers are met without rounding."""
    return (np.random.default_rng(seed).integers(-1000, 1000, shape) / 16).astype(dtype)


def with_halo(field, points, halo=None):
    """The whole array with its ghost layers, one axis after the other; corners follow from the sides."""
    grid, lead = field.grid, len(field.components)
    points = with_walls(field, points)
    for axis, width in enumerate(field.halo if halo is None else halo):
        layers = np.moveaxis(points, lead + axis, 0)
        if grid.periodic[axis]:
            lower, upper = layers[len(layers) - width :], layers[:width]
        else:
            lower = beyond(field, axis, 0, layers, width)[::-1]
            upper = beyond(field, axis, 1, layers[::-1], width)
        points = np.moveaxis(np.concatenate([lower, layers, upper]), 0, lead + axis)
    return points


def with_walls(field, points):
    """Points of a staggered field that lie on a Dirichlet wall have its value."""
    points = points.copy()
    for (axis, side), condition in field.boundary.items():
        if axis in field.staggered and isinstance(condition, hf.Dirichlet):
            np.moveaxis(points, len(field.components) + axis, 0)[-side] = at_time(condition.value, field.grid.time)
    return points


def beyond(field, axis, side, layers, width):
    """Ghost layers, nearest to the wall first; `layers` are the points from that wall inwards."""
    staggered, condition = axis in field.staggered, field.boundary[axis, side]
    inside = layers[staggered : staggered + width]
    if isinstance(condition, hf.Dirichlet):
        return (2 * at_time(condition.value, field.grid.time) - inside).astype(field.dtype)
    apart = (2 * np.arange(width) + 1 + staggered) * field.grid.spacing[axis]
    rise = apart * at_time(condition.gradient, field.grid.time)
    return (inside + rise.reshape(-1, *[1] * (inside.ndim - 1))).astype(field.dtype)


def at_time(value, time):
    return value(time) if callable(value) else value


def local(field, padded, halo=None):
    """This rank's part of an array with ghost layers."""
    widths = field.halo if halo is None else halo
    parts = [slice(p.start, p.stop + 2 * w) for p, w in zip(field.block, widths, strict=True)]
    return padded[(..., *parts)]


class Points:
    """A whole array indexed as in a stencil: `u[1, 0]` are the neighbours at that offset of all points."""

    def __init__(self, field, shape):
        self.halo = tuple(min(4, n) for n in field.grid.shape)
        self.padded = with_halo(field, whole(field), self.halo)
        self.shape = shape
        self.result = np.empty(field.shape, field.dtype)

    def _split(self, index):
        index = index if isinstance(index, tuple) else (index,)
        return index[: len(index) - len(self.shape)], index[len(index) - len(self.shape) :]

    def __getitem__(self, index):
        components, offset = self._split(index)
        parts = [slice(h + o, h + o + n) for h, o, n in zip(self.halo, offset, self.shape, strict=True)]
        return self.padded[(*components, *parts)]

    def __setitem__(self, index, value):
        self.result[self._split(index)[0]] = value


def by_numpy(stencil, *arguments, **scalars):
    """What a stencil without branches must write: its function, run by NumPy over whole arrays. Collective."""
    given = {**dict(zip(stencil.call.parameters, arguments, strict=False)), **scalars}
    written = given[stencil.call.writes[0]]
    shape = written.shape[len(written.components) :]
    given = {name: Points(value, shape) if isinstance(value, hf.Field) else value for name, value in given.items()}
    stencil.__wrapped__(**given)
    results = tuple(given[name].result for name in stencil.call.writes)
    return results if len(results) > 1 else results[0]


def at_random(seed):
    """A boundary condition of numbers that binary arithmetic represents exactly."""
    chance = np.random.default_rng(seed)
    return chance.choice([hf.Dirichlet, hf.Neumann])(float(chance.integers(-8, 8)) / 4)


def function_of(text, name, **names):
    """The function that a text defines, in a place where its source is found."""
    file = f"<test {name} {hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), names)
    return names[name]


def grid_of(comm, ndim, seed=0, **options):
    """A grid of the shape for this number of axes, periodic along some of them."""
    shape, chance = SHAPES[ndim], random.Random(seed)
    periodic = [chance.random() < 0.5 for _ in shape]
    return hf.Grid(shape, extent=[n / 4 for n in shape], periodic=periodic, comm=comm, **options)


def random_field(grid, name, seed=1, **options):
    """A field of random values with random conditions on its walls."""
    field = grid.field(name, **options)
    array = values(field.shape, field.dtype, seed)
    field.scatter(array if grid.rank == 0 else None)
    for number, wall in enumerate(field.boundary):
        if field.dtype.kind != "i":
            field.boundary[wall] = at_random(seed + number)
    return field


def is_right(field, expected):
    """Whether a field has these bits, on every rank."""
    return everywhere(field.grid.comm, np.array_equal(field.local_interior, expected[(..., *field.block)]))
