"""When Slurm will end this job."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
import warnings
from collections.abc import Mapping
from datetime import datetime

ANSWER_WITHIN = 10.0  # s: a busy controller may take seconds


def seconds_to_end(environment: Mapping[str, str]) -> float:
    """The time left to this job (s); infinite outside Slurm, and where Slurm sets or tells no end. Not collective.

    Slurm gives the end to a job as SLURM_JOB_END_TIME. Where it does not, as older ones or `--export=NONE`, squeue is
    asked; so it is where that end is past already, as it was put off since, or is another job's.
    """
    if "SLURM_JOB_ID" not in environment:
        return math.inf
    told, now = environment.get("SLURM_JOB_END_TIME", ""), time.time()
    end = float(told) if re.fullmatch("[0-9]+", told) else 0.0
    return (end if end > now else _ask(environment)) - now


def _ask(environment: Mapping[str, str]) -> float:
    """The end in seconds since 1970, from squeue."""
    settings = {**os.environ, **environment, "SLURM_TIME_FORMAT": "standard"}  # a user may have chosen another
    command = ["squeue", "--noheader", "--jobs", _job(environment), "--format", "%e"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=ANSWER_WITHIN, env=settings
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _unknown(str(error))
    if asked.returncode != 0:
        return _unknown(asked.stderr.strip() or f"squeue ended with code {asked.returncode}")
    return parse(asked.stdout)


def _job(environment: Mapping[str, str]) -> str:
    """One task of an array may have the number of the whole array, so it is named by both of its numbers."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def parse(answer: str) -> float:
    """The end (s since 1970) in an answer of squeue: local time, or NONE, UNLIMITED, N/A, Unknown, which is never.

    The parts of a heterogeneous job have a line each; the first to end counts. Not collective.
    """
    times = re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", answer)
    return min((datetime.fromisoformat(each).timestamp() for each in times), default=math.inf)


def _unknown(why: str) -> float:
    text = (
        f"Slurm does not say when this job ends ({why}): the run will not stop by itself before it; give a time limit"
    )
    warnings.warn(text, RuntimeWarning, stacklevel=2)
    return math.inf
