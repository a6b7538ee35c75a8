"""What a run leaves for others: xarray, ParaView's reader and people see the arrays, and where and when they are."""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from hpcframe.checkpoint.hdf5 import save
from hpcframe.errors import HpcframeError, InputError
from hpcframe.grid.cartesian import CartesianGrid
from hpcframe.picture import draw
from hpcframe.simulation.output import Output

SHAPES = [(19,), (6, 8), (5, 4, 7)]
EXTENT = (3.0, 4.0, 14.0)
ORIGIN = (1.0, -2.0, 0.5)
TIMES = {0: 0.0, 100: 0.1, 250: 1 / 3}


@pytest.fixture
def folder(comm, tmp_path):
    """One empty folder for all ranks."""
    return comm.bcast(tmp_path)


def make_grid(comm, shape):
    ndim = len(shape)
    return CartesianGrid(shape, extent=EXTENT[:ndim], origin=ORIGIN[:ndim], comm=comm)


def make_fields(grid):
    """Scalars of several types, a vector, a tensor, and what XDMF cannot show."""
    return [
        grid.field("u"),
        grid.field("phase", dtype=np.int32),
        grid.field("w", dtype=np.float32, components=(grid.ndim,)),
        grid.field("stress", components=(2, 4)),
        grid.field("psi", dtype=complex),
        grid.field("flux", staggered=(0,), halo=0),
    ]


def values(field, step) -> np.ndarray:
    """The global array of a field at a step."""
    whole = np.random.default_rng([step, *field.name.encode()]).integers(-99, 99, field.shape)
    return (whole / 3 if field.dtype.kind != "i" else whole).astype(field.dtype)


def write(output, grid, fields, steps=TIMES):
    for step in steps:
        for field in fields:
            field.interior[...] = values(field, step)[(..., *field.block)]
        output.write(step, TIMES[step], fields)


def shown(fields) -> dict[str, tuple]:
    """Which components of which fields XDMF names how."""
    u, phase, w, stress, *_ = fields
    names = {"u": (u, ()), "phase": (phase, ())}
    names |= {f"w_{axis}": (w, (index,)) for index, axis in enumerate("xyz"[: w.grid.ndim])}
    first = "xy" if u.grid.ndim == 2 else "01"
    names |= {f"stress_{first[i]}_{j}": (stress, (i, j)) for i in range(2) for j in range(4)}
    return names


# -- xarray -------------------------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("shape", SHAPES)
def test_xarray_opens_a_file_with_its_coordinates(comm, folder, shape):
    grid = make_grid(comm, shape)
    fields = make_fields(grid)
    output = Output(folder, grid)
    write(output, grid, fields)
    assert output.latest == folder / "output" / "step-0000250.h5"
    if comm.rank > 0:
        return
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(output.latest, engine="h5netcdf") as data:
        assert set(data.data_vars) == {field.name for field in fields}
        for field in fields:
            assert np.array_equal(data[field.name], values(field, 250)) and data[field.name].dtype == field.dtype
        axes = "xyz"[: grid.ndim]
        assert data.u.dims == tuple(axes)
        assert data.w.dims == ("w_component", *axes)
        assert data.stress.dims == ("stress_component_0", "stress_component_1", *axes)
        assert data.flux.dims == ("x_face", *axes[1:])
        whole = grid.coordinates_of(tuple(slice(0, count) for count in shape))
        for axis, points in zip(axes, whole, strict=True):
            assert np.array_equal(data[axis], points.ravel()) and data[axis].units == "m"
        assert np.array_equal(data.x_face, ORIGIN[0] + EXTENT[0] / shape[0] * np.arange(shape[0] + 1))
        assert (data.attrs["time"], data.attrs["step"]) == (1 / 3, 250)


# -- XDMF ---------------------------------------------------------------------------------------------------------


