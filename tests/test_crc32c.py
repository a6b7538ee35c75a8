"""CRC32C: the published values, on any processor, however the bytes lie in memory and however they are cut."""

import shutil
import sys
import tempfile
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import event
from reference import everywhere

from hpcframe import compilation
from hpcframe.checkpoint import crc32c as module
from hpcframe.checkpoint.crc32c import RUN, combine, crc32c

HAS_INSTRUCTION = module.has_instruction()  # asked before a test says otherwise
BLOCK = 3 * RUN * 8  # bytes that the loop by instruction takes at a time
# RFC 3720, appendix B.4: an iSCSI read command among them.
READ_COMMAND = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
)
PUBLISHED = [
    (b"", 0),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (READ_COMMAND, 0xD9963A56),
]


def forget():
    """As in a new process: the loop is chosen and compiled, or loaded, again."""
    module._loop.cache_clear()
    module._loop_tables.cache_clear()


@pytest.fixture(params=["instruction", "tables"], scope="module")
def way(request):
    """The instruction where this processor has one, and what is done where it has none."""
    if request.param == "instruction" and not HAS_INSTRUCTION:
        pytest.skip("this processor has no instruction for CRC32C")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "has_instruction", lambda: request.param == "instruction")
        forget()
        yield request.param
    forget()


def noise(size, seed=1):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def bit_by_bit(content):
    """The definition: division by the polynomial as it is printed, highest power first, a bit at a time."""
    state = 0xFFFFFFFF
    for byte in bytes(content):
        for bit in range(8):
            carried = state >> 31 ^ byte >> bit & 1
            state = state << 1 & 0xFFFFFFFF ^ (0x1EDC6F41 if carried else 0)
    return int(f"{state:032b}"[::-1], 2) ^ 0xFFFFFFFF


@pytest.mark.parametrize(("content", "expected"), PUBLISHED)
def test_published_values(way, content, expected):
    assert crc32c(content) == expected
    assert bit_by_bit(content) == expected, "what the other tests compare with"


@given(st.binary(max_size=300), st.integers(0, 7))
def test_any_bytes_at_any_alignment(way, content, shift):
    memory = np.zeros(len(content) + 16, np.uint8)
    start = -memory.ctypes.data % 8 + shift
    memory[start : start + len(content)] = np.frombuffer(content, np.uint8)
    assert crc32c(memory[start : start + len(content)]) == bit_by_bit(content)


@settings(max_examples=15)
@given(st.integers(0, 2), st.integers(-20, 20), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_lengths_about_whole_blocks(way, blocks, more, shift, seed):
    content = noise(shift + max(0, blocks * BLOCK + more), seed)[shift:]
    assert crc32c(content) == bit_by_bit(content)


@given(st.integers(0, 4 * BLOCK), st.integers(0, 4 * BLOCK), st.integers(0, 2**32 - 1))
def test_in_pieces_it_is_that_of_the_whole(way, first, second, seed):
    content = noise(first + second, seed)
    whole = crc32c(content)
    assert crc32c(content[first:], before=crc32c(content[:first])) == whole
    assert combine(crc32c(content[:first]), crc32c(content[first:]), second) == whole


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(1, 10_000))
def test_pieces_of_terabytes_are_combined_without_their_bytes(first, second, length, rounds):
    """This polynomial is x + 1 times a primitive one of degree 31: powers of x repeat after 2^31 - 1 (Castagnoli)."""
    period = 2**31 - 1
    assert combine(first, second, length + rounds * period) == combine(first, second, length)
    assert combine(first, second, period) == first ^ second


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="second_length is -1"):
        combine(1, 2, -1)


