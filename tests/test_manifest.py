"""The manifest: what a program puts into a checkpoint comes back bit for bit, and damage to the text is noticed."""

import json
import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hpcframe.checkpoint.crc32c import crc32c
from hpcframe.checkpoint.manifest import (
    NAME,
    SCHEMA,
    ArrayRecord,
    BadCheckpointError,
    Extent,
    FileRecord,
    Manifest,
    canonical,
    check_extents,
    decode,
    encode,
    plain_attributes,
)
from hpcframe.checkpoint.verify import read_manifest
from hpcframe.errors import InputError


def a_manifest(attributes=None, **changes) -> Manifest:
    """Of a checkpoint of one file and one array of two tiles."""
    values = {
        "run": "a1b2",
        "step": 12,
        "time": 0.1 + 0.2,
        "grid": {"shape": [7], "origin": [0.0], "spacing": [1 / 3], "periodic": [True]},
        "attributes": plain_attributes(attributes or {}),
        "code": {"hpcframe": "0.1"},
        "written": {"ranks": 2},
        "files": [FileRecord("state.h5", 10)],
        "arrays": [
            ArrayRecord("u", "<f8", (7,), 0, (), (4,), [Extent(0, 4096, 32, 1), Extent(0, 8192, 32, 2**32 - 1)])
        ],
        "rest": [Extent(0, 0, 96, 7)],
    }
    return Manifest(**values | changes)


def through(attributes):
    """Attributes as a restart gets them."""
    return decode(encode(a_manifest(attributes))).attributes


def same(one, other) -> bool:
    """Whether two values are of one kind and have the same bits; a tuple comes back as a list, a NumPy number as
    Python's."""
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, list | tuple):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    return one == other


arrays = npst.arrays(
    npst.scalar_dtypes() | npst.byte_string_dtypes() | npst.unicode_string_dtypes(),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**127), 2**128)
    | st.floats()
    | st.complex_numbers(allow_nan=True)
    | st.text()
    | st.binary()
    | arrays
)
names = st.text().filter(lambda name: not name.startswith("$"))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


# -- attributes ---------------------------------------------------------------------------------------------------


@given(st.dictionaries(names, values, max_size=4))
@example({"numbers": [float("nan"), float("inf"), -float("inf"), -0.0, 0.1 + 0.2, 5e-324, 1.7976931348623157e308]})
@example({"integers": [2**127 - 1, 2**128 + 1, -(2**128), 10**40, 2**63, -(2**63) - 1]})
@example({"complex": [complex(float("nan"), -0.0), complex(-0.0, float("inf")), 1.5 - 2j]})
@example(
    {"array": np.array([[-0.0, np.nan], [np.inf, 1e-310]]), "none": np.zeros((0, 3), np.int16), "point": np.array(2)}
)
@example({"foreign": np.arange(3, dtype=">f8"), "columns": np.asfortranarray(np.arange(6).reshape(2, 3))})
@example({"step": [10, 2.5, None], "": {"": ""}, 'é\n"\\': "\ud800\0"})
def test_attributes_come_back_bit_for_bit(attributes):
    assert same(attributes, through(attributes))


@given(arrays)
def test_an_array_that_comes_back_can_be_written_to(array):
    back = through({"a": array})["a"]
    assert back.flags.writeable
    assert back.flags.owndata


@pytest.mark.parametrize("number", [np.float64(0.1), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True), np.str_("a")])
def test_numpy_numbers_come_back_as_pythons(number):
    back = through({"a": number})["a"]
    assert back == number
    assert type(back) is type(number.item())


@pytest.mark.parametrize(
    "number",
    [np.float32(0.1), np.complex64(1 + 2j), np.longdouble("0.1"), np.datetime64("2020-01-01"), np.bytes_(b"a")],
)
def test_numpy_numbers_that_python_lacks_keep_their_value(number):
    back = through({"a": number})["a"]
    assert back == number