def read_item(item, folder: Path) -> np.ndarray:
    """What a data item of XDMF stands for."""
    shape = tuple(map(int, item.get("Dimensions").split()))
    if item.get("ItemType") == "HyperSlab":
        first, stride, count = read_item(item[0], folder)
        selected = tuple(slice(f, f + s * c, s) for f, s, c in zip(first, stride, count, strict=True))
        return read_item(item[1], folder)[selected].reshape(shape)
    if item.get("Format") == "XML":
        kind = {"Int": int, "Float": float}[item.get("NumberType")]
        return np.array(item.text.split()).astype(kind).reshape(shape)
    file, dataset = item.text.split(":")
    with h5py.File(folder / file) as opened:
        array = opened[dataset][...]
    assert array.shape == shape
    assert array.dtype == np.dtype(f"{item.get('NumberType').lower()}{8 * int(item.get('Precision'))}")
    return array


@pytest.mark.mpi
@pytest.mark.parametrize("shape", SHAPES)
def test_the_series_describes_every_step(comm, folder, shape):
    grid = make_grid(comm, shape)
    fields = make_fields(grid)
    output = Output(folder, grid)
    for count, step in enumerate(TIMES, start=1):
        write(output, grid, fields, [step])
        series = ElementTree.parse(output.folder / "series.xdmf").getroot().find("Domain/Grid")
        assert [float(mesh.find("Time").get("Value")) for mesh in series.findall("Grid")] == list(TIMES.values())[
            :count
        ]
        comm.Barrier()
    if comm.rank > 0:
        return
    for mesh, step in zip(series.findall("Grid"), TIMES, strict=True):
        nodes = tuple(map(int, mesh.find("Topology").get("Dimensions").split()))
        assert nodes == (2,) * (3 - grid.ndim) + tuple(count + 1 for count in shape)
        arrays = {item.get("Name"): read_item(item[0], output.folder) for item in mesh.findall("Attribute")}
        assert set(arrays) == set(shown(fields))
        for name, (field, component) in shown(fields).items():
            assert np.array_equal(arrays[name].reshape(shape), values(field, step)[component])


@pytest.mark.parametrize("shape", SHAPES)
def test_paraviews_reader_sees_the_arrays_where_they_are(comm, tmp_path, shape):
    reason = "needs vtk (pip install vtk, about 600 MB on disk)"
    xdmf = pytest.importorskip("vtkmodules.vtkIOXdmf2", reason=reason)
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkCommonExecutionModel import vtkStreamingDemandDrivenPipeline as Pipeline

    grid = make_grid(comm, shape)
    fields = make_fields(grid)
    output = Output(tmp_path, grid)
    write(output, grid, fields)
    reader = xdmf.vtkXdmfReader()
    reader.SetFileName(str(output.folder / "series.xdmf"))
    reader.UpdateInformation()
    assert reader.GetOutputInformation(0).Get(Pipeline.TIME_STEPS()) == tuple(TIMES.values())
    for step, time in TIMES.items():
        reader.UpdateTimeStep(time)
        image = reader.GetOutputDataObject(0)
        for name, (field, component) in shown(fields).items():
            array = vtk_to_numpy(image.GetCellData().GetArray(name))
            assert np.array_equal(array.reshape(shape), values(field, step)[component]) and array.dtype == field.dtype
        bounds = np.reshape(image.GetBounds(), (3, 2))[: grid.ndim][::-1]  # X is the last axis
        ends = [(start, start + length) for start, length in zip(grid.origin, grid.extent, strict=True)]
        assert np.allclose(bounds, ends, rtol=1e-15)


@pytest.mark.mpi
def test_a_step_written_again_replaces_the_first(comm, folder):
    grid = make_grid(comm, (6, 8))
    u = grid.field("u")
    output = Output(folder, grid)
    write(output, grid, [u], [0, 100])
    output.write(100, 7.0, [u.fill(5.0)])
    assert sorted(os.listdir(output.folder)) == ["series.xdmf", "step-0000000.h5", "step-0000100.h5"]
    assert re.findall('Time Value="(.*?)"', (output.folder / "series.xdmf").read_text()) == ["0.0", "7.0"]
    with h5py.File(output.latest) as file:
        assert np.array_equal(file["u"], np.full((6, 8), 5.0))


