"""Compiled code is kept once a node: found again when nothing changed, never used when anything did or might have."""

import inspect
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import types
import warnings

import numba
import numpy as np
import pytest
from mpi4py import MPI
from numba.core import event
from reference import everywhere, function_of

import hpcframe as hf
from hpcframe import compilation
from hpcframe.compilation import compile_once_a_node, source_of

SIGNATURE = "float64(float64)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("HPCFRAME_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compilation, "_ready", {})
    return tmp_path / "cache"


def double(x):
    return 2.0 * x


def treble(x):
    return 3.0 * x


def made(function, identity="some text", signature=SIGNATURE):
    """A compiled function as a new process would get it, and what it was told."""
    compilation._ready.clear()
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        compiled = compile_once_a_node(function, signature, MPI.COMM_SELF, identity)
    return compiled(1.0), [str(notice.message) for notice in notices]


def kept(folder):
    return sorted(folder.iterdir()) if folder.is_dir() else []


# -- one function -----------------------------------------------------------------------------------------------


def test_the_source_of_a_function_is_what_inspect_finds():
    for function in (made, adding, outer()):
        assert source_of(function) == inspect.getsource(function)


def adding(
    x,
    y=3.0,
):
    return sum(
        (
            x,
            y,
        )
    )


def outer():
    def inner(x):
        return [x, lambda: x]

    return inner


def test_what_was_compiled_once_is_loaded_by_the_next_process(folder):
    assert made(double) == (2.0, [])
    (file,) = kept(folder)
    assert made(treble) == (2.0, []), "the same identity: it is the code of the first that is found"
    assert kept(folder) == [file]


def test_another_identity_or_signature_is_other_code(folder):
    made(double)
    assert made(treble, identity="other text") == (3.0, [])
    assert made(treble, signature="float64(int64)") == (3.0, [])
    assert len(kept(folder)) == 3


def test_code_of_unknown_identity_is_not_kept(folder):
    assert made(double, identity=None) == (2.0, [])
    assert made(treble, identity=None) == (3.0, [])
    assert kept(folder) == []


def test_the_folder_and_its_files_are_the_users_own(folder):
    made(double)
    for path in (folder, *kept(folder)):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        assert path.stat().st_uid == os.getuid()


