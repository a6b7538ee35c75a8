"""The cut of arrays into tiles, and who owns each: every value is in one tile, and every tile is with one rank."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcframe.checkpoint.tiles import MOST_TILES, TILE_BYTES, Deal, Tiling, deal, tile_shape
from hpcframe.grid.decomposition import Decomposition


@dataclass(frozen=True)
class Case:
    """An array on some ranks, cut into tiles."""

    tiling: Tiling
    decomposition: Decomposition
    staggered: tuple[int, ...]

    @property
    def deals(self) -> list[Deal]:
        return [deal(self.tiling, self.decomposition, rank, self.staggered) for rank in range(self.decomposition.ranks)]

    @property
    def holder(self) -> np.ndarray:
        """The rank whose block has a point, for every element of the array."""
        rank_of = np.full(self.tiling.shape, -1)
        for rank in range(self.decomposition.ranks):
            rank_of[(..., *self.decomposition.block(rank, self.staggered))] = rank
        return rank_of


@st.composite
def cases(draw) -> Case:
    """Up to three axes, components before them, any layout and order of ranks, tiles of any size, also larger than
    the array, and often fewer of them than ranks."""
    ndim = draw(st.integers(1, 3))
    layout = tuple(draw(st.lists(st.integers(1, (12, 4, 3)[ndim - 1]), min_size=ndim, max_size=ndim)))
    shape = tuple(blocks + draw(st.integers(0, 6)) for blocks in layout)
    periodic = tuple(draw(st.lists(st.booleans(), min_size=ndim, max_size=ndim)))
    staggered = tuple(sorted(draw(st.sets(st.integers(0, ndim - 1)))))
    components = draw(st.sampled_from([(), (), (2,), (3, 2)]))
    order = draw(st.permutations(range(math.prod(layout))))
    decomposition = Decomposition(shape, periodic, layout, tuple(order))
    points = decomposition.points(staggered)
    tile = tuple(draw(st.integers(1, length + 2)) for length in points)
    return Case(Tiling(components + points, components + tile), decomposition, staggered)


# -- tiles --------------------------------------------------------------------------------------------------------


@given(cases())
def test_every_value_is_in_exactly_one_tile(case):
    count = np.zeros(case.tiling.shape, int)
    for place in case.tiling.places():
        count[case.tiling.box(place)] += 1
    assert np.all(count == 1)
    assert len(case.tiling.places()) == math.prod(case.tiling.counts)


@given(cases())
def test_a_tile_is_clipped_where_it_is_not_full(case):
    for place in case.tiling.places():
        lengths = tuple(part.stop - part.start for part in case.tiling.box(place))
        assert min(lengths) > 0
        assert case.tiling.is_clipped(place) == (lengths != case.tiling.tile)


sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=3).map(tuple)


@given(sizes, st.sampled_from([(), (3,), (2, 2)]), st.sampled_from([4, 8, 16]))
def test_tiles_are_small_and_none_is_needless(points, components, itemsize):
    shape = components + points
    tile = tile_shape(shape, len(components), itemsize)
    most = max(TILE_BYTES, math.prod(shape) * itemsize // MOST_TILES)
    assert tile[: len(components)] == components
    assert math.prod(tile) * itemsize <= most
    tiles = Tiling(shape, tile).counts
    if math.prod(shape) * itemsize <= most:
        assert math.prod(tiles) == 1
    assert all((count - 1) * length < whole for count, length, whole in zip(tiles, tile, shape, strict=True))


@pytest.mark.parametrize("shape", [(2**36,), (2**18, 2**18), (8192, 8192, 8192), (3, 5000, 5001, 4999)])
def test_the_manifest_of_a_huge_array_stays_small(shape):
    tile = tile_shape(shape, 1 if len(shape) > 3 else 0, 8)
    assert math.prod(Tiling(shape, tile).counts) <= 2 * MOST_TILES


def test_components_alone_may_make_a_tile_larger_than_the_limit():
    """A point is not cut."""
    assert tile_shape((TILE_BYTES, 4, 4), 1, 8) == (TILE_BYTES, 1, 1)


@pytest.mark.parametrize("layout", [(2, 2, 2), (1, 2, 4), (4, 4, 1), (1, 8, 1), (2, 1, 1), (1, 1, 1)])
def test_where_blocks_end_with_tiles_nothing_is_sent(layout):
    shape = (256, 512, 384)
    decomposition = Decomposition(shape, (False,) * 3, layout, tuple(range(math.prod(layout))))
    tiling = Tiling(shape, tile_shape(shape, 0, 8))
    for rank in range(decomposition.ranks):
        own = deal(tiling, decomposition, rank)
        assert not own.sent
        assert not own.received
        assert not own.shared
        assert len(own.whole) == math.prod(tiling.counts) // decomposition.ranks


# -- owners -------------------------------------------------------------------------------------------------------


@given(cases())
def test_every_tile_has_one_owner_and_that_has_most_of_it(case):
    owners = [(place, rank) for rank, own in enumerate(case.deals) for place in own.places]
    assert sorted(place for place, _ in owners) == case.tiling.places()
    holder = case.holder
    for place, rank in owners:
        counts = np.bincount(holder[case.tiling.box(place)].ravel())
        assert counts[rank] == counts.max()


@given(cases())
def test_a_tile_is_shared_where_another_rank_has_a_part_of_it(case):
    holder = case.holder
    for rank, own in enumerate(case.deals):
        assert not set(own.shared) & set(own.whole)
        for place in own.places:
            assert (place in own.shared) == bool(np.any(holder[case.tiling.box(place)] != rank))


@given(cases())
def test_what_one_rank_sends_another_receives_in_the_same_order_and_shape(case):
    deals = case.deals
    for sender, its in enumerate(deals):
        for receiver, others in enumerate(deals):
            sent = [(piece.place, piece.box) for piece in its.sent if piece.rank == receiver]
            received = [(piece.place, piece.box) for piece in others.received if piece.rank == sender]
            assert sent == received
            assert not (sent and sender == receiver)


@given(cases())
def test_the_pieces_of_a_tile_are_all_of_it_and_come_from_those_who_have_them(case):
    holder = case.holder
    for rank, own in enumerate(case.deals):
        made = np.zeros(case.tiling.shape, int)
        assert own.local.keys() == set(own.places)
        for place, box in own.local.items():
            made[box] += 1
            assert np.all(holder[box] == rank)
            assert _inside(box, case.tiling.box(place))
        for piece in own.received:
            made[piece.box] += 1
            assert np.all(holder[piece.box] == piece.rank)
            assert piece.place in own.shared
            assert _inside(piece.box, case.tiling.box(piece.place))
        wanted = np.zeros(case.tiling.shape, int)
        for place in own.places:
            wanted[case.tiling.box(place)] = 1
        assert np.array_equal(made, wanted)


@given(cases())
def test_every_value_of_a_rank_goes_to_one_tile(case):
    holder = case.holder
    for rank, own in enumerate(case.deals):
        gone = np.zeros(case.tiling.shape, int)
        for box in [*own.local.values(), *(piece.box for piece in own.sent)]:
            gone[box] += 1
        assert np.array_equal(gone, (holder == rank).astype(int))


def _inside(inner, outer) -> bool:
    return all(part.start >= whole.start and part.stop <= whole.stop for part, whole in zip(inner, outer, strict=True))


def test_more_ranks_than_tiles_leave_some_without_one():
    decomposition = Decomposition((8,), (False,), (8,), tuple(range(8)))
    places = [deal(Tiling((8,), (5,)), decomposition, rank).places for rank in range(8)]
    assert places == [((0,),), (), (), (), (), ((1,),), (), ()]
