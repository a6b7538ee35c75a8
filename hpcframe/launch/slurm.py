"""Asking Slurm's commands."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping

from hpcframe.errors import HpcframeError, InputError
from hpcframe.launch.supervision import run_within

PATIENCE = 60.0  # seconds: a busy controller answers late


def require() -> None:
    """Raises InputError where there is no Slurm. Not collective."""
    if shutil.which("sbatch") is None:
        raise InputError(
            "no Slurm here: sbatch is not on PATH; log in to the cluster's login node, or `module load slurm`. "
            "On this machine: hpcframe run sim.toml -n 4"
        )


def ask(command: list[str]) -> str:
    """What a command of Slurm prints. Not collective.

    Raises:
        InputError: there is no Slurm.
        HpcframeError: the command fails, or does not answer; with what it says.
    """
    require()
    answer = run_within(PATIENCE, command)
    if answer.code is None:
        raise HpcframeError(
            f"{shlex.join(command)}: no answer within {PATIENCE:g} s; `scontrol ping` tells whether Slurm is up"
        )
    if answer.code:
        said = (answer.errors.strip() or answer.output.strip() or "it says nothing").replace("\n", "; ")
        raise HpcframeError(f"{shlex.join(command)} ended with exit code {answer.code}: {said}")
    return answer.output


def as_typed(command: list[str], environment: Mapping[str, str]) -> str:
    """A command line that can be copied into a shell.

    >>> as_typed(["sbatch", "a b"], {"X": "1"})
    "X=1 sbatch 'a b'"
    """
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in environment.items()), shlex.join(command)])
