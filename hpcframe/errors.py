"""The errors that hpcframe raises, and the words they share."""

from collections.abc import Iterable


class HpcframeError(Exception):
    """Any error that hpcframe raises on purpose: its message says what was wrong, where, and what to do."""


class InputError(HpcframeError, ValueError):
    """What the user gave is wrong: a key of sim.toml, an argument, a file. `hpcframe.run` ends with exit code 2."""


class RemoteError(HpcframeError):
    """Another rank found something wrong; raised on the ranks that did not, so that none of them waits for it."""


def nearest(name: str, names: Iterable[str], or_all: bool = True) -> str:
    """The end of an error about a misspelt `name`: the right name that is most like it, or else all of them.

    >>> nearest("shpae", ["shape", "extent"])
    "; did you mean 'shape'?"
    >>> nearest("colour", ["shape", "extent"])
    '; expected one of: shape, extent'

    Empty where there is nothing to offer: no names, or none alike and `or_all` is False. Not collective.
    """
    import difflib  # only here, and errors end a program

    choices = list(names)
    by_lower_case = {choice.lower(): choice for choice in choices}
    alike = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    if alike:
        return f"; did you mean '{by_lower_case[alike[0]]}'?"
    return f"; expected one of: {', '.join(choices)}" if choices and or_all else ""


class NoCheckpointError(HpcframeError):
    """There are checkpoints, and none of them can be used. `hpcframe.run` ends with exit code 3."""


class FruitlessRestartsError(NoCheckpointError):
    """Restarts from the checkpoints that there are all ended before a new one: somebody has to find out why."""
