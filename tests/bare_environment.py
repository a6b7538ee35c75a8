"""A Python environment without an mpiexec of its own, in which tests decide about the one that hpcframe finds."""

import os
import site
import sys
import venv
from pathlib import Path


def make(folder: Path) -> Path:
    """The Python of a new environment in `folder` that has all packages of this one, but none of its commands."""
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    lines = (f"import site; site.addsitedir({path!r})" for path in site.getsitepackages())
    (packages / "shared.pth").write_text("\n".join(lines))
    return folder / "bin" / "python"


def environment(path: Path, **variables: str) -> dict[str, str]:
    """Environment variables with `path` as PATH, under which mpi4py still finds the MPI that it has here."""
    command(path, "ssh", "exit 1")  # Open MPI 4 does not start without one, though it starts nothing by it here
    libraries = os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), str(Path(sys.prefix, "lib"))]))
    return {**os.environ, "LD_LIBRARY_PATH": libraries, "PATH": str(path), **variables}


def command(folder: Path, name: str, script: str) -> Path:
    """A command in `folder`: the text of a shell script."""
    folder.mkdir(exist_ok=True)
    written = folder / name
    written.write_text(f"#!/bin/sh\n{script}\n")
    written.chmod(0o755)
    return written