def test_a_structured_array_keeps_its_fields_or_is_refused():
    table = np.array([(1.5, 2), (2.5, 3)], [("mass", "f4"), ("count", "i2")])
    try:
        back = through({"a": table})["a"]
    except InputError as error:
        assert "'a'" in str(error)
        return
    assert back.dtype == table.dtype
    assert np.array_equal(back, table)


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_a_random_generator_goes_on_with_the_same_numbers(kind):
    generator = np.random.Generator(getattr(np.random, kind)(7))
    generator.normal(size=1001)
    generator.integers(2**16, dtype=np.uint32)  # leaves half of a word for the next call
    kept = through({"random": generator.bit_generator.state})
    expected = generator.normal(size=50), generator.integers(2**16, size=50, dtype=np.uint32)
    another = np.random.Generator(getattr(np.random, kind)(99))
    another.bit_generator.state = kept["random"]
    assert np.array_equal(another.normal(size=50), expected[0])
    assert np.array_equal(another.integers(2**16, size=50, dtype=np.uint32), expected[1])


def test_numpys_old_random_state_goes_on_with_the_same_numbers():
    old = np.random.RandomState(5)
    old.normal(size=3)  # keeps one for the next call
    kept = through({"random": old.get_state(legacy=False)})["random"]
    expected, another = old.normal(size=20), np.random.RandomState(1)
    another.set_state(kept)
    assert np.array_equal(another.normal(size=20), expected)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, np.array([object()]), lambda: 0, {1: "number as key"}, {"$array": 1}, range(3)]
)
def test_what_cannot_be_kept_is_refused_by_its_name(value):
    with pytest.raises(InputError, match=r"attribute 'outer'.*give"):
        plain_attributes({"outer": {"inner": [value]}})


def test_a_name_that_would_be_read_as_something_else_is_refused():
    with pytest.raises(InputError, match=r"\$array"):
        plain_attributes({"$array": [1]})


def test_attributes_are_copied():
    numbers, array = [1], np.zeros(2)
    manifest = a_manifest({"numbers": numbers, "array": array})
    numbers.append(2)
    array[:] = 1
    back = decode(encode(manifest)).attributes
    assert back["numbers"] == [1]
    assert np.array_equal(back["array"], [0, 0])


# -- everything else ----------------------------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was():
    original = a_manifest()
    assert decode(encode(original)) == original


@given(st.floats(), st.integers(0, 2**63 - 1))
def test_step_and_time_come_back_bit_for_bit(time, step):
    back = decode(encode(a_manifest(time=time, step=step)))
    assert same(back.time, time)
    assert back.step == step


def test_the_same_manifest_has_the_same_text():
    attributes = {"b": 1, "a": {"d": 2, "c": 3}}
    turned = {"a": {"c": 3, "d": 2}, "b": 1}
    assert encode(a_manifest(attributes)) == encode(a_manifest(turned))


@pytest.mark.parametrize("attributes", [{}, {"a": float("nan"), "b": complex("nan"), "c": [float("inf")]}])
def test_any_json_reader_can_read_it_and_check_it(attributes):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    table = json.loads(encode(a_manifest(attributes)), parse_constant=refuse)
    text = json.dumps(table["manifest"], sort_keys=True, separators=(",", ":"))
    assert table["checksum"] == f"{crc32c(text.encode()):08x}"
    assert table["manifest"]["arrays"][0]["tiles"] == [[0, 4096, 32, 1], [0, 8192, 32, 2**32 - 1]]


# -- damage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with a manifest, and a file as long as that says."""
    (tmp_path / "state.h5").write_bytes(bytes(10))
    text = encode(a_manifest({"dt": 1e-5, "name": "é", "state": np.arange(3), "levels": [1.5, -0.0, None, True]}))
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    return tmp_path


def meaning(manifest: Manifest) -> str:
    attributes = plain_attributes(manifest.attributes)
    return canonical(msgspec.to_builtins(msgspec.structs.replace(manifest, attributes=attributes)))


