"""The options of `hf.Checkpoints`, checked when they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hpcframe.errors import InputError, nearest

DRIVERS = ("auto", "direct", "mpio")


@dataclass(frozen=True)
class Options:
    """See `hf.Checkpoints`."""

    keep: int = 3
    keep_every: int = 0
    pinned: tuple[int, ...] = ()
    driver: str = "auto"
    asynchronous: bool = False
    files: int = 1
    stripe_count: int = 0
    stripe_size: int = 0
    hints: Mapping[str, str] = field(default_factory=dict)
    collective: bool = False

    @staticmethod
    def checked(given: Mapping[str, Any]) -> Options:
        """Raises InputError for an option that is unknown or cannot be."""
        known = [each.name for each in fields(Options)]
        for name in given:
            if name not in known:
                raise InputError(f"checkpoints have no option '{name}'{nearest(name, known)}")
        options = Options(**given)
        if options.driver not in DRIVERS:
            raise InputError(f"driver: {options.driver!r}{nearest(str(options.driver), DRIVERS)}")
        least = {"keep": 1, "files": 1, "keep_every": 0, "stripe_count": -1, "stripe_size": 0}
        for name, number in least.items():
            value = getattr(options, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < number:
                raise InputError(f"{name}: {value!r}; expected a whole number of at least {number}")
        if options.driver == "mpio" and options.asynchronous:
            raise InputError(
                "driver 'mpio' cannot write asynchronously, for MPI is left to the main thread: "
                "choose 'direct', or asynchronous=False"
            )
        return options

    def why(self) -> tuple[str, str]:
        """The driver to use, and the reason."""
        if self.driver != "auto":
            return self.driver, "as asked"
        return (
            "direct",
            "as fast as 'mpio' or faster wherever both were measured, and needs no parallel HDF5",
        )
