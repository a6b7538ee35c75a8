"""Running another program and quoting what it says."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Mapping


def ask(command: list[str], environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing on its standard input and keep what it prints. Not collective."""
    nothing = subprocess.DEVNULL
    return subprocess.run(command, env=environment, stdin=nothing, capture_output=True, text=True, errors="replace")


def essence(output: str) -> str:
    """What tells most of what a program printed before it failed: its last error, or how it began. Not collective."""
    errors = re.findall(r"(?m)^[\w.]*(?:Error|Exception)\b.*$", output)
    words = re.sub(r"-{9,}|\0", " ", output)  # Open MPI draws lines of dashes around its messages
    return errors[-1] if errors else textwrap.shorten(words, 300, placeholder=" ...") or "it says nothing"
