"""The shipped physics: observed orders of accuracy against exact solutions, what is conserved, what is stable.

An order is observed by refining the grid: an error that falls like h^p falls by ratio^p.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from mpi4py import MPI
from scipy.integrate import solve_ivp

import hpcframe as hf
from hpcframe.simulation.configuration import convert_parameters
from hpcframe.simulation.model import find_model

pytestmark = pytest.mark.mpi
AXES = "xyz"


def make(kernel, shape, comm, walls=None, parameters=None, **options):
    """A model on a grid; `walls` gives the conditions of the walls of all its fields."""
    kind = find_model(kernel)
    grid = hf.Grid(shape, comm=comm, **options)
    return kind(grid, kind.Parameters(**(parameters or {})), lambda name: walls or {})


def start(model, state, dt=None):
    """Set initial values: those of the model's state of that name, or a function of coordinates for each field."""
    for name, field in model.state.items():
        if isinstance(state, str):
            field.fill(lambda *x, name=name: getattr(model, f"initial_{state}")(*x).get(name, 0.0))
        elif name in state:
            field.fill(state[name])
    if dt is not None:
        model.start(dt)
    return model


def largest_error(field, exact):
    """Largest deviation from an exact solution, a function of coordinates."""
    mine = np.abs(field.interior - exact(*field.coordinates())).max()
    return field.grid.comm.allreduce(mine, MPI.MAX)


def rms_error(field, exact):
    """Root of the mean squared deviation. Of a wave it does not depend on where in it the points are."""
    mine = np.sum((field.interior - exact(*field.coordinates())) ** 2)
    return math.sqrt(field.grid.comm.allreduce(mine) / math.prod(field.shape))


def orders(errors, ratio=2):
    return [math.log(coarse / fine, ratio) for coarse, fine in pairwise(errors)]


def diagnostics(model):
    terms = model.diagnostics()
    return dict(zip(terms, model.grid.reduce(*terms.values()), strict=True))


