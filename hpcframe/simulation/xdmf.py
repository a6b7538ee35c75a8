"""XDMF: a small XML file that tells ParaView what the arrays in HDF5 files are. See https://www.xdmf.org.

Arrays are in C order, so XDMF's X, the axis that runs fastest, is the grid's last axis, its Y the one before, and its
Z the first of three. Readers are of one mind only about meshes of three axes; a grid of fewer gets a thickness of one
cell. A field with components becomes one attribute a component: ParaView's two readers join them differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from hpcframe.lazy import ElementTree
from hpcframe.simulation.schema import AXES

if TYPE_CHECKING:
    from hpcframe.grid.cartesian import CartesianGrid
    from hpcframe.grid.field import Field

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<Xdmf Version="3.0"><Domain><Grid Name="series" GridType="Collection" CollectionType="Temporal">
<!-- X, Y and Z here are the grid's axes from last to first -->
"""
TAIL = "\n</Grid></Domain></Xdmf>\n"


def series(steps: Iterable[str]) -> str:
    """The whole file, of what `step` made."""
    return HEAD + "\n".join(steps) + TAIL


def step(grid: CartesianGrid, fields: Sequence[Field], time: float, file: str) -> str:
    """One time of a series: the mesh and the fields whose values are in an HDF5 file.

    Fields that are complex or staggered are left out: XDMF has no complex numbers, and a mesh of its own would be
    needed for the faces.

    Args:
        time: simulated time (s).
        file: the HDF5 file, relative to the folder of the XDMF file.
    """
    mesh = ElementTree.Element("Grid", Name="mesh", GridType="Uniform")
    ElementTree.SubElement(mesh, "Time", Value=repr(float(time)))
    _describe_mesh(mesh, grid)
    for field in fields:
        if field.dtype.kind in "fi" and not field.staggered:
            _describe_field(mesh, field, file)
    ElementTree.indent(mesh)
    return ElementTree.tostring(mesh, encoding="unicode")


def _describe_mesh(mesh: ElementTree.Element, grid: CartesianGrid) -> None:
    missing = 3 - grid.ndim
    nodes = [2] * missing + [cells + 1 for cells in grid.shape]
    ElementTree.SubElement(mesh, "Topology", TopologyType="3DCoRectMesh", Dimensions=_text(nodes))
    geometry = ElementTree.SubElement(mesh, "Geometry", GeometryType="ORIGIN_DXDYDZ")
    thickness = min(grid.spacing)
    for values in ((0.0,) * missing + grid.origin, (thickness,) * missing + grid.spacing):
        _add_item(geometry, (3,), NumberType="Float", Precision="8", Format="XML").text = _text(values)


def _describe_field(mesh: ElementTree.Element, field: Field, file: str) -> None:
    for component in product(*map(range, field.components)):
        name = "_".join((field.name, *_suffixes(field, component)))
        attribute = ElementTree.SubElement(mesh, "Attribute", Name=name, AttributeType="Scalar", Center="Cell")
        _describe_values(attribute, field, component, file)


def _suffixes(field: Field, component: tuple[int, ...]) -> Iterator[str]:
    """x, y and z for a vector of the space, numbers for anything else."""
    for count, index in zip(field.components, component, strict=True):
        yield AXES[index] if count == field.grid.ndim else str(index)


def _describe_values(attribute: ElementTree.Element, field: Field, component: tuple[int, ...], file: str) -> None:
    points = field.shape[len(field.components) :]
    parent = attribute
    if field.components or len(points) < 3:  # selects the component, and gives the array three axes
        parent = _add_item(attribute, (1,) * (3 - len(points)) + points, ItemType="HyperSlab")
        first = (*component, *(0 for _ in points))
        counts = (*(1 for _ in component), *points)
        selection = _add_item(parent, (3, len(field.shape)), NumberType="Int", Format="XML")
        selection.text = "  ".join(map(_text, (first, (1,) * len(first), counts)))
    kind = {"f": "Float", "i": "Int"}[field.dtype.kind]
    values = _add_item(parent, field.shape, NumberType=kind, Precision=str(field.dtype.itemsize), Format="HDF")
    values.text = f"{file}:/{field.name}"


def _add_item(parent: ElementTree.Element, shape: Sequence[int], **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, "DataItem", {"Dimensions": _text(shape), **attributes})


def _text(values: Iterable[float]) -> str:
    return " ".join(map(repr, values))
