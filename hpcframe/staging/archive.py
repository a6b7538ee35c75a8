"""What Lustre knows of a file's copy in S3, and giving its room back once that copy is proven. No MPI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcframe.errors import HpcframeError
from hpcframe.lustre import lfs


@dataclass(frozen=True)
class ArchiveState:
    """What `lfs hsm_state` says: a copy exists, it is complete, the file changed since, its data is only there."""

    exists: bool
    archived: bool
    dirty: bool
    released: bool

    @property
    def is_safe(self) -> bool:
        return self.exists and self.archived and not self.dirty


def state_of(path: Path) -> ArchiveState:
    """Not collective. Raises HpcframeError where Lustre cannot tell."""
    said = lfs("hsm_state", str(path)).removeprefix(str(path))
    words = said.replace(",", " ").split()
    return ArchiveState(*(word in words for word in ("exists", "archived", "dirty", "released")))


def release(path: Path, url: str, differs: Callable[[Path, str], str]) -> str:
    """Give the room of a file back: its data is then in S3 alone, and comes back when it is read. Not collective.

    Args:
        url: of its object.
        differs: "" where the object holds the file, or what is wrong with it; it reads both.

    Returns:
        "" or why it was not released.

    Raises:
        HpcframeError: Lustre cannot do it.
    """
    state = state_of(path)
    if state.released:
        return ""
    if not state.is_safe:
        return "it changed since it was exported" if state.dirty else "Lustre knows of no complete copy in S3"
    wrong = differs(path, url)
    if wrong:
        return wrong
    if not state_of(path).is_safe:
        return "it changed while it was compared"
    lfs("hsm_release", str(path))
    if not state_of(path).released:
        raise HpcframeError(f"{path}: Lustre did not release it; `lfs hsm_action {path}` shows what goes on")
    return ""
