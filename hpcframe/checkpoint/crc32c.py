"""CRC32C, the checksum of tiles: iSCSI's and ext4's, with a machine instruction of its own on x86 and ARM.

The polynomial is that of G. Castagnoli, S. Braeuer and M. Herrmann, IEEE Transactions on Communications 41 (1993),
883-892, bits reflected, all ones before and after: RFC 3720, appendix B.4. The instruction takes three cycles and can
begin every cycle, so three runs of a buffer are done at a time and joined: V. Gopal et al., Fast CRC computation for
iSCSI polynomial using CRC32 instruction, Intel 2011.
"""

from __future__ import annotations

import functools
import inspect
import platform
import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from hpcframe.compilation import compile_here, compile_once_a_node

POLYNOMIAL = 0x82F63B78  # reflected
ONES = 0xFFFFFFFF
RUN = 1024  # words of 8 bytes in each of three runs that are done at a time
SIGNATURE = "uint64(Array(uint64, 1, 'C', readonly=True), uint64, uint64[:, ::1])"

INSTRUCTIONS = {  # processor: the feature that LLVM names, its function, and the type of the state
    "x86_64": ("sse4.2", "llvm.x86.sse42.crc32.64.64", ir.IntType(64)),
    "aarch64": ("crc", "llvm.aarch64.crc32cx", ir.IntType(32)),
}


def crc32c(data: Any, before: int = 0) -> int:
    """The checksum of bytes. Releases the interpreter's lock. Not collective.

    Args:
        data: anything with a buffer that is contiguous: bytes, a memoryview, an array.
        before: the checksum of what comes before, to continue it.

    Raises:
        ValueError: the buffer is not contiguous in C order.
    """
    content = np.frombuffer(data, np.uint8) if memoryview(data).nbytes else np.empty(0, np.uint8)
    head = min(-content.ctypes.data % 8, content.size)
    tail = content.size - (content.size - head) % 8
    state = _bytewise(content[:head], before ^ ONES)
    state = int(_loop()(content[head:tail].view(np.uint64), state, _loop_tables()))
    return _bytewise(content[tail:], state) ^ ONES


def combine(first: int, second: int, second_length: int) -> int:
    """The checksum of two pieces from those of each, without reading them again. Not collective.

    Args:
        second_length: bytes of the second piece.

    Raises:
        ValueError: that length is negative.
    """
    if second_length < 0:
        raise ValueError(f"second_length is {second_length}: a piece cannot have fewer than 0 bytes")
    return _times(_power_of_x(8 * second_length), first) ^ second


def of_zeros(count: int) -> int:
    """The checksum of so many bytes that are zero. Not collective."""
    return _times(_power_of_x(8 * count), ONES) ^ ONES


def ready(node: Any) -> None:
    """Compile once a node. Collective over `node`, a communicator of the ranks on this machine."""
    loop = _chosen()
    compile_once_a_node(loop, SIGNATURE, node, _identity(loop))


@functools.cache
def _loop() -> Any:
    loop = _chosen()
    return compile_here(loop, SIGNATURE, _identity(loop))


def has_instruction() -> bool:
    """Whether this processor has an instruction for it, and LLVM knows it by the expected name."""
    feature = INSTRUCTIONS.get(platform.machine(), ("", "", None))[0]
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


def _chosen() -> Callable[..., Any]:
    return by_instruction if has_instruction() else by_table


def _identity(loop: Callable[..., Any]) -> str:
    """The name, as both loops have one signature and one source: that of the module, which holds all they call."""
    return f"{loop.__qualname__}\n{inspect.getsource(sys.modules[__name__])}"


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """One step: the state and eight more bytes."""
    _, name, kind = INSTRUCTIONS[platform.machine()]
    word = ir.IntType(64)
    function = builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, (kind, word)))
    state = arguments[0] if kind == word else builder.trunc(arguments[0], kind)
    result = builder.call(function, (state, arguments[1]))
    return result if kind == word else builder.zext(result, word)


@intrinsic
def _step(typing_context: Any, state: Any, word: Any) -> Any:
    return types.uint64(types.uint64, types.uint64), _emit


def by_instruction(words: Any, state: Any, tables: Any) -> Any:
    """The state after some words; `tables` move a state over a run of zeros."""
    at = 0
    while at + 3 * RUN <= words.size:
        first, second, third = state, np.uint64(0), np.uint64(0)
        for index in range(at, at + RUN):
            first = _step(first, words[index])
            second = _step(second, words[index + RUN])
            third = _step(third, words[index + 2 * RUN])
        state = second
        for byte in range(4):
            state ^= tables[byte, (first >> np.uint64(8 * byte)) & np.uint64(255)]
        first, state = state, third
        for byte in range(4):
            state ^= tables[byte, (first >> np.uint64(8 * byte)) & np.uint64(255)]
        at += 3 * RUN
    for index in range(at, words.size):
        state = _step(state, words[index])
    return state


def by_table(words: Any, state: Any, tables: Any) -> Any:
    """The same without the instruction: eight bytes at a time, by one table for each."""
    for word in words:
        mixed, state = word ^ state, np.uint64(0)
        for byte in range(8):
            state ^= tables[byte, (mixed >> np.uint64(8 * byte)) & np.uint64(255)]
    return state


@functools.cache
def _loop_tables() -> npt.NDArray[np.uint64]:
    return tables_for_instruction() if has_instruction() else tables_for_bytes()


def tables_for_instruction() -> npt.NDArray[np.uint64]:
    """(4, 256): what each byte of a state becomes after a run of zeros."""
    shift = _power_of_x(64 * RUN)
    return np.array([[_times(shift, value << 8 * byte) for value in range(256)] for byte in range(4)], np.uint64)


def tables_for_bytes() -> npt.NDArray[np.uint64]:
    """(8, 256): what byte k of eight adds to the state after them."""
    shifts = [_power_of_x(8 * (8 - byte)) for byte in range(8)]
    return np.array([[_times(shift, value) for value in range(256)] for shift in shifts], np.uint64)


def _bytewise(content: npt.NDArray[np.uint8], state: int) -> int:
    """For the few bytes at the ends that fill no word."""
    for value in content.tolist():
        state ^= value
        for _ in range(8):
            state = (state >> 1) ^ (POLYNOMIAL if state & 1 else 0)
    return state


def _times(a: int, b: int) -> int:
    """The product of two polynomials modulo that of the CRC; bit 31 is the coefficient of x^0."""
    product = 0
    while a:
        if a & 0x80000000:
            product ^= b
        a = a << 1 & ONES
        b = (b >> 1) ^ (POLYNOMIAL if b & 1 else 0)
    return product


@functools.cache
def _power_of_x(exponent: int) -> int:
    """x to a power, by squaring."""
    result, square = 0x80000000, 0x40000000
    while exponent:
        if exponent & 1:
            result = _times(result, square)
        square = _times(square, square)
        exponent >>= 1
    return result