def outcome(folder) -> str:
    """ "bad", or what the manifest says."""
    try:
        return meaning(read_manifest(folder))
    except BadCheckpointError:
        return "bad"


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(folder):
    """It changes nothing where JSON has two ways to write the same, such as 1e-05 and 1E-05."""
    path, original, right = folder / NAME, (folder / NAME).read_bytes(), outcome(folder)
    assert right != "bad"
    unnoticed = 0
    for position in range(len(original)):
        for bit in {position % 8, 5}:  # the latter turns a into A
            damaged = bytearray(original)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            found = outcome(folder)
            assert found in ("bad", right), (position, bit)
            unnoticed += found == right
    assert unnoticed < len(original) // 10


@given(st.data())
def test_any_other_byte_anywhere_is_noticed_or_changes_nothing(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "state.h5").write_bytes(bytes(10))
    original = encode(a_manifest({"a": "text"})).encode()
    (folder / NAME).write_bytes(original)
    right = outcome(folder)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    (folder / NAME).write_bytes(damaged)
    assert outcome(folder) in ("bad", right)


def test_a_manifest_that_breaks_off_is_noticed(folder):
    path, original = folder / NAME, (folder / NAME).read_bytes()
    for length in range(len(original) - 1):  # the last byte is the end of the line
        path.write_bytes(original[:length])
        assert outcome(folder) == "bad", length


@pytest.mark.parametrize("text", ["", "\0" * 500, "null", "[]", "{}", '"manifest"', '{"manifest":{},"checksum":3}'])
def test_what_is_no_manifest_is_noticed(folder, text):
    (folder / NAME).write_text(text)
    assert outcome(folder) == "bad"


def test_a_missing_manifest_is_noticed(folder):
    (folder / NAME).unlink()
    with pytest.raises(BadCheckpointError, match="there is no"):
        read_manifest(folder)


def test_a_manifest_of_a_later_version_is_refused_by_its_schema():
    text = encode(a_manifest(schema=SCHEMA + 1))
    with pytest.raises(BadCheckpointError, match=f"schema {SCHEMA}"):
        decode(text)


def test_a_manifest_that_lacks_something_is_refused():
    body = {key: value for key, value in msgspec.to_builtins(a_manifest()).items() if key != "arrays"}
    text = canonical(body)
    with pytest.raises(BadCheckpointError, match="arrays"):
        decode(f'{{"checksum":"{crc32c(text.encode()):08x}","manifest":{text}}}')


def test_files_that_are_not_as_the_manifest_says_are_noticed(folder):
    (folder / "state.h5").write_bytes(bytes(9))
    with pytest.raises(BadCheckpointError, match="9 bytes, not 10"):
        read_manifest(folder)
    (folder / "state.h5").unlink()
    with pytest.raises(BadCheckpointError, match=r"no file state\.h5"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["../state.h5", "/etc/hostname"])
def test_a_manifest_names_files_in_its_folder_only(tmp_path, name):
    folder = tmp_path / "step-1"
    folder.mkdir()
    (tmp_path / "state.h5").write_bytes(bytes(10))
    (folder / NAME).write_text(encode(a_manifest(files=[FileRecord(name, 10)])))
    assert outcome(folder) == "bad"


@pytest.mark.parametrize(
    "tiles",
    [
        [Extent(0, 4096, 32, 1)],  # one too few
        [Extent(0, 4096, 32, 1), Extent(0, 8192, 24, 2)],  # too short
        [Extent(0, 4096, 32, 1), Extent(1, 8192, 32, 2)],  # in a file that is not there
        [Extent(0, 4096, 32, 1), Extent(-1, 8192, 32, 2)],
    ],
)
def test_tiles_that_cannot_be_are_noticed(tiles):
    with pytest.raises(BadCheckpointError, match="tile"):
        check_extents(a_manifest(arrays=[ArrayRecord("u", "<f8", (7,), 0, (), (4,), tiles)]))
