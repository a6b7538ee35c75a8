"""A run: from sim.toml to its results."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from mpi4py import MPI

from hpcframe.errors import HpcframeError, InputError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.grid.communicator import connect
from hpcframe.simulation.assembly import build_model
from hpcframe.simulation.bandwidth import measure
from hpcframe.simulation.checkpointing import Checkpointing
from hpcframe.simulation.configuration import Configuration
from hpcframe.simulation.diagnostics import Diagnostics
from hpcframe.simulation.initial import set_initial
from hpcframe.simulation.interruption.interruptions import Interruptions
from hpcframe.simulation.interruption.reason import Reason
from hpcframe.simulation.output import Output
from hpcframe.simulation.progress import show_progress
from hpcframe.simulation.schedule import (
    Steps,
    choose_steps,
    diagnostics_interval,
    is_due,
    next_chunk,
    next_due,
    output_interval,
    resume_steps,
)
from hpcframe.simulation.watchdog import Watchdog

if TYPE_CHECKING:
    from hpcframe.staging.companion import Staging

BEFORE_THE_END = 5.0  # s that an interrupted run leaves, of those that it has
LINGER, LINGER_UNKNOWN = 90.0, 5.0  # s at most for S3 after an interruption; and where nobody says when the end comes


@dataclass
class Timing:
    """Seconds of a run by phase, of this rank."""

    set_up: float = 0.0
    first_chunk: float = 0.0  # compiling, mostly
    first_steps: int = 0
    advance: float = 0.0
    diagnostics: float = 0.0
    output: float = 0.0
    checkpoints: float = 0.0
    begun: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Decision:
    """What all ranks agree on after some steps.

    Attributes:
        longest: seconds that the slowest rank took.
        reason: why the run is to stop; `Reason.NONE`: it is not.
        seconds_left: until the end of the job, infinite where unknown.
        checkpoint: it is time for a checkpoint.
        failed: a checkpoint that is being written fails.
    """

    longest: float
    reason: Reason
    seconds_left: float
    checkpoint: bool
    failed: bool


class Run:
    """One simulation on the ranks of a communicator.

    Attributes:
        step: the last step that was done.
        first_step: the step that this run began from: 0, or that of a checkpoint.
        stopped_by: why it stopped before the last step.
        not_kept: why there is no checkpoint of the step at which it stopped; "" where there is one.
        staging: what brings results to S3; None where nothing does.
    """

    def __init__(self, configuration: Configuration, comm: MPI.Intracomm, restart: str = "auto") -> None:
        """Collective.

        Args:
            restart: "auto": go on from the newest checkpoint, if there is one; "none"; or the path of a checkpoint.

        Raises:
            InputError: the same on every rank, for what does not fit together.
            NoCheckpointError: there are checkpoints, and none can be used.
        """
        self.configuration = configuration
        self.comm = comm
        self.timing = Timing()
        self.directory = Path(configuration.simulation.directory)
        with collectively(comm, f"making the folder {self.directory}"), explained(self.directory):
            if comm.rank == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
        self.watchdog = Watchdog(self.directory, comm, configuration.monitor.stall_seconds)
        try:
            self._set_up(restart)
        except BaseException:
            self.watchdog.close()
            raise

    def _set_up(self, restart: str) -> None:
        """Collective."""
        configuration = self.configuration
        self.watchdog.enter("measuring the memory")
        self.bandwidth = measure(connect(self.comm))
        self.watchdog.enter("making the model")
        self.model = build_model(configuration, self.comm)
        self.grid = self.model.grid
        self.checkpointing = Checkpointing(configuration, self.model, self.directory, self.watchdog.progress)
        self.staging = self._begin_staging()
        self.watchdog.enter("the initial values, or those of a checkpoint")
        self.steps = self._begin(restart)
        self.step = self.first_step
        self.stopped_by = Reason.NONE
        self.not_kept = ""
        self._ends = math.inf  # when the job does, by the clock of time.monotonic
        self._every_output = output_interval(configuration.output, self.steps)
        self._every_row = diagnostics_interval(configuration.monitor.every_steps, self.steps)
        self.output = Output(self.directory, self.grid)
        if self.first_step:
            self.output.resume(
                self.chosen_fields(), lambda step: self._belongs(step, self._every_output), self._time_of
            )
        self.timing.set_up = time.perf_counter() - self.timing.begun

    def _begin_staging(self) -> Staging | None:
        """Collective. Raises InputError where S3 refuses."""
        section = self.configuration.staging
        if section is None:
            return None
        from hpcframe.staging.companion import Staging

        self.watchdog.enter("asking S3")
        staging = Staging(self.checkpointing.folder, comm=self.comm, **msgspec.to_builtins(section))
        self.checkpointing.checkpoints.held = staging.held
        return staging

    def _begin(self, restart: str) -> Steps:
        """Initial values, or those of a checkpoint. Collective."""
        restored = self.checkpointing.restore(restart)
        self.first_step = restored.step if restored else 0
        if not restored:
            set_initial(self.model, self.configuration.initial)
            steps = choose_steps(self.configuration.time, self.model.stable_dt())
            self.model.prepare(steps.dt)
            self.model.start(steps.dt)
            return steps
        dt = restored.attributes["dt"]
        steps = resume_steps(self.configuration.time, dt)
        if restored.step > steps.count:
            raise InputError(
                f"[time]: the run is to end at step {steps.count}, but {restored.path} is of step {restored.step}; "
                f"give more steps or a later end, or --restart none to begin anew"
            )
        self.model.prepare(dt)
        self.model.set_numbers(restored.attributes["numbers"])
        return steps

    def execute(self, interruptions: Interruptions | None = None) -> None:
        """Do all steps, or those until a request to stop, and write results. Collective."""
        progress = show_progress(self.steps.count, self.comm.rank)
        names = tuple(self.model.diagnostics())
        path = self.directory / "diagnostics.csv"
        self._set_margin(interruptions)
        try:
            with Diagnostics(path, self.grid, names, lambda step: self._belongs(step, self._every_row)) as table:
                self._record(table, first=not self.first_step)
                self._advance_all(table, progress, interruptions)
        finally:
            progress.close()
            self.watchdog.close()

    def _belongs(self, step: int, interval: float) -> bool:
        """Whether what an interrupted run wrote after a step stays: it is what a run without interruption writes, and
        this one does not write it again."""
        return step < self.first_step and is_due(step, interval, self.steps.count)

    def _advance_all(self, table: Diagnostics, progress: Any, interruptions: Interruptions | None) -> None:
        chunk = 1
        section = self.configuration.checkpoint
        intervals = (self._every_output, self._every_row, section.every_steps)
        while self.step < self.steps.count and not self.stopped_by:
            until = min(self.step + chunk, next_due(self.step, intervals, self.steps.count))
            seconds = self._advance(until - self.step)
            decision = self._agree(seconds, interruptions)
            chunk = next_chunk(until - self.step, decision.longest)
            self.step, self.stopped_by = until, decision.reason
            self.checkpointing.note_steps(self.step, self.timing.advance / (self.step - self.first_step))
            self._look_after_staging()
            progress.update(self.step)
            self._ends = time.monotonic() + decision.seconds_left
            if decision.reason:  # time may be short: the state first
                self._keep(decision, interruptions)
                self._record(table)
            else:  # a state that has blown up is found first
                self._record(table)
                self._keep(decision, interruptions)
        if self.stopped_by and interruptions:
            interruptions.obeyed()
        self.watchdog.enter("waiting for the last checkpoint")
        self.checkpointing.finish()
        if not self.is_interrupted:
            self.checkpointing.complete()

    def finish_staging(self) -> str:
        """Wait until all is in S3, as long as there is time; "" or why not all is. Collective."""
        if self.staging is None:
            return ""
        left = self._ends - time.monotonic()
        if self.is_interrupted:
            left = min(left - BEFORE_THE_END, LINGER) if math.isfinite(left) else LINGER_UNKNOWN
        return self.staging.finish(max(0.0, left))

    def _advance(self, steps: int) -> float:
        self.watchdog.enter(f"steps {self.step + 1} to {self.step + steps}")
        begin = time.perf_counter()
        self.model.advance(steps, self.steps.dt)
        seconds = time.perf_counter() - begin
        if self.step <= self.first_step + 1:  # one step, and then several in one pass: both compile
            self.timing.first_chunk += seconds
            self.timing.first_steps += steps
        self.timing.advance += seconds
        return seconds

    def _agree(self, seconds: float, interruptions: Interruptions | None) -> Decision:
        """The same decision on every rank, by one message."""
        reason, left = interruptions.look() if interruptions else (Reason.NONE, math.inf)
        due, failed = self.checkpointing.is_due_by_time(), self.checkpointing.checkpoints.failed
        values = np.array([seconds, reason, -left, due, failed], np.float64)
        self.comm.Allreduce(MPI.IN_PLACE, values, MPI.MAX)
        return Decision(values[0], Reason(int(values[1])), -values[2], bool(values[3]), bool(values[4]))

    def _keep(self, decision: Decision, interruptions: Interruptions | None) -> None:
        """Make a checkpoint where one is due."""
        begin = time.perf_counter()
        if decision.failed:
            self.checkpointing.finish()  # raises why, on every rank
        section, last = self.configuration.checkpoint, self.steps.count
        due = section.periodic and is_due(self.step, section.every_steps, last)
        self.watchdog.enter(f"the checkpoint of step {self.step}")
        if decision.reason and self.step < last:
            self.not_kept = self.checkpointing.save_before_end(self.step, self.steps.dt, decision.seconds_left)
        elif due or decision.checkpoint:
            self._refuse_not_finite(self._values())
            self.checkpointing.save(self.step, self.steps.dt)
            self._set_margin(interruptions)
        self.timing.checkpoints += time.perf_counter() - begin

    def _look_after_staging(self) -> None:
        if self.staging:
            self.staging.look()
            while self.staging.notices:
                print(f"hpcframe: {self.staging.notices.pop(0)}", file=sys.stderr, flush=True)

    def _set_margin(self, interruptions: Interruptions | None) -> None:
        """How long before the end of the job to stop: time for a checkpoint."""
        if interruptions:
            interruptions.margin = self.checkpointing.margin

    def _record(self, table: Diagnostics, first: bool = False) -> None:
        """Diagnostics and output where they are due."""
        last = self.step if self.stopped_by else self.steps.count
        self.watchdog.enter(f"the results of step {self.step}")
        begin = time.perf_counter()
        if first or is_due(self.step, self._every_row, last):
            values = self._values()
            table.append(self.step, self.time, values)
            self._refuse_not_finite(values)
        self.timing.diagnostics += time.perf_counter() - begin
        begin = time.perf_counter()
        due = is_due(self.step, self._every_output, last)
        if due and (not first or self._every_output or self.step == last):
            self.output.write(self.step, self.time, self.chosen_fields())
        self.timing.output += time.perf_counter() - begin

    def _values(self) -> dict[str, Any]:
        """The model's diagnostics. Collective."""
        terms = self.model.diagnostics()
        return dict(zip(terms, self.grid.reduce(*terms.values()), strict=True)) if terms else {}

    @property
    def is_interrupted(self) -> bool:
        """Whether it stopped before its last step."""
        return bool(self.stopped_by) and self.step < self.steps.count

    @property
    def time(self) -> float:
        """Simulated time (s)."""
        return self._time_of(self.step)

    def _time_of(self, step: int) -> float:
        return step * self.steps.dt

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
