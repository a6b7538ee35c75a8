"""The options of `hf.Checkpoints`, checked when they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hpcframe.errors import InputError, nearest

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class Options(msgspec.Struct, frozen=True):
    """See `hf.Checkpoints`."""

    keep: Positive = 3
    keep_every: Count = 0
    pinned: tuple[Count, ...] = ()
    driver: Literal["auto", "direct", "mpio"] = "auto"
    asynchronous: bool = False
    files: Positive = 1
    stripe_count: Annotated[int, Meta(ge=-1)] = 0
    stripe_size: Count = 0
    hints: dict[str, str] = {}
    collective: bool = False

    @staticmethod
    def checked(given: Mapping[str, Any]) -> Options:
        """Raises InputError for an option that is unknown or cannot be."""
        for name in given:
            if name not in Options.__struct_fields__:
                raise InputError(f"checkpoints have no option '{name}'{nearest(name, Options.__struct_fields__)}")
        try:
            options = msgspec.convert(dict(given), Options)
        except msgspec.ValidationError as error:
            raise InputError(f"option of checkpoints: {error}") from error
        if options.driver == "mpio" and options.asynchronous:
            raise InputError(
                "driver 'mpio' cannot write asynchronously, for MPI is left to the main thread: "
                "choose 'direct', or asynchronous=False"
            )
        return options

    def choose_driver(self) -> tuple[str, str]:
        """The driver to use, and the reason."""
        if self.driver != "auto":
            return self.driver, "as asked"
        return "direct", "as fast as 'mpio' or faster wherever both were measured, and writes behind the steps, too"
