"""The shipped real case against SciPy: a landscape under soil creep is the same landscape under a Gaussian filter."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import matplotlib
import numpy as np
import pytest
from scipy.fft import dctn, idctn
from scipy.ndimage import convolve1d, gaussian_filter

CASE = Path(__file__).parent.parent / "kernels" / "hillslope.toml"
TERRAIN = Path(matplotlib.get_data_path(), "sample_data", "jacksboro_fault_dem.npz")


@pytest.fixture(scope="module")
def case():
    """What the sample file says: spacing (m) along each axis, kappa * t (m2)."""
    table = tomllib.loads(CASE.read_text())
    spacing = np.divide(table["grid"]["extent"], table["grid"]["shape"])
    return spacing, table["parameters"]["diffusivity"] * table["time"]["end_time"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Elevation (m) at the end, as the program left it in its file, and its summary."""
    folder = tmp_path_factory.mktemp("hillslope")
    overrides = [f"initial.u.file={TERRAIN}", f"simulation.directory={folder}", "output.picture=false"]
    program = [sys.executable, "-m", "hpcframe.run", str(CASE), *(part for o in overrides for part in ("--set", o))]
    subprocess.run([sys.executable, "-m", "hpcframe.launch.local", "-n", "2", "--", *program], check=True, timeout=100)
    (file,) = (folder / "output").glob("*.h5")
    with h5py.File(file) as data:
        return data["u"][...], json.loads((folder / "summary.json").read_text())


def test_the_landscape_is_that_of_the_discrete_equation(case, result):
    """The cosine transform takes the equation apart: in a step a wave of angle theta along each axis loses
    kappa * dt * sum((2 - 2 cos theta) / spacing^2) of itself, mirrored at the walls. Only rounding is left."""
    spacing, kappa_t = case
    z, summary = result
    steps = summary["steps"]
    before = np.load(TERRAIN)["elevation"].astype(float)
    theta = [np.pi * np.arange(n) / n for n in before.shape]
    loss = sum(np.ix_(*((2 - 2 * np.cos(t)) / h**2 for t, h in zip(theta, spacing, strict=True)))) * kappa_t / steps
    expected = idctn(dctn(before) * (1 - loss) ** steps)
    assert np.abs(z - expected).max() < steps * np.finfo(float).eps * before.max()


def test_the_landscape_is_that_of_a_gaussian_filter(case, result):
    """Both kernels have the variance sigma^2 = 2 kappa t; they differ first in the fourth moment.

    The transform of the discrete kernel, exp(-kappa t (2 - 2 cos theta) / h^2) for small steps, is that of the
    Gaussian, exp(-sigma^2 theta^2 / 2 h^2), times 1 + kappa t theta^4 / 12 h^2 and terms of order theta^6. So the
    difference is kappa t / 12 h^2 times the fourth difference of the smooth landscape along each axis, of which the
    higher terms are a few percent, as are those of Euler's steps at cfl = 0.01.
    """
    spacing, kappa_t = case
    z, _ = result
    before = np.load(TERRAIN)["elevation"].astype(float)
    smooth = gaussian_filter(before, np.sqrt(2 * kappa_t) / spacing, mode="reflect", truncate=12)
    fourth = [convolve1d(smooth, [1, -4, 6, -4, 1], axis, mode="reflect") for axis in (0, 1)]
    difference = sum(kappa_t / 12 * f / h**2 for f, h in zip(fourth, spacing, strict=True))
    assert np.abs(difference).max() < 0.01 * np.ptp(before)
    assert np.abs(z - smooth - difference).max() < 0.1 * np.abs(difference).max()
    assert z.sum() == pytest.approx(before.sum(), rel=1e-13)