@pytest.mark.mpi
def test_output_that_cannot_be_written_is_an_error_on_every_rank(comm, folder):
    grid = make_grid(comm, (6, 8))
    if comm.rank == 0:
        (folder / "file").touch()
    comm.Barrier()
    with pytest.raises(InputError, match="give a path"):
        Output(folder / "file", grid)
    output = Output(folder, grid)
    if comm.rank == 0:
        (output.folder / "series.xdmf").mkdir()
    with pytest.raises(HpcframeError, match=r"series\.xdmf"):
        write(output, grid, [grid.field("u")], [0])
    comm.Barrier()
    assert sorted(os.listdir(output.folder)) == ["series.xdmf", "step-0000000.h5"]


# -- the picture --------------------------------------------------------------------------------------------------


def drawn(tmp_path, function, shape=(20, 10), **options) -> np.ndarray:
    """The picture of a field as rows of red, green and blue from 0 to 1."""
    from matplotlib.image import imread
    from mpi4py import MPI

    grid = CartesianGrid(shape, extent=tuple(map(float, shape)), comm=MPI.COMM_SELF)
    save(tmp_path / "state.h5", grid.field("u", **options).fill(function), time=0.5)
    draw(tmp_path / "state.h5", tmp_path / "picture.png")
    return imread(tmp_path / "picture.png")[..., :3]


def centre(pixels, mask) -> np.ndarray:
    """Where the pixels of a mask lie in the picture on average: from the left and from the top, from 0 to 1."""
    assert mask.any()
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() / pixels.shape[1], rows.mean() / pixels.shape[0]])


def test_signs_diverge_in_colour_and_axes_point_right_and_up(tmp_path):
    pixels = drawn(tmp_path, lambda x, y: np.where((x > 10) & (y > 5), 1.0, -0.1))
    image = pixels[:, : pixels.shape[1] * 3 // 4]  # without the colour bar
    redness = image[..., 0] - image[..., 2]
    red, blue = centre(image, redness > 0.2), centre(image, redness < -0.03)
    assert red[0] > 0.5 > red[1] and blue[0] < red[0] and blue[1] > red[1]
    assert redness.min() > -0.2  # blue is pale, so near to zero


def test_one_sign_is_drawn_from_dark_to_bright(tmp_path):
    pixels = drawn(tmp_path, lambda x, y: x + 0 * y)
    image = pixels[pixels.shape[0] // 2, pixels.shape[1] // 5 : pixels.shape[1] * 3 // 5]
    brightness = image @ [0.3, 0.6, 0.1]
    assert (np.diff(brightness) > -0.02).all() and brightness[-1] - brightness[0] > 0.2


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((50,), {}),
        ((1, 1), {}),
        ((40, 1), {}),
        ((2, 400), {}),
        ((6, 5, 4), {}),
        ((8, 6), {"components": (2,)}),
        ((8, 6), {"dtype": complex}),
        ((8, 6), {"staggered": (1,)}),
        ((4000, 3), {"dtype": np.int32}),
    ],
)
def test_any_field_can_be_drawn(tmp_path, shape, options):
    pixels = drawn(tmp_path, 1, shape, **options)
    assert len(np.unique(pixels.sum(axis=-1))) > 20  # axes, figures, a colour bar


def test_what_is_not_finite_is_grey(tmp_path):
    pixels = drawn(tmp_path, lambda x, y: np.where(x < 10, np.nan, y))
    grey = np.isclose(pixels, 0.8, atol=0.01).all(axis=-1)
    assert grey.mean() > 0.2 and centre(pixels, grey)[0] < 0.5
    assert drawn(tmp_path, np.nan).size > 0


def test_a_picture_of_nothing_is_refused(tmp_path):
    drawn(tmp_path, 1.0)
    with pytest.raises(InputError, match=r"no field 'U'.*did you mean 'u'"):
        draw(tmp_path / "state.h5", tmp_path / "picture.png", "U")
    with pytest.raises(InputError, match="no field 'x'"):
        draw(tmp_path / "state.h5", tmp_path / "picture.png", "x")
    with pytest.raises(InputError, match="there is no file"):
        draw(tmp_path / "missing.h5", tmp_path / "picture.png")
    with pytest.raises(InputError, match="give a path"):
        draw(tmp_path / "state.h5", tmp_path / "missing" / "picture.png")
