"""Draw docs/hillslope.png: the shipped real case, before and after, and its difference to SciPy's Gaussian filter.

python docs/make_figures.py    runs the case on 2 ranks first, in a few seconds; needs SciPy (pip install ".[test]")
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import h5py
import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

HERE = Path(__file__).parent
CASE = HERE.parent / "kernels" / "hillslope.toml"
TERRAIN = Path(matplotlib.get_data_path(), "sample_data", "jacksboro_fault_dem.npz")
TINTS = LinearSegmentedColormap.from_list("tints", ["#4f7a5b", "#93ac7d", "#d9d3a1", "#c49a6c", "#93694d", "#f4efe9"])
DIVERGING = matplotlib.colormaps["RdBu_r"]
SUN = LightSource(azdeg=315, altdeg=40)
STYLE = {"font.size": 9, "font.family": "DejaVu Sans", "axes.titlesize": 10.5, "axes.linewidth": 0.6}


def run_case():
    """Elevation (m) at the end of the run."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"initial.u.file={TERRAIN}", f"simulation.directory={folder}", "output.picture=false"]
        program = [sys.executable, "-m", "hpcframe.run", CASE, *(part for o in overrides for part in ("--set", o))]
        subprocess.run([sys.executable, "-m", "hpcframe.launch.local", "-n", "2", "--", *program], check=True)
        (result,) = Path(folder, "output").glob("*.h5")
        with h5py.File(result) as file:
            return file["u"][...]


def filter_case(before, case):
    """The same by SciPy: a Gaussian of variance 2 kappa t, mirrored at the edges."""
    spacing = np.divide(case["grid"]["extent"], case["grid"]["shape"])
    sigma = np.sqrt(2 * case["parameters"]["diffusivity"] * case["time"]["end_time"]) / spacing
    return gaussian_filter(before, sigma, mode="reflect", truncate=12)


def draw(before, after, filtered, extent, years):
    """Three maps, north up. extent: of the rows, which run from north to south, and of the columns (m)."""
    figure = Figure(figsize=(13.0, 5.4), dpi=120)
    panels = figure.subplots(1, 3, sharey=True, gridspec_kw={"wspace": 0.08})
    figure.subplots_adjust(left=0.042, right=0.99, top=0.94, bottom=0.185)
    height, width = (length / 1e3 for length in extent)
    elevation = Normalize(before.min(), np.percentile(before, 99.9))
    difference = Normalize(-np.abs(after - filtered).max(), np.abs(after - filtered).max())
    images = [
        relief(before, elevation, extent),
        relief(after, elevation, extent),
        DIVERGING(difference(after - filtered)),
    ]
    titles = [
        "Cumberland Mountains, Tennessee",
        f"after {years / 1e6:g} million years of soil creep",
        "difference to SciPy's Gaussian filter",
    ]
    for panel, image, title in zip(panels, images, titles, strict=True):
        panel.imshow(image, extent=(0, width, 0, height), interpolation="antialiased")
        panel.set(title=title, xlabel="east (km)")
    panels[0].set_ylabel("north (km)")
    add_scale(figure, ScalarMappable(elevation, TINTS), "elevation (m)", 0.225, 0.27)
    add_scale(figure, ScalarMappable(difference, DIVERGING), "difference (m)", 0.735, 0.2)
    return figure


def relief(z, elevation, extent):
    """Colours (RGB) of elevations z (m), lit from the north-west."""
    spacing = {"dx": extent[1] / z.shape[1], "dy": extent[0] / z.shape[0]}
    return SUN.shade(z, TINTS, elevation, blend_mode="soft", vert_exag=4.0, **spacing)


def add_scale(figure, mappable, label, left, width):
    """A thin scale of colours below the maps."""
    scale = figure.colorbar(mappable, cax=figure.add_axes((left, 0.075, width, 0.02)), orientation="horizontal")
    scale.set_label(label, labelpad=2)
    scale.outline.set_linewidth(0.4)


def main():
    case = tomllib.loads(CASE.read_text())
    before = np.load(TERRAIN)["elevation"].astype(float)
    filtered = filter_case(before, case)
    with matplotlib.rc_context(STYLE):
        figure = draw(before, run_case(), filtered, case["grid"]["extent"], case["time"]["end_time"])
        figure.savefig(HERE / "hillslope.png")


if __name__ == "__main__":
    main()