# -- heat -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_heat_is_of_second_order(comm, ndim):
    extent, diffusivity, end = (1.0, 1.5, 0.8)[:ndim], 0.01, 0.5
    decay = math.exp(-diffusivity * end * sum((2 * math.pi / e) ** 2 for e in extent))
    errors = []
    for cells in (16, 32):
        shape = (cells, cells + cells // 4, cells)[:ndim]
        model = make("heat", shape, comm, extent=extent, periodic=True, parameters={"diffusivity": diffusivity})
        steps = 2 * (cells // 8) ** 2  # dt in proportion to the spacing squared
        start(model, "sine").advance(steps, end / steps)
        errors.append(rms_error(model.u, lambda *x, model=model: decay * model.initial_sine(*x)["u"]))
    assert orders(errors) == pytest.approx([2.0], abs=0.1)


def test_heat_is_of_second_order_with_a_source_between_walls_whose_values_change(comm):
    diffusivity, source, gradient, end = 0.02, 0.3, 0.7, 1.0

    def exact(t):
        rate = diffusivity * (math.pi**2 / 4 + math.pi**2)
        return lambda x, y: (
            source * t + gradient * x + math.exp(-rate * t) * np.sin(math.pi * x / 2) * np.cos(math.pi * y)
        )

    walls = {(0, 0): hf.Dirichlet(lambda t: source * t), (0, 1): hf.Neumann(gradient)}  # y: zero gradient
    errors = []
    for cells in (16, 32, 64):
        parameters = {"diffusivity": diffusivity, "source": source}
        model = make("heat", (cells, cells + 4 * cells // 16), comm, walls, parameters)
        steps = 36 * (cells // 16) ** 2
        start(model, {"u": exact(0.0)}).advance(steps, end / steps)
        errors.append(largest_error(model.u, exact(end)))
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.1)


def test_heat_in_an_insulated_box_is_conserved(comm):
    model = start(make("heat", (24, 20, 18), comm), "gaussian")
    before = diagnostics(model)
    model.advance(200, 0.9 * model.stable_dt())
    after = diagnostics(model)
    assert after["heat"] == pytest.approx(before["heat"], rel=1e-14)
    assert before["least"] < after["least"] < after["greatest"] < before["greatest"]


# -- wave -----------------------------------------------------------------------------------------------------------


def standing_wave(comm, space_order, cells, ndim, steps, dt, velocity=1.3):
    """A standing wave after some steps, and its frequency omega (1/s) in the continuum."""
    extent = (1.0, 1.3, 0.9)[:ndim]
    shape = (cells, cells + cells // 2, cells)[:ndim]
    parameters = {"velocity": velocity, "space_order": space_order}
    model = make("wave", shape, comm, extent=extent, periodic=True, parameters=parameters)
    start(model, "sine", dt).advance(steps, dt)
    return model, velocity * math.sqrt(sum((2 * math.pi / e) ** 2 for e in extent))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("space_order", [2, 4, 8])
def test_wave_in_space_is_of_the_order_asked_for(comm, space_order, ndim):
    """Against what leapfrog makes of exact derivatives in space, so that its own error does not hide theirs: the
    standing wave is then cos(n theta) after n steps, with sin(theta / 2) = omega dt / 2."""
    dt, steps, errors = 0.006, 40, []
    for cells in (16, 32):
        model, omega = standing_wave(comm, space_order, cells, ndim, steps, dt)
        factor = math.cos(steps * 2 * math.asin(omega * dt / 2))
        errors.append(rms_error(model.u, lambda *x, m=model, f=factor: f * m.initial_sine(*x)["u"]))
    assert orders(errors) == pytest.approx([space_order], abs=0.1)


def test_wave_in_time_is_of_second_order(comm):
    errors = []
    for steps in (20, 40, 80):
        model, omega = standing_wave(comm, 8, 32, 2, steps, 0.3 / steps)
        factor = math.cos(omega * 0.3)
        errors.append(rms_error(model.u, lambda *x, m=model, f=factor: f * m.initial_sine(*x)["u"]))
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.1)


def test_wave_in_a_variable_medium_is_of_second_order(comm):
    """velocity = 1 + x between fixed walls: u = sqrt(1 + x) sin(m log(1 + x)) cos(omega t), omega^2 = m^2 + 1/4."""
    m = math.pi / math.log(2.0)
    omega, end, errors = math.sqrt(m**2 + 0.25), 1.1, []
    shape_of_u = lambda x: np.sqrt(1 + x) * np.sin(m * np.log(1 + x))  # noqa: E731
    walls = {(0, 0): hf.Dirichlet(0.0), (0, 1): hf.Dirichlet(0.0)}
    for cells in (32, 64, 128):
        model = make("wave", (cells,), comm, walls, {"space_order": 2})
        steps = 3 * cells
        start(model, {"u": shape_of_u, "velocity": lambda x: 1 + x}, end / steps).advance(steps, end / steps)
        errors.append(largest_error(model.u, lambda x: shape_of_u(x) * math.cos(omega * end)))
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.1)


def test_wave_from_a_ricker_source_is_the_exact_one(comm):
    """On a line: u = amplitude / (2 velocity) * (integral of the wavelet until t - distance / velocity)."""
    velocity, frequency, amplitude, end, source, errors = 2.0, 3.0, 5.0, 0.9, 0.5, []

    def exact(x):
        t = end - np.abs(x - source) / velocity - 1.5 / frequency
        return amplitude / (2 * velocity) * t * np.exp(-((math.pi * frequency * t) ** 2))

    for cells in (135, 405):  # odd: the source is at a cell's centre
        parameters = {"velocity": velocity, "frequency": frequency, "amplitude": amplitude, "space_order": 2}
        model = make(
            "wave", (cells,), comm, None, {**parameters, "source_position": (source,)}, extent=(3.0,), origin=(-1.0,)
        )
        steps = 4 * cells
        start(model, "rest", end / steps).advance(steps, end / steps)
        errors.append(largest_error(model.u, exact))
    assert errors[-1] < 1e-3 * amplitude / (2 * velocity)
    assert orders(errors, ratio=3) == pytest.approx([2.0], abs=0.1)
