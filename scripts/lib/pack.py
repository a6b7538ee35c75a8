"""Write the virtual environment that this program runs in to standard output, as a tar file.

    .venv/bin/python scripts/lib/pack.py [--without PACKAGE ...] [--kernels FOLDER] >hpcframe-env.tar

An environment refers to its Python, and to packages that are developed elsewhere, by absolute paths. Here all that is
merged into one plain installation, which finds its parts from where its program lies:

    bin/python, lib/python3.x/                  the program and the standard library of the base Python
    lib/python3.x/site-packages/                the packages, those in development too
    bin/, lib/, share/, ...                     what else packages brought, such as an MPI
    cache/                                      compiled kernels
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import py_compile
import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

PREFIX = Path(sys.prefix)
SITE = Path(sysconfig.get_path("purelib"))
STDLIB = Path(sysconfig.get_path("stdlib"))
LIBRARY = Path("lib") / f"python{sysconfig.get_python_version()}"

# What no rank imports. "include" and "config-*" serve to build extensions.
LEFT_OUT = {"__pycache__", "tests"}
LEFT_OUT_OF_STDLIB = {"test", "idlelib", "ensurepip", "turtledemo", "tkinter", "site-packages", "dist-packages"}
LEFT_OUT_OF_PREFIX = {"include", "pyvenv.cfg", "lib64"}

Member = tuple[Path, Path]  # the file, and its path in the pack


def main() -> None:
    """Write the tar file to standard output, and what the user should know to standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", action="append", default=[], metavar="PACKAGE", help="leave out a package")
    parser.add_argument("--kernels", type=Path, metavar="FOLDER", help="compiled kernels to pack")
    options = parser.parse_args()
    if "include-system-site-packages = true" in (PREFIX / "pyvenv.cfg").read_text():
        sys.exit(f"{PREFIX} uses packages of the base Python: make one without --system-site-packages")
    without = files_of(["pip", *options.without])
    site = site_folder()
    members = [*environment(site, without), *developed(site), *standard_library()]
    kernels = [(file, Path("cache") / file.name) for file in compiled(options.kernels)]
    with tarfile.open(mode="w|", fileobj=sys.stdout.buffer, format=tarfile.GNU_FORMAT) as pack:
        add_program(pack)
        for file, name in [*members, *kernels]:
            in_stdlib = name.suffix == ".so" and file.is_relative_to(STDLIB)
            (add_relocated if in_stdlib else add)(pack, file, name)
        add_bytecode(pack, members)
    print(f"{len(members)} files, {len(kernels)} compiled kernels", file=sys.stderr)


def files_of(packages: Iterable[str]) -> set[Path]:
    """All files that these packages installed; pip may be absent."""
    found: set[Path] = set()
    for package in packages:
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            if package != "pip":
                sys.exit(f"--without {package}: no such package in {PREFIX}")
            continue
        found.update(Path(os.path.normpath(file.locate())) for file in files)
    return found


