"""The memory of a block that moves, and what a node can still give: of the system, within limits of control groups."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hpcframe.grid.memory import allocate, available_bytes, move

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with 64 GiB available and no limits."""
    put(tmp_path, "proc/meminfo", f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {64 * 2**20} kB\n")
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    return tmp_path


def put(root: Path, name: str, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def test_without_limits_it_is_what_linux_calls_available(root):
    assert available_bytes(root) == 64 * GIB


def test_this_machine_has_some_memory_and_not_more_than_it_was_built_with():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_bytes() <= total


@pytest.mark.parametrize("limited", ["", "slurm/job_7", "slurm/job_7/step_0/task_3"])
def test_a_limit_of_version_2_on_any_level_counts(root, limited):
    put(root, "proc/self/cgroup", "0::/slurm/job_7/step_0/task_3\n")
    for level in ("", "slurm", "slurm/job_7", "slurm/job_7/step_0", "slurm/job_7/step_0/task_3"):
        put(root, f"sys/fs/cgroup/{level}/memory.max", "max\n")
        put(root, f"sys/fs/cgroup/{level}/memory.current", 3 * GIB)
    put(root, f"sys/fs/cgroup/{limited}/memory.max", 10 * GIB)
    assert available_bytes(root) == 7 * GIB


def test_a_limit_of_version_1_counts(root):
    put(root, "proc/self/cgroup", "9:cpu,cpuacct:/slurm\n4:memory:/slurm/job_7\n1:name=systemd:/a:b\n0::/\n")
    put(root, "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", 9223372036854771712)  # none
    put(root, "sys/fs/cgroup/memory/slurm/memory.usage_in_bytes", GIB)
    put(root, "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", 8 * GIB)
    put(root, "sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", 2 * GIB)
    assert available_bytes(root) == 6 * GIB


def test_in_a_container_the_limit_is_where_it_sees_its_own_group(root):
    put(root, "proc/self/cgroup", "4:memory:/docker/0123\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", 4 * GIB)
    put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", GIB)
    assert available_bytes(root) == 3 * GIB


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used", "prefix"),
    [
        ("0::/job", "job", "memory.max", "memory.current", ""),
        ("4:memory:/job", "memory/job", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_files_that_linux_keeps_in_memory_make_place(root, line, folder, limit, used, prefix):
    """A checkpoint that was just written fills a group up to its limit, which takes no memory from anybody."""
    put(root, "proc/self/cgroup", line)
    put(root, f"sys/fs/cgroup/{folder}/{limit}", 10 * GIB)
    put(root, f"sys/fs/cgroup/{folder}/{used}", 10 * GIB)
    stat = f"anon {2 * GIB}\n{prefix}inactive_file {5 * GIB}\n{prefix}active_file {2 * GIB}\n"
    put(root, f"sys/fs/cgroup/{folder}/memory.stat", stat)
    assert available_bytes(root) == 7 * GIB


def test_a_group_over_its_limit_leaves_nothing(root):
    put(root, "proc/self/cgroup", "0::/job")
    put(root, "sys/fs/cgroup/job/memory.max", GIB)
    put(root, "sys/fs/cgroup/job/memory.current", 2 * GIB)
    assert available_bytes(root) == 0


def resident():
    """Memory (bytes) that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes memory back at once")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_block_moves_without_taking_the_memory_of_two(threads):
    points = (64, 256, 256)
    source = allocate((), points, (0, 0, 0), np.dtype("float64"))[:, :256, :256]
    source[...] = np.arange(64.0)[:, None, None]
    before = resident()
    target = allocate((), (70, 258, 258), (3, 1, 1), np.dtype("float64"), threads=0)[3:67, 1:257, 1:257]
    move(source, target, threads)
    assert (target == np.arange(64.0)[:, None, None]).all()
    assert resident() - before < source.nbytes / 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is held")
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_memory_is_touched_when_it_is_made_unless_nobody_shall(threads):
    before = resident()
    block = allocate((), (130, 256, 256), (1, 1, 1), np.dtype("float64"), threads)
    assert (resident() - before > 0.95 * block.nbytes) == (threads > 0)


@pytest.mark.parametrize("points", [(5,), (3, 4), (1, 1, 300000)])
def test_any_block_moves(points):
    source = np.arange(float(np.prod(points))).reshape(points)
    expected, target = source.copy(), np.zeros(points)
    move(source, target)
    assert np.array_equal(target, expected)
