"""How much of a cache a core has, and what a wavefront needs of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcframe.stencils.caches import UNKNOWN, bytes_of_front, cache_of_a_core


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ([("Data", "32K", "0"), ("Unified", "512K", "0"), ("Unified", "32768K", "0-7")], 4 * 2**20),
        ([("Unified", "2M", "0"), ("Unified", "36M", "0-17,36-53")], 2 * 2**20),  # the share of the common one is less
        ([("Instruction", "64K", "0"), ("Data", "64K", "0")], 2**16),
        ([("Data", "48K", "0,48"), ("Unified", "2M", "0,48"), ("Unified", "32M", "0-15,48-63")], 2 * 2**20),
        ([], UNKNOWN),
    ],
)
def test_the_largest_share_counts(tmp_path, caches, expected):
    for number, (kind, size, processors) in enumerate(caches):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("type", kind), ("size", size), ("shared_cpu_list", processors)):
            (folder / name).write_text(text + "\n")
    assert cache_of_a_core(tmp_path) == expected


@given(st.integers(1, 16), st.integers(1, 8), st.integers(1, 99), st.integers(1, 4))
def test_a_front_holds_at_least_what_one_step_reads_and_grows_with_each_step(depth, planes, rows, reach):
    points = (100, 80, 60)
    held = bytes_of_front(depth, planes, rows, reach, points, 8)
    assert held >= (planes + 2 * reach) * min(rows + 2 * reach, 80) * 60 * 8
    assert held < bytes_of_front(depth + 1, planes, rows, reach, points, 8)