@pytest.mark.skipif(not HAS_INSTRUCTION, reason="this processor has no instruction for CRC32C")
def test_both_ways_agree_on_a_tile():
    """Two loops, compiled side by side, kept apart in the cache."""
    words = noise(4 * 2**20 + 8).view(np.uint64)
    loops = {module.by_instruction: module.tables_for_instruction(), module.by_table: module.tables_for_bytes()}
    compiled = [compilation.compile_here(loop, module.SIGNATURE, module._identity(loop)) for loop in loops]
    assert [code.__name__ for code in compiled] == [loop.__name__ for loop in loops]
    assert compiled[0] is not compiled[1]
    first, second = (code(words, 1, tables) for code, tables in zip(compiled, loops.values(), strict=True))
    assert first == second


def test_a_flipped_bit_is_seen_wherever_it_is(way):
    """In every byte of a short piece; in a long one where runs begin and end, and in between."""
    for size, places in ((67, range(67)), (2 * BLOCK + 99, range(0, 2 * BLOCK + 99, 509))):
        content = noise(size)
        right = crc32c(content)
        about_runs = [run * RUN * 8 + more for run in range(7) for more in (-1, 0) if 0 <= run * RUN * 8 + more < size]
        for place in {*places, *about_runs, size - 1}:
            for bit in range(8):
                content[place] ^= 1 << bit
                assert crc32c(content) != right, f"bit {bit} of byte {place}"
                content[place] ^= 1 << bit


def test_swapped_words_and_added_zeros_are_seen(way):
    content = noise(BLOCK + 64)
    swapped = content.reshape(-1, 8).copy()
    swapped[[0, RUN]] = swapped[[RUN, 0]]  # of one run into another
    assert len({crc32c(each) for each in (content, swapped, np.append(content, np.uint8(0)))}) == 3


def test_anything_with_a_contiguous_buffer(way):
    numbers = np.arange(4000.0).reshape(40, 100)
    expected = crc32c(numbers.tobytes())
    frozen = numbers.copy()
    frozen.flags.writeable = False
    for same in (numbers, frozen, memoryview(numbers), bytearray(numbers.tobytes()), numbers.view(np.int32)):
        assert crc32c(same) == expected
    assert crc32c(np.empty((0, 5))) == crc32c(bytearray()) == 0
    for strided in (numbers.T, numbers[:, ::2]):
        with pytest.raises(ValueError, match="contiguous"):
            crc32c(strided)


def between(content):
    """What a writer thread and the main thread did, in order, when Python itself never switches between them."""
    order, gate = [], threading.Lock()

    def write():
        gate.release()
        order.append("begun")
        crc32c(content)
        order.append("done")

    gate.acquire()
    writer = threading.Thread(target=write)
    writer.start()
    gate.acquire()
    order.append("main")
    writer.join()
    return order


def test_other_threads_run_meanwhile(way):
    content = noise(2**26)
    crc32c(content[:100])  # compiled
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # seconds: only who lets go of the interpreter's lock lets others in
    try:
        assert any(between(content) == ["begun", "main", "done"] for _ in range(50))
    finally:
        sys.setswitchinterval(usual)


def test_threads_that_come_first_at_once_get_the_same(way, tmp_path, monkeypatch):
    monkeypatch.setenv("HPCFRAME_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compilation, "_ready", {})
    forget()
    sums = []
    threads = [threading.Thread(target=lambda: sums.append(crc32c(b"123456789" * 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [bit_by_bit(b"123456789" * 5)] * 4


@pytest.mark.mpi
def test_one_rank_a_node_compiles_and_the_others_load(comm, monkeypatch):
    from mpi4py import MPI

    name = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    monkeypatch.setenv("HPCFRAME_CACHE_DIR", name)
    monkeypatch.setattr(compilation, "_ready", {})
    forget()
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    with event.install_recorder("numba:compile") as compiled:
        module.ready(node)
    assert everywhere(comm, bool(compiled.buffer) == (node.rank == 0))
    with event.install_recorder("numba:compile") as again:
        right = crc32c(b"123456789") == 0xE3069283
    assert everywhere(comm, right and not again.buffer)
    node.Free()
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(name)
