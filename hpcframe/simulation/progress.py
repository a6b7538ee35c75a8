"""What a run shows of itself while it goes on: a live bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Protocol

from hpcframe.protocol import TASK_COUNTS

LINE_EVERY = 10.0  # s


class Progress(Protocol):
    """Shown by one rank; the others show nothing."""

    def update(self, step: int) -> None:
        """That many steps are done."""

    def close(self) -> None:
        """The run is over."""


class Silent:
    """For ranks that show nothing."""

    def update(self, step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A line every ten seconds: for log files."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._begin = self._last = time.monotonic()

    def update(self, step: int) -> None:
        now = time.monotonic()
        if now - self._last < LINE_EVERY:
            return
        self._last = now
        rate = step / (now - self._begin)
        left = (self._steps - step) / rate if rate else 0.0
        share = 100 * step / self._steps
        print(f"  step {step}/{self._steps} ({share:.0f} %), {rate:.3g} steps/s, {_clock(left)} left", flush=True)

    def close(self) -> None:
        """Nothing: the summary follows."""


class Bar:
    """A live bar: steps, rate, time left."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:,.0f} steps/s" if task.speed else "compiling", style="cyan")

        columns = (
            TextColumn("  "), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} steps"), Rate(),
            TimeRemainingColumn(compact=True), TextColumn("left"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=Console(), refresh_per_second=5)
        self._task = self._progress.add_task("", total=steps)
        self._progress.start()

    def update(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def close(self) -> None:
        self._progress.stop()


def show_progress(steps: int, rank: int) -> Progress:
    """The progress of a run of that many steps. Not collective.

    A rank sees a pipe, not the terminal behind its launcher; `hpcframe run` says in TTY_COMPATIBLE and COLUMNS, which
    rich heeds, what is there.
    """
    if rank or not steps:
        return Silent()
    told = os.environ.get("TTY_COMPATIBLE")
    # Open MPI gives ranks a terminal of its own making, also where its output goes into a file.
    launched = any(name in os.environ for name in TASK_COUNTS)
    terminal = told == "1" if told is not None else sys.stdout.isatty() and not launched
    return Bar(steps) if terminal else Lines(steps)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
