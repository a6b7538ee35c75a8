"""The cut of a grid over ranks: every cell has one owner, blocks are even, and little surface is communicated."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpcframe.errors import InputError
from hpcframe.grid.decomposition import Decomposition, decompose
from hpcframe.grid.halo import box_reads, check_halo, halo_of, widths
from hpcframe.grid.memory import CACHE_LINE, PAGE, allocate, padded_shape
from hpcframe.protocol import MPIRUN, TASK_COUNTS, check_launch, check_protocol
from hpcframe.stencils.regions import split

LARGE = {1: (150,), 2: (131, 10), 3: (129, 5, 4)}  # their first axis alone can be cut into 128 blocks


def one_node(shape, ranks, periodic=None, wanted=None):
    return decompose(shape, periodic or (False,) * len(shape), [0] * ranks, wanted)


def owners(cut):
    """The rank of every cell, and how many ranks claim it."""
    rank_of, claims = np.full(cut.shape, -1), np.zeros(cut.shape, int)
    for rank in range(cut.ranks):
        rank_of[cut.block(rank)] = rank
        claims[cut.block(rank)] += 1
    return rank_of, claims


def surface_between(owner, periodic):
    """Pairs of neighbouring cells that belong to different owners."""
    pairs = 0
    for axis, wraps in enumerate(periodic):
        differ = owner != np.roll(owner, -1, axis)
        pairs += np.count_nonzero(differ if wraps else np.delete(differ, -1, axis))
    return pairs


def layouts(ranks, shape):
    """Every way to write `ranks` as a product that leaves no block empty, by brute force."""
    choices = [range(1, min(ranks, length) + 1) for length in shape]
    return [layout for layout in itertools.product(*choices) if math.prod(layout) == ranks]


def small_grids(longest=8):
    sizes = st.lists(st.tuples(st.integers(1, longest), st.booleans()), min_size=1, max_size=3)
    return sizes.map(lambda axes: (tuple(n for n, _ in axes), tuple(wraps for _, wraps in axes)))


# -- ownership --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_cell_has_one_owner_for_any_number_of_ranks(ndim):
    for ranks in range(1, 129):
        rank_of, claims = owners(one_node(LARGE[ndim], ranks))
        assert np.all(claims == 1), ranks
        assert len(np.unique(rank_of)) == ranks, "a rank owns nothing"


@given(small_grids(), st.integers(1, 64))
def test_blocks_of_an_axis_differ_by_at_most_one_cell(grid, ranks):
    shape, periodic = grid
    assume(layouts(ranks, shape))
    cut = one_node(shape, ranks, periodic)
    lengths = [[part.stop - part.start for part in cut.block(rank)] for rank in range(ranks)]
    for along_axis in zip(*lengths, strict=True):
        assert max(along_axis) - min(along_axis) <= 1
    assert cut.smallest == tuple(map(min, zip(*lengths, strict=True)))


@pytest.mark.parametrize("wanted", [(0, 0, 1), (0, 3, 0), (2, 0, 2), (1, 4, 3)])
def test_given_axes_are_kept_and_free_ones_are_chosen(wanted):
    cut = one_node((8, 8, 8), 12, wanted=wanted)
    assert math.prod(cut.layout) == 12
    assert all(given in (0, chosen) for given, chosen in zip(wanted, cut.layout, strict=True))
    assert np.all(owners(cut)[1] == 1)


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
def test_a_staggered_field_has_one_more_point_on_axes_that_end_at_walls(periodic):
    cut = one_node((7, 5), 6, periodic)
    for staggered in [(), (0,), (1,), (0, 1)]:
        claims = np.zeros(cut.points(staggered), int)
        for rank in range(6):
            claims[cut.block(rank, staggered)] += 1
        assert np.all(claims == 1)
        extra = [axis in staggered and not wraps for axis, wraps in enumerate(periodic)]
        assert claims.shape == (7 + extra[0], 5 + extra[1])


@given(small_grids(5), st.integers(1, 24))
def test_neighbours_are_mutual_and_adjoin(grid, ranks):
    shape, periodic = grid
    assume(layouts(ranks, shape))
    cut = one_node(shape, ranks, periodic)
    rank_of, _ = owners(cut)
    for rank, direction in itertools.product(range(ranks), itertools.product((-1, 0, 1), repeat=len(shape))):
        other = cut.neighbour(rank, direction)
        beyond = [
            (part.start, part.stop, part.start - 1)[d] for part, d in zip(cut.block(rank), direction, strict=True)
        ]
        inside = all(wraps or 0 <= at < length for at, length, wraps in zip(beyond, shape, periodic, strict=True))
        assert (other is not None) == inside
        if other is not None:
            assert other == rank_of[tuple(at % length for at, length in zip(beyond, shape, strict=True))]
            assert cut.neighbour(other, [-d for d in direction]) == rank


# -- surface and nodes ------------------------------------------------------------------------------------------


@given(small_grids(), st.integers(1, 32))
def test_no_other_layout_has_less_surface(grid, ranks):
    shape, periodic = grid
    possible = layouts(ranks, shape)
    assume(possible)
    surfaces = [
        surface_between(owners(Decomposition(shape, periodic, layout, tuple(range(ranks))))[0], periodic)
        for layout in possible
    ]
    assert surface_between(owners(one_node(shape, ranks, periodic))[0], periodic) == min(surfaces)


@given(small_grids(), st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_nodes_of_equal_size_own_boxes_with_the_least_surface_between_them(grid, nodes, ranks_a_node, random):
    shape, periodic = grid
    ranks = nodes * ranks_a_node
    possible = layouts(ranks, shape)
    assume(possible)
    node_of_rank = [node for node in range(nodes) for _ in range(ranks_a_node)]
    random.shuffle(node_of_rank)  # as a launcher that deals ranks out to nodes in turn
    node_of = np.array(node_of_rank)[owners(decompose(shape, periodic, node_of_rank))[0]]
    for node in range(nodes):
        assert fills_its_bounding_box(node_of == node)
    boxes = {outer for layout in possible for outer in layouts(nodes, layout) if divides(outer, layout)}
    surfaces = [
        surface_between(owners(Decomposition(shape, periodic, outer, tuple(range(nodes))))[0], periodic)
        for outer in boxes
    ]
    assert surface_between(node_of, periodic) == min(surfaces)


@pytest.mark.parametrize("sizes", [(4, 2), (6, 3, 3), (8, 4), (5, 3), (12, 8, 4)])
def test_nodes_of_unequal_size_own_boxes_of_their_greatest_common_divisor(sizes):
    node_of_rank = [node for node, count in enumerate(sizes) for _ in range(count)]
    rank_of, claims = owners(decompose((24, 24), (False, True), node_of_rank))
    assert np.all(claims == 1)
    group = math.gcd(*sizes)
    for first in range(0, len(node_of_rank), group):
        assert fills_its_bounding_box((rank_of >= first) & (rank_of < first + group))


def divides(outer, layout):
    return all(parts % boxes == 0 for boxes, parts in zip(outer, layout, strict=True))


def fills_its_bounding_box(cells):
    return np.count_nonzero(cells) == math.prod(np.ptp(at) + 1 for at in np.nonzero(cells))


# -- what is refused --------------------------------------------------------------------------------------------


@given(small_grids(5), st.integers(1, 150), st.integers(0, 3))
def test_more_ranks_than_fit_are_refused_with_numbers_of_ranks_that_do(grid, ranks, first):
    shape, _ = grid
    wanted = (min(first, shape[0]), *[0] * (len(shape) - 1))
    if any(wanted[0] in (0, layout[0]) for layout in layouts(ranks, shape)):
        one_node(shape, ranks, wanted=wanted)
        return
    with pytest.raises(InputError) as refused:
        one_node(shape, ranks, wanted=wanted)
    suggested = re.search(r"run with (\d+)(?: or (\d+))? ranks", str(refused.value))
    assert suggested or "change or leave out the rank layout" in str(refused.value)
    for number in suggested.groups() if suggested else ():
        if number:
            assert np.all(owners(one_node(shape, int(number), wanted=wanted))[1] == 1)


def test_a_layout_with_empty_blocks_or_another_number_of_ranks_is_refused():
    with pytest.raises(InputError, match=r"\[4, 1\] cuts a grid of 3 x 8 cells into empty blocks"):
        one_node((3, 8), 4, wanted=(4, 1))
    with pytest.raises(InputError, match=r"3 ranks .* as \[2, 2\]: run with 4 ranks"):
        one_node((8, 8), 3, wanted=(2, 2))
    with pytest.raises(InputError, match="leave out the rank layout"):
        one_node((8, 8), 1, wanted=(2, 2))


def test_a_halo_wider_than_the_smallest_block_is_refused():
    cut = one_node((7, 8), 4, wanted=(2, 2))
    check_halo("u", (3, 4), cut)
    with pytest.raises(InputError, match=r"'u' needs a halo of 4 along axis 0, but the smallest .* has 3 cells"):
        check_halo("u", (4, 4), cut)


@pytest.mark.parametrize("name", TASK_COUNTS)
def test_tasks_that_do_not_see_each_other_are_refused(name):
    check_launch(4, "MPICH Version: 5.0.2", {name: "4"})
    check_launch(1, "MPICH Version: 5.0.2", {name: "1"})
    check_launch(1, "MPICH Version: 5.0.2", {})
    with pytest.raises(InputError, match=rf"started 4 tasks \({name}\), but MPI sees .* alone.*srun --mpi=pmi2"):
        check_launch(1, "MPICH Version: 5.0.2\nMPICH Release date: unknown", {name: "4"})


@pytest.mark.parametrize(
    ("library", "right", "wrong"),
    [("Open MPI v5.0.11, package: x", "pmix_v4", "pmi2"), ("MPICH Version: 5.0.2", "pmi2", "pmix")],
)
def test_a_launcher_that_speaks_another_protocol_is_refused_before_mpi_starts(library, right, wrong):
    check_protocol(library, {"SLURM_STEP_ID": "0", "SLURM_MPI_TYPE": right})
    check_protocol(library, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_MPI_TYPE": "none"})
    check_protocol(library, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "2"})
    check_protocol(library, {})
    with pytest.raises(InputError, match=rf"speaks no protocol .*start it by `srun --mpi={right[:4]}`"):
        check_protocol(library, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"})
    with pytest.raises(InputError, match=rf"srun speaks {wrong}, .*start it by `srun --mpi={right[:4]}`"):
        check_protocol(library, {"SLURM_STEP_ID": "0", "SLURM_MPI_TYPE": wrong})


@pytest.mark.parametrize("launched", [{}, *({"SLURM_STEP_ID": "0", name: "4"} for name in MPIRUN)])
def test_what_a_site_sets_for_srun_does_not_concern_other_launchers(launched):
    check_protocol("Open MPI v5.0.11", {"SLURM_MPI_TYPE": "pmi2", **launched})


def test_one_process_in_the_allocation_of_a_larger_job_is_no_rank_of_it():
    check_launch(1, "Open MPI v5.0.11", {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"})


# -- halos, regions, memory -------------------------------------------------------------------------------------

OFFSETS = st.integers(1, 3).flatmap(lambda ndim: st.frozensets(st.tuples(*[st.integers(-3, 3)] * ndim), max_size=6))


@given(OFFSETS)
def test_widths_hold_what_the_offsets_reach_and_no_more(offsets):
    found = widths(offsets)
    reached = {}
    for offset in offsets:  # from every point of a block of four cells along each axis
        for point in itertools.product(range(4), repeat=len(offset)):
            at = [p + o for p, o in zip(point, offset, strict=True)]
            direction = tuple((p > 3) - (p < 0) for p in at)
            depth = [-p if p < 0 else max(p - 3, 0) for p in at]
            if any(direction):
                reached[direction] = tuple(map(max, depth, reached.get(direction, depth)))
    assert found == reached


def test_a_star_reaches_faces_and_a_box_corners():
    star = [(1, 0, 0), (-1, 0, 0), (0, 2, 0), (0, 0, -1)]
    assert widths(star) == {(-1, 0, 0): (1, 0, 0), (1, 0, 0): (1, 0, 0), (0, 1, 0): (0, 2, 0), (0, 0, -1): (0, 0, 1)}
    assert halo_of(star, 3) == (1, 2, 1)
    assert len(widths(box_reads((1, 2, 1)))) == 26
    assert len(widths(box_reads((1, 0, 1)))) == 8


REGIONS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3)


@given(REGIONS)
def test_interior_and_borders_hold_each_point_once(axes):
    points, margins = tuple(n for n, _, _ in axes), [(lower, upper) for _, lower, upper in axes]
    interior, borders = split(points, margins)
    counts, inner = np.zeros(points, int), np.zeros(points, int)
    for box in interior + borders:
        counts[tuple(slice(*part) for part in box)] += 1
    for box in interior:
        inner[tuple(slice(*part) for part in box)] += 1
    assert np.all(counts == 1)
    clear = tuple(slice(lower, max(lower, n - upper)) for n, lower, upper in axes)
    expected = np.zeros(points, int)
    expected[clear] = 1
    assert np.array_equal(inner, expected), "the interior is what lies between all margins"


@given(st.lists(st.integers(1, 70), min_size=1, max_size=3), st.sampled_from([4, 8, 16]))
def test_rows_fill_odd_numbers_of_cache_lines_and_planes_do_not_collide(points, itemsize):
    padded = padded_shape(tuple(points), itemsize)
    row = padded[-1] * itemsize
    assert row % (2 * CACHE_LINE) == CACHE_LINE
    assert row < points[-1] * itemsize + 2 * CACHE_LINE
    assert padded[:-2] == tuple(points[:-2])
    if len(points) > 1:
        assert padded[-2] - points[-2] in (0, 1)
    if len(points) == 3:
        assert padded[1] * row % PAGE != 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128", "int32"])
@pytest.mark.parametrize("halo", [0, 1, 3])
def test_the_first_interior_point_is_on_a_cache_line(dtype, halo):
    array = allocate((2,), (5 + 2 * halo, 9 + 2 * halo), (halo, halo), np.dtype(dtype))
    assert array.shape[0] == 2
    assert not array.any()
    for component in range(2):
        for row in range(5 + 2 * halo):
            assert array[component, row, halo:].ctypes.data % CACHE_LINE == 0
