"""The `pcluster` command of AWS ParallelCluster. It is in an environment of its own: what it depends on is pinned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcframe.errors import HpcframeError, InputError
from hpcframe.launch.cluster import schema

PROGRAM = "HPCFRAME_PCLUSTER"  # of the environment: the command, where it is elsewhere
INSTALL = "scripts/install-pcluster"
DRY = "Request would have succeeded, but DryRun flag is set."
INVALID = "Invalid cluster configuration"
SLOW = (3, 9), (3, 14)  # versions that slow tightly coupled jobs down: github.com/aws/aws-parallelcluster, issue 7095


class PclusterError(HpcframeError):
    """ParallelCluster refuses, or cannot."""


@dataclass(frozen=True)
class Message:
    """What a validator of ParallelCluster says.

    Attributes:
        level: ERROR, WARNING or INFO.
        kind: its name.
    """

    level: str
    kind: str
    text: str


def folder() -> Path:
    """Where `scripts/install-pcluster` makes the environment."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "hpcframe" / "pcluster"


def find() -> Path | None:
    """The command; None where there is none."""
    candidates = [os.environ.get(PROGRAM), folder() / "bin" / "pcluster", shutil.which("pcluster")]
    return next((Path(each) for each in candidates if each and Path(each).exists()), None)


def needed() -> Path:
    """The command. Raises InputError where there is none."""
    program = find()
    if program is None:
        raise InputError(f"pcluster is not here; run {INSTALL}, or name it in {PROGRAM}")
    return program


def version(program: Path) -> tuple[int, ...]:
    """Not collective. Raises PclusterError."""
    return tuple(int(part) for part in str(_ask(program, ["version"])["version"]).split(".")[:3])


def is_slow(number: Sequence[int]) -> bool:
    """Whether it is a version that slows tightly coupled jobs down.

    >>> is_slow((3, 14, 0)), is_slow((3, 16, 1))
    (True, False)
    """
    return SLOW[0] <= tuple(number[:2]) <= SLOW[1]


def schema_errors(program: Path, path: Path) -> list[str]:
    """What the schema refuses. Needs neither a network nor credentials. Raises PclusterError. Not collective."""
    python = program.resolve().parent / "python"
    if not python.exists():
        raise PclusterError(f"{python} is not there, so {program} is no pcluster in an environment; run {INSTALL}")
    # A region has to be set, and none is asked.
    settings = {**os.environ, "AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION", "us-east-1")}
    done = subprocess.run(
        [python, "-I", schema.__file__, str(path)],
        capture_output=True,
        text=True,
        env=settings,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise PclusterError(f"the schema of {program} cannot be read: {_last(done.stderr)}; run {INSTALL} again")
    errors: list[str] = json.loads(done.stdout)
    return errors


def validate(
    program: Path, name: str, path: Path, region: str, suppressed: Sequence[str] = (), at_work: bool = False
) -> list[Message]:
    """What its validators say. AWS is asked, and nothing is made. Not collective.

    Args:
        suppressed: validators, as in type:KeyPairValidator.
        at_work: of an update of the cluster of that name; else of a new one.

    Raises:
        PclusterError: it could not validate, as without credentials.
    """
    command = "update-cluster" if at_work else "create-cluster"
    arguments = [command, "-n", name, "-c", str(path), "--region", region, "--dryrun", "true"]
    answer = _answer(program, [*arguments, *_suppressing(suppressed)])
    told = str(answer.get("message", ""))
    found = answer.get("configurationValidationErrors") or answer.get("validationMessages") or []
    messages = [Message(each["level"], each["type"], each["message"]) for each in found]
    for each in answer.get("updateValidationErrors") or []:
        messages.append(Message("ERROR", "update", f"{each.get('parameter')}: {each.get('message')}"))
    if not messages and told.startswith(INVALID):
        return [Message("ERROR", "validators", told.removeprefix(INVALID).strip(": "))]
    if not messages and told != DRY:
        raise PclusterError(f"pcluster {command}: {told or 'no answer'}")
    return messages


def _suppressing(validators: Sequence[str]) -> list[str]:
    return ["--suppress-validators", *validators] if validators else []


def create(program: Path, name: str, path: Path, region: str, suppressed: Sequence[str] = ()) -> None:
    """Begin to create a cluster. Not collective. Raises PclusterError."""
    _ask(program, ["create-cluster", "-n", name, "-c", str(path), "--region", region, *_suppressing(suppressed)])


def update(program: Path, name: str, path: Path, region: str, suppressed: Sequence[str] = ()) -> None:
    """Begin to update a cluster. Not collective. Raises PclusterError."""
    _ask(program, ["update-cluster", "-n", name, "-c", str(path), "--region", region, *_suppressing(suppressed)])


def stop(program: Path, name: str, region: str) -> None:
    """Let no job start any more. Not collective. Raises PclusterError."""
    _ask(program, ["update-compute-fleet", "-n", name, "--region", region, "--status", "STOP_REQUESTED"])


def delete(program: Path, name: str, region: str) -> None:
    """Begin to delete a cluster. Not collective. Raises PclusterError."""
    _ask(program, ["delete-cluster", "-n", name, "--region", region])


def describe(program: Path, name: str, region: str) -> Mapping[str, Any]:
    """What is known of a cluster. Not collective. Raises PclusterError."""
    return _ask(program, ["describe-cluster", "-n", name, "--region", region])


def nodes(program: Path, name: str, region: str) -> list[str]:
    """Ids of the instances of all queues. Not collective. Raises PclusterError."""
    told = _ask(program, ["describe-cluster-instances", "-n", name, "--region", region, "--node-type", "ComputeNode"])
    return [str(each["instanceId"]) for each in told.get("instances", [])]


def _ask(program: Path, arguments: Sequence[str]) -> Mapping[str, Any]:
    """What it answers; an answer that is an error is raised."""
    answer = _answer(program, arguments)
    if "message" in answer:
        raise PclusterError(_refusal(answer))
    return answer


def _answer(program: Path, arguments: Sequence[str]) -> Mapping[str, Any]:
    # What makes the template of the cluster runs under Node.js, which is beside the command.
    settings = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, env=settings, check=False)
    except OSError as error:
        raise PclusterError(f"{program} cannot be started: {error}; run {INSTALL}") from error
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        told = _last(done.stderr) or _last(done.stdout) or f"exit code {done.returncode}"
        raise PclusterError(f"pcluster {arguments[0]}: {told}") from None
    if not isinstance(answer, dict):
        raise PclusterError(f"pcluster {arguments[0]} answers {done.stdout[:200]}")
    return answer


def _refusal(answer: Mapping[str, Any]) -> str:
    """What is wrong, in its words."""
    errors = [
        str(each.get("message"))
        for key in ("configurationValidationErrors", "updateValidationErrors")
        for each in answer.get(key) or []
        if each.get("level", "ERROR") == "ERROR"
    ]
    return "; ".join([f"pcluster: {answer.get('message', 'no reason given')}", *errors])


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