DAMAGE = {
    "empty": lambda code: b"",
    "cut": lambda code: code[:-1],
    "cut to the checksum": lambda code: code[:32],
    "longer": lambda code: code + b"\0",
    "one bit": lambda code: code[:100] + bytes([code[100] ^ 1]) + code[101:],
    "rubbish": lambda code: b"rubbish",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_compiled_again_with_a_notice(folder, damage):
    made(double)
    (file,) = kept(folder)
    file.write_bytes(damage(file.read_bytes()))
    result, notices = made(double)
    assert result == 2.0
    assert notices == [f"{file} is damaged: compiling again"]
    assert made(treble) == (2.0, []), "it was kept again"


def test_a_file_under_the_name_of_another_is_not_used(folder):
    made(double)
    (file,) = kept(folder)
    made(treble, identity="other text")
    (other,) = set(kept(folder)) - {file}
    other.write_bytes(file.read_bytes())
    result, notices = made(treble, identity="other text")
    assert result == 3.0
    assert notices == [f"{other} is damaged: compiling again"]


# -- folders that cannot or must not be used --------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, folder, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HPCFRAME_CACHE_DIR", str(tmp_path / "file" / "cache"))
    result, notices = made(double)
    assert result == 2.0
    assert len(notices) == 1
    assert "compiled code is not kept" in notices[0]
    assert "set HPCFRAME_CACHE_DIR to a folder that can be written" in notices[0]


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_neither_read_nor_written(folder, mode):
    made(double)
    before = kept(folder)
    folder.chmod(mode)
    result, notices = made(treble)
    assert result == 3.0, "what somebody may have put there was run"
    assert len(notices) == 1
    assert f"compiled code is not kept: {folder} " in notices[0]
    assert "can be written by others" in notices[0]
    made(treble, identity="other text")
    assert kept(folder) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_neither_read_nor_written(folder):
    made(double)
    before = kept(folder)
    os.chown(folder, 65534, 65534)
    result, notices = made(treble)
    assert result == 3.0
    assert len(notices) == 1
    assert f"compiled code is not kept: {folder} belongs to another user" in notices[0]
    assert kept(folder) == before


PROGRAM = """
    import resource, sys, warnings
    import numpy as np
    from mpi4py import MPI
    import hpcframe as hf
    from hpcframe.compilation import compile_here

    if "full" in sys.argv:  # no file may grow, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    @hf.stencil
    def shift(v, u):
        v[0] = 3.0 * u[-1]

    v, u = hf.Grid(8, periodic=True, comm=MPI.COMM_SELF).fields("v", "u")
    u.fill(lambda x: x)
    shift(v, u)
    assert np.array_equal(v.interior, 3.0 * np.roll(u.interior, 1))

    def allocating(x):  # it calls what numba provides
        array = np.empty(4)
        array[3] = x
        return array[3]

    assert compile_here(allocating, "float64(float64)", "allocating")(2.0) == 2.0
"""


def start(tmp_path, *arguments):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    return subprocess.Popen([sys.executable, program, *arguments], stderr=subprocess.PIPE, text=True)


def test_a_full_disk_is_noticed_and_leaves_nothing_behind(tmp_path, folder):
    process = start(tmp_path, "full")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "compiled code is not kept" in errors
    assert [file for file in kept(folder) if file.name.startswith(".part-")] == []


def test_two_processes_may_compile_at_once_and_the_next_finds_all(tmp_path, folder):
    for process in [start(tmp_path), start(tmp_path)]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert errors == ""
    files = {file: file.stat().st_ino for file in kept(folder)}
    assert files
    assert not any(file.name.startswith(".part-") for file in files)
    process = start(tmp_path)
    assert process.communicate()[1] == ""
    assert {file: file.stat().st_ino for file in kept(folder)} == files, "something was compiled again"


# -- stencils: what their code depends on -----------------------------------------------------------------------

POINT = "def point(v, u):\n    v[0] = helper(u[0])\n"


def applied(text=POINT, **names):
    """What a stencil makes of 1.0, as a new process would run it."""
    compilation._ready.clear()
    v, u = hf.Grid(4, comm=MPI.COMM_SELF).fields("v", "u")
    hf.stencil(function_of(text, "point", **names))(v, u.fill(1.0))
    assert np.all(v.interior == v.interior[0])
    return v.interior[0]


def helper_of(text, **names):
    return numba.njit(function_of(text, "helper", **names))


def in_a_module(factor):
    module = types.ModuleType("constants")
    module.K = factor
    return helper_of("def helper(x):\n    return constants.K * x\n", constants=module)


def in_a_helper_of_a_module(factor):
    module = types.ModuleType("functions")
    module.scaled = helper_of("def helper(x):\n    return K * x\n", K=factor)
    return helper_of("def helper(x):\n    return functions.scaled(x)\n", functions=module)


def in_a_closure(factor):
    @numba.njit
    def helper(x):
        return factor * x

    return helper


HELPERS = {
    "its source": lambda k: helper_of(f"def helper(x):\n    return {k} * x\n"),
    "a global number": lambda k: helper_of("def helper(x):\n    return K * x\n", K=k),
    "a global tuple": lambda k: helper_of("def helper(x):\n    return K[1] * x\n", K=(0.0, k)),
    "a global array": lambda k: helper_of("def helper(x):\n    return K[1] * x\n", K=np.array([0.0, k])),
    "a default value": lambda k: helper_of("def helper(x, K=K):\n    return K * x\n", K=k),
    "a function within it": lambda k: helper_of(
        "def helper(x):\n    def inner(y):\n        return K * y\n    return inner(x)\n", K=k
    ),
    "a helper of the helper": lambda k: helper_of(
        "def helper(x):\n    return other(x)\n", other=helper_of("def helper(x):\n    return K * x\n", K=k)
    ),
    "a module": in_a_module,
    "a helper in a module": in_a_helper_of_a_module,
    "a closure": in_a_closure,
}


@pytest.mark.parametrize("make", HELPERS.values(), ids=HELPERS)
def test_what_a_helper_depends_on_may_change(folder, make):
    assert applied(helper=make(2.0)) == 2.0
    assert applied(helper=make(3.0)) == 3.0
    assert applied(helper=make(2.0)) == 2.0


def test_numbers_of_the_surroundings_may_change(folder):
    text = "def point(v, u):\n    v[0] = u[0] * K + T[0]\n"
    assert applied(text, K=2.0, T=(1.0,)) == 3.0
    assert applied(text, K=4.0, T=(1.0,)) == 5.0
    assert applied(text, K=4.0, T=(2.0,)) == 6.0


def test_options_of_a_helper_may_change(folder):
    text = "def helper(x):\n    return x / (x - 1.0)\n"
    assert applied(helper=numba.njit(error_model="numpy")(function_of(text, "helper"))) == np.inf
    with pytest.raises(ZeroDivisionError):
        applied(helper=numba.njit(error_model="python")(function_of(text, "helper")))


def test_an_unchanged_stencil_is_compiled_no_more(folder):
    helper = helper_of("def helper(x):\n    return K * x\n", K=2.0)
    applied(helper=helper)
    with event.install_recorder("numba:compile") as compiled:
        assert applied(helper=helper) == 2.0
    assert not compiled.buffer


CLASHING = """
import sys
import numba
import numpy as np
from hpcframe.compilation import OPTIONS, compile_here

def of(value):
    @numba.njit(**OPTIONS)
    def inner(x):  # so large, and called so often, that it stays a function of its own
        y = np.empty(8)
        for k in range(8):
            y[k] = np.sin(x * k) + np.cos(x * value) + np.exp(-x * k) + np.log(1.0 + x * k) + np.tanh(x + value)
        for i in range(3):
            for k in range(8):
                y[k] += value * np.arctan(y[7 - k]) + np.sqrt(np.abs(y[k])) + np.floor(x * i)
        return y.sum()
    def outer(x):
        return inner(x) - inner(2.0 * x) + inner(3.0 * x)
    return outer

for value in map(float, sys.argv[1:]):
    print(compile_here(of(value), "float64(float64)", f"outer of {value}")(1.0))
"""


def test_kept_code_never_calls_another_function_of_the_same_name(tmp_path):
    """Which two processes number in the same way."""

    def outcome(*values):
        environment = {**os.environ, "HPCFRAME_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", CLASHING, *values]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return said.split()

    (two,) = outcome("2")
    three, again = outcome("3", "2")  # the first of them compiles, the second finds what the process before has kept
    assert again == two != three


@pytest.mark.mpi
def test_one_rank_a_node_compiles_and_the_others_load(comm, monkeypatch):
    name = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    monkeypatch.setenv("HPCFRAME_CACHE_DIR", name)
    monkeypatch.setattr(compilation, "_ready", {})

    @hf.stencil
    def halved(v, u):
        v[0] = 0.5 * u[-1]

    grid = hf.Grid(16, periodic=True, comm=comm)
    v, u = grid.fields("v", "u")
    with event.install_recorder("numba:compile") as compiled:
        halved(v, u.fill(1.0))
    assert everywhere(comm, np.all(v.interior == 0.5))
    assert everywhere(comm, bool(compiled.buffer) == (grid.shared.node.rank == 0))
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(name)
