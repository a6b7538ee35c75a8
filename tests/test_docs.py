"""The documentation shows nothing that does not run: its Python, its sim.toml, and the commands of the tutorial.

A block that begins with a comment that is a file's name, such as `# sim.toml`, is that file. What cannot run, and
what is output, is marked `text`.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.(?:py|toml))$", re.MULTILINE)
COMMANDS_RUN = ("tutorial",)  # those of other pages need a cluster, or a file of the reader's
RANKS = 2


@dataclass(frozen=True)
class Block:
    """A block of code: its text, and the line of the page where that begins."""

    text: str
    line: int


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if match[1] == language]
    return [Block(match[2], text.count("\n", 0, match.start(2)) + 1) for match in found]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") or blocks(page, "toml")], ids=name)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    save_files(page, tmp_path)
    if page.stem in COMMANDS_RUN:
        for block in blocks(page, "sh"):
            run(["sh", "-eu", "-c", block.text], tmp_path)
    run_python(page, tmp_path)
    for block in blocks(page, "toml"):
        check_simulation(block, tmp_path)


def save_files(page: Path, folder: Path) -> None:
    for block in (*blocks(page, "python"), *blocks(page, "toml")):
        if named := FILE_NAME.match(block.text):
            (folder / named[1]).write_text(block.text, encoding="utf-8")


def run_python(page: Path, folder: Path) -> None:
    """All Python blocks of a page as one program on several ranks."""
    lines: list[str] = []
    for block in blocks(page, "python"):
        lines += [""] * (block.line - 1 - len(lines))  # so that a traceback names the line of the page
        lines += block.text.splitlines()
    script = folder / f"page_{page.stem}.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    launch = [sys.executable, "-m", "hpcframe.launch.local", "-n", str(RANKS), "--"]
    run([*launch, sys.executable, "-m", "mpi4py", script.name], folder)


def check_simulation(block: Block, folder: Path) -> None:
    """A dry run; a block of some sections only is completed with a model."""
    path = folder / f"line-{block.line}.toml"
    path.write_text(block.text, encoding="utf-8")
    model = [] if "model = " in block.text else ["--set", "simulation.model=heat"]
    run([sys.executable, "-m", "hpcframe.run", str(path), "--dry-run", *model], folder)


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder, the programs of this environment before others."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, timeout=100, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
