"""What Lustre knows of a file's copy in S3, and giving its room back once that copy is proven. No MPI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcframe.errors import HpcframeError
from hpcframe.lustre import LfsError, lfs


@dataclass(frozen=True)
class ArchiveState:
    """What `lfs hsm_state` says of a file.

    Attributes:
        exists: a copy was begun.
        archived: it is complete.
        dirty: the file changed since.
        released: its data is in the copy only.
        lost: Lustre takes the copy to be unusable.
        kept: somebody set it never to be released.
    """

    exists: bool
    archived: bool
    dirty: bool
    released: bool
    lost: bool
    kept: bool

    @property
    def refusal(self) -> str:
        """ "" or why its data must stay on Lustre, whatever S3 holds."""
        if self.lost:
            return "Lustre takes its copy in S3 to be lost"
        if self.dirty:
            return "it changed since it was exported"
        if not (self.exists and self.archived):
            return "Lustre knows of no complete copy in S3"
        return "somebody set it never to be released: lfs hsm_clear --norelease" if self.kept else ""


WORDS = ("exists", "archived", "dirty", "released", "lost_from_hsm", "never_release")  # of lfs, in the order above


def state_of(path: Path) -> ArchiveState:
    """Not collective. Raises HpcframeError where Lustre cannot tell."""
    # As in "data.h5: (0x00000009) exists archived, archive_id:1".
    said = _lfs("hsm_state", path).removeprefix(str(path))
    words = said.replace(",", " ").split()
    return ArchiveState(*(word in words for word in WORDS))


def _lfs(action: str, path: Path) -> str:
    try:
        return lfs(action, str(path))
    except LfsError as error:
        raise HpcframeError(f"{path}: {error}; try it on a node that mounts it, as its owner or as root") from error


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
    if state.refusal:
        return state.refusal
    wrong = differs(path, url)
    if wrong:
        return wrong
    if state_of(path).refusal:
        return "it changed while it was compared"
    _lfs("hsm_release", path)
    if not state_of(path).released:
        raise HpcframeError(f"{path}: Lustre did not release it; `lfs hsm_action {path}` shows what goes on")
    return ""
