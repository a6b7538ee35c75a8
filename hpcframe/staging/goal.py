"""What of a run is on the disk at one moment, and whether it is in S3 by now: for those who wait. No MPI."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hpcframe.staging.local import Local, LocalCheckpoints, output_of, version_of
from hpcframe.staging.pushed import Pushed, Version, read_pushed


class Goal:
    """The newest checkpoint and the output, as they are when this is made. Later changes of them are not waited for."""

    def __init__(self, checkpoints: Path, run: Path, url: str, push: Collection[str]) -> None:
        """Not collective. `url` and `push` as in [staging]. Raises OSError."""
        self._run, self._url = run, url
        self._before = set(read_pushed(run, url).checkpoints)
        local = LocalCheckpoints(checkpoints).newer_than(()) if "checkpoints" in push else []
        self._newest: Local | None = local[0] if local else None
        self._files = output_of(run) if "output" in push else {}

    def missing(self) -> list[str]:
        """What is not in S3 yet. Raises OSError."""
        pushed = read_pushed(self._run, self._url)
        files = [name for name, version in self._files.items() if not self._is_there(name, version, pushed)]
        newest = self._newest
        return [newest.path.name, *files] if newest and not self._has(pushed, newest) else files

    def _has(self, pushed: Pushed, newest: Local) -> bool:
        """Whether that checkpoint is there, or one came that is as new: those in between are left out."""
        since = [step for name, step in pushed.checkpoints.items() if name not in self._before]
        return newest.name in pushed.checkpoints or any(step >= newest.step for step in since)

    def _is_there(self, name: str, version: Version, pushed: Pushed) -> bool:
        """Whether it was pushed as it was, or later; what is gone is not waited for."""
        there = pushed.files.get(name)
        return there == version or (there is not None and there[1] > version[1]) or not version_of(self._run / name)
