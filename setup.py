"""Which packages hpcframe consists of; everything else about it is in pyproject.toml.

The folder kernels/ is the package hpcframe.kernels, slurm/ is hpcframe.slurm, scripts/ is hpcframe.scripts:
pyproject.toml can list packages, or search for them, not both.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["hpcframe", "hpcframe.*"]),
        "hpcframe.kernels",
        "hpcframe.slurm",
        "hpcframe.scripts",
    ],
    package_dir={"hpcframe.kernels": "kernels", "hpcframe.slurm": "slurm", "hpcframe.scripts": "scripts"},
)
