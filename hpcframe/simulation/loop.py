"""A run: from sim.toml to its results."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcframe.errors import HpcframeError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.simulation.assembly import build_model
from hpcframe.simulation.bandwidth import measure
from hpcframe.simulation.configuration import Configuration
from hpcframe.simulation.diagnostics import Diagnostics
from hpcframe.simulation.initial import set_initial
from hpcframe.simulation.output import Output
from hpcframe.simulation.progress import show_progress
from hpcframe.simulation.schedule import choose_steps, diagnostics_interval, is_due, next_due, output_interval
from hpcframe.simulation.signals import StopRequest

CHUNK_SECONDS = 0.1  # between two looks at signals: short enough for Ctrl-C, long enough to cost nothing


@dataclass
class Timing:
    """Seconds of a run by phase, of this rank."""

    set_up: float = 0.0
    first_chunk: float = 0.0  # compiling, mostly
    first_steps: int = 0
    advance: float = 0.0
    diagnostics: float = 0.0
    output: float = 0.0
    begun: float = field(default_factory=time.perf_counter)


class Run:
    """One simulation on the ranks of a communicator."""

    def __init__(self, configuration: Configuration, comm: MPI.Intracomm) -> None:
        """Collective. Raises InputError, the same on every rank, for what does not fit together."""
        self.configuration = configuration
        self.comm = comm
        self.timing = Timing()
        self.model = build_model(configuration, comm)
        self.grid = self.model.grid
        set_initial(self.model, configuration.initial)
        self.steps = choose_steps(configuration.time, self.model.stable_dt())
        self.directory = Path(configuration.simulation.directory)
        with collectively(comm, f"making the folder {self.directory}"), explained(self.directory):
            if comm.rank == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
        self.bandwidth = measure(self.grid)
        self.step = 0
        self.stopped_by = 0
        self.output = Output(self.directory, self.grid)
        self._every_output = output_interval(configuration.output, self.steps)
        self._every_row = diagnostics_interval(configuration.monitor.every_steps, self.steps)
        self.timing.set_up = time.perf_counter() - self.timing.begun

    def execute(self, stop: StopRequest | None = None) -> None:
        """Do all steps, or those until a request to stop, and write results. Collective."""
        self.model.start(self.steps.dt)
        progress = show_progress(self.steps.count, self.comm.rank)
        names = tuple(self.model.diagnostics())
        try:
            with Diagnostics(self.directory / "diagnostics.csv", self.grid, names) as table:
                self._record(table, first=True)
                self._advance_all(table, progress, stop)
        finally:
            progress.close()

    def _advance_all(self, table: Diagnostics, progress: Any, stop: StopRequest | None) -> None:
        chunk = 1
        while self.step < self.steps.count and not self.stopped_by:
            until = min(self.step + chunk, next_due(self.step, (self._every_output, self._every_row), self.steps.count))
            seconds = self._advance(until - self.step)
            longest, self.stopped_by = self._agree(seconds, stop)
            chunk = max(1, round((until - self.step) * CHUNK_SECONDS / max(longest, 1e-6)))
            chunk = min(chunk, 10 * (until - self.step))
            self.step = until
            progress.update(self.step)
            self._record(table)

    def _advance(self, steps: int) -> float:
        begin = time.perf_counter()
        self.model.advance(steps, self.steps.dt)
        seconds = time.perf_counter() - begin
        if self.step == 0:
            self.timing.first_chunk, self.timing.first_steps = seconds, steps
        self.timing.advance += seconds
        return seconds

    def _agree(self, seconds: float, stop: StopRequest | None) -> tuple[float, int]:
        """The longest time of any rank, and any rank's request to stop: the same decision on every rank."""
        both = np.array([seconds, stop.signal if stop else 0.0])
        self.comm.Allreduce(MPI.IN_PLACE, both, MPI.MAX)
        return float(both[0]), int(both[1])

    def _record(self, table: Diagnostics, first: bool = False) -> None:
        """Diagnostics and output where they are due."""
        last = self.step if self.stopped_by else self.steps.count
        begin = time.perf_counter()
        if first or is_due(self.step, self._every_row, last):
            terms = self.model.diagnostics()
            values = dict(zip(terms, self.grid.reduce(*terms.values()), strict=True)) if terms else {}
            table.append(self.step, self.time, values)
            self._refuse_not_finite(values)
        self.timing.diagnostics += time.perf_counter() - begin
        begin = time.perf_counter()
        due = is_due(self.step, self._every_output, last)
        if due and (not first or self._every_output or self.step == last):
            self.output.write(self.step, self.time, self.chosen_fields())
        self.timing.output += time.perf_counter() - begin

    @property
    def time(self) -> float:
        """Simulated time (s)."""
        return self.step * self.steps.dt

    def chosen_fields(self) -> list[Any]:
        state = self.model.state
        return [state[name] for name in self.configuration.output.fields or state]

    def _refuse_not_finite(self, values: dict[str, Any]) -> None:
        wrong = [name for name, value in values.items() if not np.isfinite(np.asarray(value, dtype=complex)).all()]
        if wrong:
            raise HpcframeError(
                f"step {self.step}, t = {self.time:g} s: {', '.join(wrong)} is no longer finite: the solution has "
                f"blown up. Try a smaller [time] cfl or dt, and look at the parameters and initial values; "
                f"{self.directory / 'diagnostics.csv'} shows when it began"
            )
