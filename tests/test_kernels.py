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
        model.prepare(dt)
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
        steps = 20 * (cells // 8) ** 2  # dt in proportion to the spacing squared
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
    dt, steps, errors = 0.006, 30, []
    for cells in (24, 48) if ndim == 1 else (16, 32):  # blocks must not be smaller than the halo of 4
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


@pytest.mark.parametrize("space_order", [2, 4, 8])
def test_wave_conserves_its_energy(comm, space_order):
    """Of leapfrog, not of the continuum: to rounding, whatever the size of the errors."""
    wave = make("wave", (32, 40), comm, None, {"space_order": space_order}, periodic=True)
    start(wave, "gaussian", 0.9 * wave.stable_dt())
    before = diagnostics(wave)["energy"]
    for _ in range(5):
        wave.advance(100, wave.dt)
        assert diagnostics(wave)["energy"] == pytest.approx(before, rel=1e-13)


def test_wave_conserves_its_energy_between_walls_in_a_variable_medium(comm):
    wave = make("wave", (32, 40), comm, {(0, 0): hf.Dirichlet(0.0)})  # the other walls: zero gradient
    start(
        wave, {"u": lambda x, y: np.exp(-100 * ((x - 0.3) ** 2 + (y - 0.4) ** 2)), "velocity": lambda x, y: 1 + x * y}
    )
    wave.prepare(0.9 * wave.stable_dt())
    wave.start(0.9 * wave.stable_dt())
    before = diagnostics(wave)["energy"]
    wave.advance(500, wave.dt)
    assert diagnostics(wave)["energy"] == pytest.approx(before, rel=1e-13)


def test_the_energy_is_that_of_motion_and_of_strain(comm):
    """Before the first step: ((u - old) / dt)^2 / (2 velocity^2) - u * laplacian(old) / 2, summed by NumPy."""
    wave = make("wave", (16, 20), comm, None, {"space_order": 4, "velocity": 3.0}, periodic=True, extent=(2.0, 1.0))
    start(wave, "gaussian", 0.6 * wave.stable_dt())
    found = diagnostics(wave)["energy"]
    u, old = wave.u.gather(), wave.old.gather()
    if comm.rank == 0:
        second = 0.0
        for axis, h in enumerate(wave.grid.spacing):
            near, far = (np.roll(old, r, axis) + np.roll(old, -r, axis) for r in (1, 2))
            second = second + (16 * near - far - 30 * old) / (12 * h**2)
        density = ((u - old) / wave.dt) ** 2 / (2 * 3.0**2) - u * second / 2
        assert found == pytest.approx(density.sum() * wave.grid.cell_volume, rel=1e-12)


def test_wave_steps_may_be_taken_in_any_portions(comm):
    """How many at once depends on a clock; the source must not notice."""
    fields = []
    for portions in ((60,), (1, 7, 40, 12)):
        wave = make("wave", (20, 16), comm, None, {"amplitude": 1.0, "frequency": 2.0})
        start(wave, "rest", 0.7 * wave.stable_dt())
        for steps in portions:
            wave.advance(steps, wave.dt)
        fields.append(wave.u.interior.copy())
    assert (fields[0] == fields[1]).all()
    assert comm.allreduce(np.abs(fields[0]).max(), MPI.MAX) > 0


def test_the_velocity_cannot_change_once_steps_are_taken(comm):
    wave = make("wave", (16, 16), comm)
    start(wave, "gaussian", wave.stable_dt())
    with pytest.raises(hf.InputError, match="frozen"):
        wave.velocity.fill(2.0)


@pytest.mark.parametrize("position", [(0.5,), (0.5, 1.2), (-0.1, 0.5)])
def test_a_source_outside_the_grid_is_refused(comm, position):
    wave = make("wave", (16, 16), comm, None, {"amplitude": 1.0, "source_position": position})
    with pytest.raises(hf.InputError, match="source_position"):
        start(wave, "rest", wave.stable_dt())


def test_a_medium_that_no_wave_crosses_is_refused(comm):
    wave = start(make("wave", (16, 16), comm), {"velocity": lambda x, y: x * y - 0.2})
    with pytest.raises(hf.InputError, match="velocity"):
        wave.stable_dt()


@pytest.mark.parametrize("parameters", [{"space_order": 6}, {"velocity": 0.0}, {"frequency": -1.0}])
def test_impossible_parameters_are_refused(parameters):
    (name,) = parameters
    with pytest.raises(hf.InputError, match=name):
        convert_parameters(find_model("wave").Parameters, parameters, "sim.toml")


# -- Gray-Scott -----------------------------------------------------------------------------------------------------


def smooth(phase):
    return lambda x, y: 0.5 + 0.2 * np.sin(2 * math.pi * x + phase) * np.cos(2 * math.pi * y)


def test_gray_scott_in_space_is_of_second_order(comm):
    """No exact solution is known: three grids, each with three times the cells of the one before, share points."""
    solutions = []
    for refined in (1, 3, 9):
        parameters = {"diffusivity_u": 2.0e-3, "diffusivity_v": 1.0e-3}
        model = make("gray_scott", (12 * refined, 12 * refined), comm, None, parameters, periodic=True)
        start(model, {"u": smooth(0.0), "v": smooth(1.0)}).advance(8 * refined**2, 0.5 / refined**2)
        solutions.append([np.asarray(comm.bcast(field.gather())) for field in (model.u, model.v)])
    for coarse, middle, fine in zip(*solutions, strict=True):
        differences = [np.abs(coarse - middle[1::3, 1::3]).max(), np.abs(middle - fine[1::3, 1::3]).max()]
        assert orders(differences, ratio=3) == pytest.approx([2.0], abs=0.1)


def test_gray_scott_without_gradients_is_an_ordinary_differential_equation(comm):
    """Explicit Euler is of first order in time."""
    feed, kill, end, errors = 0.04, 0.06, 20.0, []

    def rate(t, y):
        u, v = y
        return [-u * v**2 + feed * (1 - u), u * v**2 - (feed + kill) * v]

    exact = solve_ivp(rate, (0.0, end), [0.6, 0.3], method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    for steps in (100, 200, 400):
        model = start(make("gray_scott", (8, 9, 10), comm, None, {"feed": feed, "kill": kill}), {"u": 0.6, "v": 0.3})
        model.advance(steps, end / steps)
        errors.append(max(abs(model.grid.max(f) - e) for f, e in zip((model.u, model.v), exact, strict=True)))
        assert model.grid.max(model.u) == model.grid.min(model.u)
    assert orders(errors) == pytest.approx([1.0, 1.0], abs=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gray_scott_in_space_is_that_in_the_plane_where_an_axis_does_not_matter(comm, axis):
    plane = make("gray_scott", (16, 20), comm, extent=(0.2, 0.3))
    start(plane, {"u": lambda x, y: 1 - y, "v": lambda x, y: np.sin(10 * x) * y}).advance(50, plane.stable_dt() / 2)
    shape, extent = [16, 20], [0.2, 0.3]
    shape.insert(axis, 8), extent.insert(axis, 1.0)
    space = make("gray_scott", shape, comm, extent=extent)

    def drop(function):
        return lambda *x: function(*(a for number, a in enumerate(x) if number != axis))

    start(space, {"u": drop(lambda x, y: 1 - y), "v": drop(lambda x, y: np.sin(10 * x) * y)})
    space.advance(50, plane.stable_dt() / 2)
    for flat, deep in ((plane.u, space.u), (plane.v, space.v)):
        expected, found = comm.bcast(flat.gather()), comm.bcast(deep.gather())
        assert (found == np.expand_dims(expected, axis)).all()


def test_gray_scott_keeps_its_balance(comm):
    """Diffusion moves, and the reaction turns u into v: only feed and decay change the integral of both."""
    model = start(make("gray_scott", (24, 30), comm), "square")
    dt, p = 0.5 * model.stable_dt(), model.parameters
    volume = math.prod(model.grid.extent)
    for _ in range(20):
        before = diagnostics(model)
        model.advance(1, dt)
        after = diagnostics(model)
        gain = p.feed * (volume - before["integral_u"]) - (p.feed + p.kill) * before["integral_v"]
        total = before["integral_u"] + before["integral_v"] + dt * gain
        assert after["integral_u"] + after["integral_v"] == pytest.approx(total, rel=1e-14)


def test_the_noise_breaks_the_symmetry_and_follows_the_seed(comm):
    first, second, third, calm = (
        comm.bcast(start(make("gray_scott", (32, 32), comm, None, chosen), "square").u.gather())
        for chosen in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"noise": 0.0})
    )
    assert (first == second).all()
    assert (first != third).mean() > 0.99
    assert (first != first.T).mean() > 0.9
    assert np.abs(first / calm - 1).max() <= 0.01
    assert np.abs(first / calm - 1).mean() == pytest.approx(0.005, rel=0.1)
    assert set(calm.ravel()) == {0.5, 1.0}


@pytest.mark.parametrize("extent", [0.6, 3.0, 60.0])
@pytest.mark.parametrize(("feed", "kill"), [(0.01, 0.04), (0.035, 0.065), (0.1, 0.01)])
def test_gray_scott_at_its_largest_step_stays_between_none_and_all(comm, feed, kill, extent):
    """From grids where diffusion sets the step to those where the reaction does."""
    model = make("gray_scott", (32, 32), comm, None, {"feed": feed, "kill": kill}, extent=(extent, extent))
    start(model, "square").advance(1000, model.stable_dt())
    for field in model.state.values():
        assert 0 <= model.grid.min(field) <= model.grid.max(field) <= 1.01  # where noise may have begun


def test_gray_scott_on_a_line_is_refused(comm):
    with pytest.raises(hf.InputError, match="two or three"):
        make("gray_scott", (32,), comm)


# -- all ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space_order", [None, 2, 4, 8])
def test_the_stable_step_is_the_largest(comm, space_order):
    """The shortest wave that the grid holds, a checkerboard, grows just above the limit and not just below it."""
    kernel, parameters = ("wave", {"space_order": space_order}) if space_order else ("heat", {})

    def checkerboard(x, y):
        return np.sin(16 * math.pi * x) * np.sin(20 * math.pi * y)

    greatest = []
    for share in (0.999, 1.02):
        model = start(make(kernel, (16, 20), comm, None, parameters, periodic=True), {"u": checkerboard})
        dt = share * model.stable_dt()
        model.prepare(dt)
        model.start(dt)
        model.advance(400, dt)
        greatest.append(model.grid.norm(model.u, float("inf")))
    assert greatest[0] < 2
    assert greatest[1] > 1000


@pytest.mark.parametrize("shape", [(20, 17), (12, 9, 11)])
@pytest.mark.parametrize(
    ("kernel", "parameters"),
    [("heat", {"source": 0.1}), ("wave", {"space_order": 2, "amplitude": 1.0, "frequency": 3.0}), ("gray_scott", {})],
)
def test_every_bit_is_the_same_as_on_one_rank(comm, kernel, parameters, shape):
    fields, numbers = [], []
    for ranks in (comm, MPI.COMM_SELF):
        walls = {(0, 0): hf.Dirichlet(lambda t: math.sin(t)), (0, 1): hf.Neumann(0.3)}
        model = make(kernel, shape, ranks, walls, parameters, periodic=[axis == 1 for axis in range(len(shape))])
        start(model, model.states()[0])
        dt = 0.8 * model.stable_dt()
        model.prepare(dt)
        model.start(dt)
        model.advance(50, dt)
        fields.append([field.gather() for field in model.state.values()])
        numbers.append(diagnostics(model))
    assert numbers[0] == numbers[1]
    if comm.rank == 0:
        assert all((many == one).all() for many, one in zip(*fields, strict=True))
