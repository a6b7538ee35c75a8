"""Stencils: every bit is what NumPy gives on the whole array, at any number of ranks."""

import itertools
import math

import pytest
from reference import SHAPES, by_numpy, grid_of, is_right, random_field

import hpcframe as hf

mpi = pytest.mark.mpi


@hf.stencil
def star_1d(v, u, k=0.1):
    v[0] = u[0] + k * (u[1] - 2.0 * u[0] + u[-1])


@hf.stencil
def star_2d(v, u, k=0.1):
    v[0, 0] = u[0, 0] + k * (u[1, 0] + u[-1, 0] - 4 * u[0, 0] + u[0, 1] + u[0, -1])


@hf.stencil
def star_3d(v, u, k=0.1):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        u[1, 0, 0] + u[-1, 0, 0] - 6.0 * u[0, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1]
    )


STARS = {1: star_1d, 2: star_2d, 3: star_3d}


# -- axes, dtypes, walls ----------------------------------------------------------------------------------------


@mpi
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_star_on_random_walls_gives_the_bits_of_numpy(comm, ndim, dtype):
    for seed in range(4):
        grid = grid_of(comm, ndim, seed)
        v, u = grid.field("v", dtype=dtype), random_field(grid, "u", seed, dtype=dtype)
        STARS[ndim](v, u)
        assert is_right(v, by_numpy(STARS[ndim], v, u, 0.1)), f"walls of seed {seed}"


@mpi
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_whole_numbers_stay_whole(comm, dtype):
    @hf.stencil
    def differences(v, u):
        v[0, 0] = 3 * u[1, 0] - u[0, -1] * u[0, 0] + u[0, 0] // 7 - u[-1, 1] % 5

    grid = hf.Grid(SHAPES[2], periodic=True, comm=comm)
    v, u = grid.field("v", dtype=dtype), random_field(grid, "u", dtype=dtype)
    differences(v, u)
    assert is_right(v, by_numpy(differences, v, u))


@mpi
def test_any_layout_of_ranks_gives_the_same_bits(comm):
    for layout in itertools.product(range(1, comm.size + 1), repeat=3):
        if math.prod(layout) == comm.size and all(n >= parts for n, parts in zip(SHAPES[3], layout, strict=True)):
            grid = grid_of(comm, 3, seed=5, ranks=layout)
            v, u = grid.field("v", halo=0), random_field(grid, "u")
            star_3d(v, u, 0.3)
            assert is_right(v, by_numpy(star_3d, v, u, 0.3)), layout


@mpi
def test_blocks_of_a_single_cell(comm):
    for periodic in (True, False):
        grid = hf.Grid((comm.size, 5, 1), periodic=periodic, ranks=(comm.size, 1, 1), comm=comm)
        v, u = grid.field("v"), random_field(grid, "u")
        star_3d(v, u, 0.3)
        assert is_right(v, by_numpy(star_3d, v, u, 0.3))


@mpi
def test_fields_may_have_halos_and_components_of_different_kinds(comm):
    @hf.stencil
    def divergence(v, flux, c):
        v[0, 0] = c[0, 0] * (flux[0, 1, 0] - flux[0, 0, 0]) - (flux[1, 0, 0] - flux[1, 0, -1])

    grid = grid_of(comm, 2, 3)
    v = grid.field("v", halo=2)
    flux, c = random_field(grid, "flux", components=(2,), halo=0), random_field(grid, "c", seed=5, halo=(0, 1))
    divergence(v, flux, c)
    assert is_right(v, by_numpy(divergence, v, flux, c))


@mpi
def test_fields_read_at_different_distances(comm):
    @hf.stencil
    def mixed(v, u, w):
        v[0, 0] = u[1, 0] - w[-2, 0] + w[2, 1] * u[0, -1] - w[1, 2] + w[0, -2]

    for ranks in ((comm.size, 1), (1, comm.size)):
        grid = hf.Grid((20, 18), periodic=(True, False), ranks=ranks, comm=comm)
        v, u, w = grid.field("v"), random_field(grid, "u"), random_field(grid, "w", 5)
        mixed(v, u, w)
        assert is_right(v, by_numpy(mixed, v, u, w))


@mpi
def test_components_are_written_one_by_one(comm):
    @hf.stencil
    def rotated(w, u, matrix):
        for row in range(2):
            w[row, 0, 0] = matrix[row, 0, 0, 0] * u[0, 1, 0] + matrix[row, 1, 0, 0] * u[1, 0, -1]

    grid = grid_of(comm, 2, 1)
    w, u = grid.field("w", components=(2,)), random_field(grid, "u", components=(2,))
    matrix = random_field(grid, "matrix", components=(2, 2))
    rotated(w, u, matrix)
    assert is_right(w, by_numpy(rotated, w, u, matrix))


@mpi
@pytest.mark.parametrize("periodic", [True, False])
def test_faces_read_centres_and_centres_read_faces(comm, periodic):
    @hf.stencil
    def gradient(faces, u):
        faces[0, 0] = u[0, 0] - u[-1, 0]

    @hf.stencil
    def divergence(v, faces):
        v[0, 0] = faces[1, 0] - 0.5 * faces[0, 0]

    grid = hf.Grid(SHAPES[2], periodic=(periodic, True), comm=comm)
    u, v, faces = random_field(grid, "u"), grid.field("v"), grid.field("faces", staggered=(0,), halo=0)
    gradient(faces, u)
    assert is_right(faces, by_numpy(gradient, faces, u))
    divergence(v, faces)
    assert is_right(v, by_numpy(divergence, v, faces))


@mpi
def test_several_outputs_are_written_in_one_sweep(comm):
    @hf.stencil
    def both(a, b, u, w, k):
        reaction = u[0, 0] * w[0, 0] * w[0, 0]
        a[0, 0] = u[0, 0] - k * reaction + u[1, 1]
        b[0, 0] = w[0, -1] + k * reaction

    grid = grid_of(comm, 2, 2)
    (a, b), (u, w) = grid.fields("a", "b"), (random_field(grid, name, seed=ord(name)) for name in "uw")
    both(a, b, u, w, 0.3)
    for field, expected in zip((a, b), by_numpy(both, a, b, u, w, 0.3), strict=True):
        assert is_right(field, expected)


@mpi
def test_one_field_may_be_read_as_two(comm):
    @hf.stencil
    def product(v, u, w):
        v[0, 0] = u[1, 0] * w[0, 2]

    grid = grid_of(comm, 2, 3)
    v, u = grid.field("v"), random_field(grid, "u")
    product(v, u, u)
    assert is_right(v, by_numpy(product, v, u, u))


# -- the generated loop -----------------------------------------------------------------------------------------


def test_the_source_of_the_loop_can_be_read():
    @hf.stencil
    def copied(v, u, k):
        v[0, 0] = k * u[0, 1] + 0.1

    assert "u[_at" in copied.source
    compile(copied.source, "loop", "exec")
    v, u = hf.Grid((4, 4)).fields("v", "u", dtype="float32")
    copied(v, u, 1.0)
    assert "float32(0.1)" in copied.source
    assert repr(copied) == "<stencil copied(v, u, k)>"
