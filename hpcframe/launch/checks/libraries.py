"""Python and the packages below hpcframe: do they load, and do they fit each other?"""

from __future__ import annotations

import contextlib
import re
import sys
from importlib import metadata

from hpcframe.launch.checks.finding import Finding
from hpcframe.launch.checks.mpi import leave_mpi_alone

H5PY_BY_HAND = "python -c 'import h5py; print(h5py.version.info, h5py.get_config().mpi)'"
OLDEST = (3, 11)  # that hpcframe supports
VECTORS = ("avx512f", "avx2", "avx", "sse4.2", "sve2", "sve", "neon")  # LLVM's names, the widest first

Version = tuple[int, int]


def python() -> Finding:
    """Not collective."""
    finding = fits(sys.version_info[:2], _supported_by_numba())
    return Finding(finding.status, f"{sys.version.split()[0]} ({sys.executable}){finding.found}", finding.remedy)


def fits(version: Version, supported: list[Version]) -> Finding:
    """Whether hpcframe and numba run on a Python. `supported` is what numba names; empty: unknown. Not collective."""
    lowest = max(OLDEST, min(supported, default=OLDEST))
    highest = max(supported, default=None)
    span = f"{_dotted(lowest)} to {_dotted(highest)}" if highest else f"{_dotted(lowest)} or newer"
    if lowest <= version and (highest is None or version <= highest):
        return Finding("PASS", f"; numba takes {span}" if highest else "")
    newest = _dotted(highest or lowest)
    return Finding("FAIL", f"; numba takes {span}", f"make a new environment: python{newest} -m venv .venv")


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _supported_by_numba() -> list[Version]:
    """Its package names them one by one, as its `Requires-Python` has no upper bound."""
    try:
        classifiers = metadata.metadata("numba").get_all("Classifier") or []
    except metadata.PackageNotFoundError:  # what the check of numba reports
        return []
    named = (re.fullmatch(r"Programming Language :: Python :: (\d+)\.(\d+)", text) for text in classifiers)
    return [(int(match[1]), int(match[2])) for match in named if match]


def h5py() -> Finding:
    """Not collective."""
    with contextlib.suppress(ImportError):  # a parallel h5py would start MPI; one that is not needs no mpi4py
        leave_mpi_alone()
    try:
        import h5py
    except ImportError as error:
        return Finding("FAIL", f"does not load: {error}", "pip install --force-reinstall h5py")
    kind = "parallel" if h5py.get_config().mpi else "not parallel; hpcframe writes in parallel without it"
    return Finding("PASS", f"{h5py.version.version}, HDF5 {h5py.version.hdf5_version}, {kind}")


def numba() -> Finding:
    """Not collective."""
    try:
        import numba
    except ImportError as error:
        return Finding("FAIL", f"does not load: {error}", "pip install --force-reinstall numba")
    if numba.config.DISABLE_JIT:
        return Finding("FAIL", "NUMBA_DISABLE_JIT is set: nothing is compiled", "unset NUMBA_DISABLE_JIT")
    answer = numba.njit("int64(int64)")(_triangle)(4)
    if answer != 10:
        return Finding("FAIL", f"compiles wrong code: 1 + 2 + 3 + 4 = {answer}", "pip install --force-reinstall numba")
    return Finding("PASS", f"{numba.__version__} compiles for {_processor()}")


def _triangle(n: int) -> int:
    total = 0
    for i in range(n + 1):
        total += i
    return total


def _processor() -> str:
    """This CPU and its widest vector instructions, as LLVM names them."""
    import llvmlite.binding
    import numba

    features = llvmlite.binding.get_host_cpu_features()
    vectors = next((name for name in VECTORS if features.get(name)), "no vector instructions")
    return f"{numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()} ({vectors})"
