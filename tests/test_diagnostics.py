"""diagnostics.csv and summary.json: numbers that survive, in files that are there at any moment."""

import csv
import json
import os
import platform
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpi4py import MPI

from hpcframe.errors import HpcframeError, InputError
from hpcframe.grid.cartesian import CartesianGrid
from hpcframe.simulation.diagnostics import Diagnostics
from hpcframe.simulation.summary import machine, versions, write_summary


@pytest.fixture
def folder(comm, tmp_path):
    """One empty folder for all ranks."""
    return comm.bcast(tmp_path)


@pytest.fixture
def grid(comm):
    return CartesianGrid((8, 8), comm=comm)


def rows(path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def bits(number: float) -> bytes:
    return struct.pack("d", number)


@pytest.mark.mpi
def test_a_row_is_in_the_file_as_soon_as_it_is_appended(comm, folder, grid):
    path = folder / "diagnostics.csv"
    with Diagnostics(path, grid, ["heat", "max, of u"]) as table:
        assert rows(path) == [["step", "time", "heat", "max, of u"]]
        comm.Barrier()
        table.append(0, 0.0, {"max, of u": 2, "heat": 0.1})
        assert rows(path)[1:] == [["0", "0.0", "0.1", "2"]]
        comm.Barrier()
        table.append(10, 0.25, {"heat": 1e300, "max, of u": -0.0})
    assert rows(path)[1:] == [["0", "0.0", "0.1", "2"], ["10", "0.25", "1e+300", "-0.0"]]


@pytest.mark.mpi
def test_a_new_table_begins_anew(folder, grid):
    path = folder / "diagnostics.csv"
    for names in (["a", "b"], ["c"]):
        with Diagnostics(path, grid, names) as table:
            table.append(1, 2.0, dict.fromkeys(names, 3.0))
    assert rows(path) == [["step", "time", "c"], ["1", "2.0", "3.0"]]


@given(st.lists(st.floats(), min_size=1, max_size=5), st.floats(width=32))
def test_no_bit_of_a_number_is_lost(tmp_path_factory, numbers, single):
    path = Path(tmp_path_factory.mktemp("table"), "diagnostics.csv")
    values = {f"c{index}": number for index, number in enumerate(numbers)}
    values |= {f"n{index}": np.float64(number) for index, number in enumerate(numbers)}
    values["single"], values["complex"] = np.float32(single), complex(numbers[0], numbers[-1])
    with Diagnostics(path, CartesianGrid(4, comm=MPI.COMM_SELF), list(values)) as table:
        table.append(0, numbers[0], values)
    _, _, *texts = rows(path)[1]
    for text, value in zip(texts[:-1], list(values.values())[:-1], strict=True):
        assert bits(float(text)) == bits(value) or (np.isnan(float(text)) and np.isnan(value))
    assert np.array_equal(complex(texts[-1]), values["complex"], equal_nan=True)


@pytest.mark.mpi
def test_a_table_that_cannot_be_written_is_an_error_on_every_rank(folder, grid):
    with pytest.raises(InputError, match="give a path"):
        Diagnostics(folder / "missing" / "diagnostics.csv", grid, ["a"])
    with pytest.raises(HpcframeError, match="free space"):
        Diagnostics("/dev/full", grid, ["a"])


def test_a_summary_is_json_whatever_the_numbers_are(tmp_path):
    path = tmp_path / "summary.json"
    sections = {
        "status": "done",
        "steps": np.int64(10),
        "final": {"norm": np.float64(0.1), "max": (np.nan, np.inf, -np.inf), "none": None, "ok": np.True_},
        "layout": (1, 2),
        "array": np.arange(3.0),
        "directory": tmp_path,
    }
    write_summary(path, status="running")
    write_summary(path, **sections)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "status": "done",
        "steps": 10,
        "final": {"norm": 0.1, "max": ["nan", "inf", "-inf"], "none": None, "ok": True},
        "layout": [1, 2],
        "array": [0.0, 1.0, 2.0],
        "directory": str(tmp_path),
    }
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_summary_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, status="done")
    with pytest.raises(TypeError):
        write_summary(path, status=object())
    assert json.loads(path.read_text()) == {"status": "done"}
    with pytest.raises(InputError, match="give a path"):
        write_summary(tmp_path / "missing" / "summary.json", status="done")
    assert os.listdir(tmp_path) == ["summary.json"]


def test_versions_and_machine_say_what_a_result_depends_on():
    found = versions()
    assert list(found) == ["hpcframe", "python", "numpy", "numba", "mpi4py", "h5py", "mpi"]
    assert (found["python"], found["numpy"]) == (platform.python_version(), np.__version__)
    assert (found["h5py"], found["mpi"]) == (h5py.__version__, MPI.Get_library_version().splitlines()[0].strip("\0 "))
    here = machine()
    assert here["hostname"] == platform.node() and here["cpu"]
    assert 1 <= here["cores"] <= here["threads"] == os.cpu_count()