def site_folder() -> Path:
    """Where the base Python looks for packages outside of an environment: Debian's has a name of its own for it."""
    program = "import site; print(site.getsitepackages(['.'])[-1])"
    base = sys._base_executable  # type: ignore[attr-defined]
    return Path(subprocess.run([base, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.strip())


def environment(site: Path, without: set[Path]) -> Iterator[Member]:
    """The packages, and what else they installed."""
    for file in walk(PREFIX, LEFT_OUT_OF_PREFIX):
        if file in without or is_of_the_environment(file):
            continue
        if file.suffix == ".pth":
            warn_of_folders(file)
        within = file.is_relative_to(SITE)
        yield file, site / file.relative_to(SITE) if within else file.relative_to(PREFIX)


def is_of_the_environment(file: Path) -> bool:
    """Whether the file knows where the environment lies: its Python, its commands, links to packages in development."""
    if file.parent == SITE:
        return file.name.startswith(("__editable___", "__editable__.")) and not names_folders(file)
    if file.parent != PREFIX / "bin":
        return False
    with file.open("rb") as opened:
        first = opened.readline(1000)
    return file.name.lower().startswith(("python", "activate")) or first.startswith(b"#!" + os.fsencode(PREFIX))


def names_folders(file: Path) -> list[str]:
    """Folders elsewhere that a .pth file adds to those with packages."""
    lines = file.read_text().splitlines() if file.suffix == ".pth" else []
    return [line for line in lines if os.path.isabs(line) and os.path.isdir(line)]


def warn_of_folders(file: Path) -> None:
    for folder in names_folders(file):
        print(f"not packed, as {file.name} refers to it: {folder}. Ranks will read it there", file=sys.stderr)


def developed(site: Path) -> Iterator[Member]:
    """Packages that `pip install --editable` left in their checkout, as if they were installed."""
    for finder in SITE.glob("__editable___*_finder.py"):
        for package, folder in importlib.import_module(finder.stem).MAPPING.items():
            target = site.joinpath(*package.split("."))
            if os.path.isdir(folder):
                yield from ((file, target / file.relative_to(folder)) for file in walk(Path(folder)))
            else:
                yield Path(f"{folder}.py"), target.with_suffix(".py")


def standard_library() -> Iterator[Member]:
    for file in walk(STDLIB, LEFT_OUT_OF_STDLIB):
        if not file.relative_to(STDLIB).parts[0].startswith("config-"):
            yield file, LIBRARY / file.relative_to(STDLIB)


def walk(top: Path, left_out: Iterable[str] = ()) -> Iterator[Path]:
    """All files below a folder, but for the names `left_out` in it, and LEFT_OUT at any depth."""
    for folder, folders, files in os.walk(top):
        skipped = LEFT_OUT.union(left_out) if Path(folder) == top else LEFT_OUT
        folders[:] = [name for name in folders if name not in skipped]
        yield from (Path(folder, name) for name in files if name not in skipped)


def compiled(folder: Path | None) -> list[Path]:
    """The kernels in a cache, without what is being written, and without what was measured on this machine."""
    if not (folder and folder.is_dir()):
        return []
    return [file for file in folder.iterdir() if not file.name.startswith(".") and file.suffix != ".json"]


def add_program(pack: tarfile.TarFile) -> None:
    """The Python program, and the libraries that lie beside its own."""
    program = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    add_relocated(pack, program, Path("bin", LIBRARY.name))
    for library in libraries():
        add_relocated(pack, library, Path("lib", library.name))
    for link, target in (("bin/python", LIBRARY.name), ("bin/python3", LIBRARY.name), ("lib64", "lib")):
        member = tarfile.TarInfo(link)
        member.type, member.linkname = tarfile.SYMTYPE, target
        pack.addfile(member)


def libraries() -> list[Path]:
    """What the program loads of its own: in a folder of the system it is libpython only, if there is one."""
    with open("/proc/self/maps") as maps:
        loaded = {Path(line.split()[-1]) for line in maps if "/libpython" in line}
    folders = {library.parent for library in loaded}
    if any(folder.is_relative_to(system) for folder in folders for system in ("/usr/lib", "/usr/lib64", "/lib")):
        return list(loaded)
    return [library for folder in folders for library in folder.glob("*.so*")]


def add_relocated(pack: tarfile.TarFile, file: Path, name: Path) -> None:
    """Add a program or a library that finds libraries in the pack: a path in its header becomes a relative one."""
    old = b"\0" + os.fsencode(Path(sys.base_prefix, "lib")) + b"\0"
    new = b"\0$ORIGIN/" + os.fsencode(os.path.relpath("lib", name.parent)) + b"\0"
    code = file.read_bytes()
    if file.is_symlink() or old not in code or len(new) > len(old):
        add(pack, file, name)
        return
    with tempfile.NamedTemporaryFile() as changed:
        changed.write(code.replace(old, new.ljust(len(old), b"\0")))
        changed.flush()
        shutil.copystat(file, changed.name)
        add(pack, Path(changed.name), name)


def add(pack: tarfile.TarFile, file: Path, name: Path) -> None:
    """Add a file; a link stays one only if it leads to something beside it."""
    pack.dereference = not (file.is_symlink() and "/" not in os.readlink(file))
    if pack.dereference and not file.exists():
        return  # a link to nothing
    member = pack.gettarinfo(file, str(name))
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    if not member.isreg():
        pack.addfile(member)
        return
    with file.open("rb") as opened:
        pack.addfile(member, opened)


def add_bytecode(pack: tarfile.TarFile, members: Iterable[Member]) -> None:
    """The bytecode of all modules, as nodes keep none that they compile: what is there and valid, or else made here."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "module.pyc")
        for file, name in members:
            if file.suffix != ".py":
                continue
            known = Path(importlib.util.cache_from_source(str(file)))
            if not is_valid(known, file):
                try:  # valid whatever the time of the source, as that is not looked at again
                    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                    py_compile.compile(str(file), str(made), doraise=True, invalidation_mode=mode)
                except (py_compile.PyCompileError, OSError):
                    continue  # a template, or what is no Python 3: nothing imports it
                known = made
            add(pack, known, Path(importlib.util.cache_from_source(str(name))))


def is_valid(bytecode: Path, source: Path) -> bool:
    """Whether Python would use it, by the header that it wrote: the source's time and size. The pack keeps times."""
    about = source.stat()
    expected = struct.pack("<4sLLL", importlib.util.MAGIC_NUMBER, 0, int(about.st_mtime) & 0xFFFFFFFF, about.st_size)
    try:
        with bytecode.open("rb") as opened:
            return opened.read(len(expected)) == expected
    except OSError:
        return False


if __name__ == "__main__":
    main()
