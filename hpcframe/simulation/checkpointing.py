"""The checkpoints of a run: what is in them, when they are made, and what a run continues from."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hpcframe.checkpoint.checkpoints import Checkpoints
from hpcframe.checkpoint.deadline import Rates, fits
from hpcframe.checkpoint.history import History
from hpcframe.checkpoint.interval import expected_waste, optimal_interval
from hpcframe.errors import FruitlessRestartsError, HpcframeError, InputError, NoCheckpointError
from hpcframe.files import explained
from hpcframe.grid.agreement import collectively
from hpcframe.simulation.configuration import Configuration
from hpcframe.simulation.model import Model
from hpcframe.staging.url import is_url

if TYPE_CHECKING:
    from hpcframe.checkpoint.restart import Restored

FOLDER = "checkpoints"
MARGIN, UNKNOWN = 10.0, 25.0  # s to stop before the end of a job, besides two checkpoints; and where none is known
FIRST_AFTER = 60.0  # s until the first checkpoint of interval = "auto", which tells what one costs
KEEP_EVERY = 10.0  # s between two times that the history is kept without a checkpoint
HOUR = 3600.0  # s


class Checkpointing:
    """Makes and restores the checkpoints of one run.

    Attributes:
        count: checkpoints that were made.
        blocking: seconds that the steps waited for them, in all.
        predicted: seconds that the one before the end was expected to take; None where nothing was known.
    """

    def __init__(
        self, configuration: Configuration, model: Model, directory: Path, progress: Callable[[], None]
    ) -> None:
        """Not collective. `progress` is called for each tile that is read or written."""
        section = configuration.checkpoint
        self.section = section
        self.model = model
        self.comm = model.grid.comm
        self.folder = directory / FOLDER
        self.url = configuration.staging.url if configuration.staging else ""
        self._with_output = bool(configuration.staging and "output" in configuration.staging.push)
        self._progress = progress
        self.checkpoints = Checkpoints(
            self.folder,
            keep=section.keep,
            keep_every=section.keep_every,
            pinned=section.pinned,
            driver=section.driver,
            asynchronous=section.asynchronous,
            files=section.files,
            stripe_count=section.stripe_count,
            stripe_size=section.stripe_size,
            hints=section.hints,
            collective=section.collective,
        )
        self.checkpoints.progress = progress
        self._identity = identity(configuration, model.parameters)
        self.rates = Rates()
        self.count, self.blocking, self.durable = 0, 0.0, 0.0
        self.predicted: float | None = None
        self.history = History()
        self._begun = self._latest = self._kept = time.monotonic()
        self._latest_step: int | None = None

    # -- restart ------------------------------------------------------------------------------------------------

    def restore(self, how: str) -> Restored | None:
        """Set the fields from a checkpoint, if there is one to continue from. Collective.

        Args:
            how: "auto": the newest of this run that verifies, here or else in S3, if there is any; "none"; or the path
                or the s3:// URL of one.

        Raises:
            InputError: it is of another simulation.
            NoCheckpointError: there are checkpoints and none can be used.
        """
        if how == "none":
            if self._is_there():
                self.checkpoints.begin_anew(self.model.checkpointed)
            return None
        if is_url(how):
            restored: Restored | None = self._restore_from(how)
        elif how == "auto":
            restored = self._restore_newest()
        else:
            restored = self._restored(Path(how))
        if restored is None:
            return None
        self._latest_step = restored.step if restored.path.parent.resolve() == self.folder.resolve() else None
        with collectively(self.comm, "reading the history of interruptions"):
            if self.comm.rank == 0 and self.folder.is_dir():
                self.history = History.read(self.folder)
                self.history.begin(restored.step)
                self.rates = Rates(self.history.commits)
        self._tell([*restored.refused, self.history.notice])
        return restored

    def _is_there(self) -> bool:
        return bool(self.comm.bcast(self.folder.is_dir() if self.comm.rank == 0 else None))

    def _restored(self, path: Path | None) -> Restored | None:
        check = self._check_made_by_a_run if path else self._refuse_another
        return self.checkpoints.restore(self.model.checkpointed, path=path, check=check)

    def _restore_newest(self) -> Restored | None:
        """From the newest here that verifies, or else the newest in S3, if there is any.

        Where the checkpoints here verify, and runs from them fail, those in S3 would serve no better.
        """
        try:
            restored = self._restored(None) if self._is_there() else None
        except FruitlessRestartsError:
            raise
        except NoCheckpointError:
            if not (self.url and self._pull(self.url, self.folder)):
                raise
            return self._restored(None)
        if restored or not (self.url and self._pull(self.url, self.folder, self._pull_output)):
            return restored
        return self._restored(None)

    def _pull_output(self) -> None:
        """The output and the diagnostics before the checkpoint, so that they go on."""
        if self.url and self._with_output:
            from hpcframe.staging.pulling import pull_output

            pull_output(self.url, self.folder.parent, self.comm, self._progress)

    def _restore_from(self, url: str) -> Restored | None:
        """From S3, as from another folder: the checkpoint is read into one of its own, and that goes again."""
        place = self.folder.parent / "staging" / "pulled"
        path = self._pull(url, place)
        if path is None:
            raise InputError(f"{url}: no complete checkpoint is there; `hpcframe stage ls` shows what is")
        restored = self._restored(path)
        with collectively(self.comm, f"removing {place}"), explained(place):
            if self.comm.rank == 0:
                shutil.rmtree(place)
        return restored

    def _pull(self, url: str, folder: Path, first: Callable[[], None] = lambda: None) -> Path | None:
        from hpcframe.aws import AwsError, RefusedError  # boto3, which few runs need
        from hpcframe.staging.pulling import pull_newest

        try:
            path, passed_over = pull_newest(url, folder, self.comm, self._progress, first)
        except AwsError as error:
            if isinstance(error, RefusedError):
                raise
            # To begin anew here would cost what may be there.
            raise HpcframeError(
                f"{error}. What {url} has to go on from cannot be had now: start again later, or begin anew by "
                f"--restart none"
            ) from error
        self._tell([f"pulled {path.name} from {url}" if path else "", passed_over])
        return path

    def _tell(self, lines: list[str]) -> None:
        for line in filter(None, lines if self.comm.rank == 0 else []):
            print(f"hpcframe: {line}", file=sys.stderr, flush=True)

    def _check_made_by_a_run(self, attributes: dict[str, Any]) -> None:
        if not {"dt", "numbers", "simulation"} <= attributes.keys():
            raise InputError("that checkpoint was not made by `hpcframe.run`; restore it by `hf.Checkpoints`")

    def _refuse_another(self, attributes: dict[str, Any]) -> None:
        """The same bits as without the interruption are those of the same simulation."""
        self._check_made_by_a_run(attributes)
        before = attributes["simulation"]
        changed = [key for key in sorted({*before, *self._identity}) if before.get(key) != self._identity.get(key)]
        if changed:
            key = changed[0]
            raise InputError(
                f"{self.folder} is of another simulation: {key} was {before.get(key, 'not given')} and is "
                f"{self._identity.get(key, 'not given')} now. To begin anew: --restart none (the checkpoints are set "
                f"aside). To go on from it all the same: --restart {self.folder}"
            )

    # -- when ---------------------------------------------------------------------------------------------------

    def is_due_by_time(self) -> bool:
        """Whether it is time for one; rank 0's answer counts. Not collective."""
        return self.comm.rank == 0 and time.monotonic() - self._latest >= self.interval()

    def interval(self) -> float:
        """Seconds of wall-clock time between checkpoints; infinite where they go by steps. Not collective."""
        if self.section.every_seconds:
            return self.section.every_seconds
        if not self.section.interval:
            return math.inf
        return optimal_interval(self.blocking / self.count, self.mean()) if self.count else FIRST_AFTER

    def mean(self) -> float:
        """Seconds between interruptions: given, or learnt."""
        if self.section.mean_hours:
            return self.section.mean_hours * HOUR
        return self.history.mean_between(time.monotonic() - self._begun)

    # -- saving -------------------------------------------------------------------------------------------------

    def save(self, step: int, dt: float) -> None:
        """Make a checkpoint of the state after a step, unless it is there already. Collective."""
        if self._latest_step == step:
            return
        attributes = {"simulation": self._identity, "dt": dt, "numbers": self.model.numbers()}
        self.checkpoints.save(step, self.model.checkpointed, attributes=attributes)
        self.count += 1
        self.blocking += self.checkpoints.seconds.blocking
        self.history.waited += self.checkpoints.seconds.blocking
        self._latest, self._latest_step = time.monotonic(), step
        self._tell_notices()
        self._note_rate()
        self._keep_history()

    def note_steps(self, step: int, pace: float) -> None:
        """Keep in mind how far the run is, so that its next incarnation knows what it does again. Not collective.

        Args:
            step: the last that was done.
            pace: seconds a step.
        """
        self.history.reached, self.history.pace = step, pace
        if self._latest_step is not None and time.monotonic() - self._kept > KEEP_EVERY:
            self._keep_history()

    def finish(self) -> None:
        """Wait for the last one to be durable. Collective."""
        self.checkpoints.wait()
        self._tell_notices()
        self._note_rate()

    def complete(self) -> None:
        """The run has reached its end: its restarts were no failures. Collective."""
        self.checkpoints.complete()
        self.history.finished = True
        if self._latest_step is not None:
            self._keep_history()

    def _keep_history(self) -> None:
        self._kept = time.monotonic()
        if self.comm.rank == 0:
            try:
                self.history.write(self.folder, time.monotonic() - self._begun)
            except HpcframeError as error:  # it serves an estimate only
                self._tell([str(error)])

    def _tell_notices(self) -> None:
        notices = self.checkpoints.notices
        while notices:
            self._tell([notices.pop(0)])

    def _note_rate(self) -> None:
        if self.checkpoints.seconds.durable:
            self.durable = self.checkpoints.seconds.durable
            self.rates.add(self.bytes, self.durable)
            self.history.commits = self.rates.known

    @property
    def margin(self) -> float:
        """Seconds before the end of a job at which to stop, for a checkpoint. Not collective."""
        return MARGIN + 2 * (self.durable or UNKNOWN)

    @property
    def latest_step(self) -> int | None:
        """The step of the latest checkpoint of this run, the one that it went on from included."""
        return self._latest_step

    @property
    def bytes(self) -> int:
        """Of a checkpoint."""
        fields = self.model.checkpointed.values()
        return sum(field.dtype.itemsize * math.prod(field.shape) for field in fields)

    def save_before_end(self, step: int, dt: float, seconds_left: float) -> str:
        """Make a checkpoint before the job ends, if there is time for one. Collective.

        Args:
            seconds_left: until the end, the same on every rank; infinite where unknown.

        Returns:
            "" or why there is none of this step.
        """
        if self._latest_step != step:
            self.predicted = self.comm.bcast(self.rates.predict(self.bytes))
            if not fits(self.predicted, seconds_left):
                self.finish()
                kept = f"step {self._latest_step}" if self._latest_step is not None else "no step: none was made yet"
                return (
                    f"no checkpoint of step {step}: it would take {self.predicted:.3g} s and {seconds_left:.3g} s are "
                    f"left; kept is that of {kept}"
                )
            self.save(step, dt)
        self.finish()
        self.history.noticed += 1
        self._keep_history()
        return ""

    def summary(self, end: str) -> dict[str, Any]:
        """What summary.json says of checkpoints.

        Args:
            end: why the last step has no checkpoint, or "".
        """
        mean, interval = self.mean(), self.interval()
        cost = self.blocking / self.count if self.count else None
        known = cost is not None and math.isfinite(interval)
        return {
            "count": self.count,
            "latest_step": self._latest_step,
            "driver": self.checkpoints.driver,
            "bytes": self.bytes,
            "blocking_seconds": self.blocking,
            "blocking_seconds_each": cost,
            "durable_seconds_latest": self.durable,
            "interval_seconds": interval if math.isfinite(interval) else None,
            "mean_seconds_between_interruptions": mean,
            "interruptions": self.history.interruptions,
            "waste_predicted": expected_waste(interval, cost or 0.0, mean) if known else None,
            "waste_actual": self.history.waste(time.monotonic() - self._begun),
            "seconds_done_again": self.history.redone,
            "last_predicted_seconds": self.predicted,
            "last_actual_seconds": self.durable if self.predicted is not None else None,
            "not_made": end or None,
        }


def identity(configuration: Configuration, parameters: Any) -> dict[str, str]:
    """What makes a simulation what it is, as texts by the keys of sim.toml, defaults included. Not collective."""
    table, grid, time = configuration.table, configuration.grid, configuration.time
    values = {
        "[simulation] model": table["simulation"]["model"],
        **{f"[grid] {key}": list(getattr(grid, key)) for key in ("shape", "extent", "origin")},
        **{f"[parameters] {key}": value for key, value in msgspec.to_builtins(parameters).items()},
        **{f"[initial] {key}": value for key, value in table.get("initial", {}).items()},
        "[boundary]": configuration.boundary,
        **{f"[time] {key}": getattr(time, key) for key in ("cfl", "dt")},
    }
    return {key: repr(value) for key, value in values.items()}
