"""What became of a run, for the batch script that started it.

The exit code of `srun --kill-on-bad-exit` may be that of a rank which it killed because another one ended first. So
rank 0 leaves the code of the run in a file that the script names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hpcframe.files import write_text

VARIABLE = "HPCFRAME_OUTCOME"


def leave_outcome(code: int, reason: str, environment: Mapping[str, str] = os.environ) -> None:
    """Write "<code> <reason>" where a script wants to know. For rank 0. Not collective.

    Args:
        code: of the run.
        reason: one word: done, failed, or what stopped it, such as SIGTERM.

    Raises:
        HpcframeError: the file cannot be written.
    """
    if environment.get(VARIABLE):
        write_text(Path(environment[VARIABLE]), f"{code} {reason}\n")
