"""A short kill campaign; benchmarks/reliability.py is the long one."""

import subprocess
import sys
from pathlib import Path

import faults
import pytest

CAMPAIGN = Path(__file__).parent.parent / "benchmarks" / "reliability.py"


@pytest.mark.skipif(bool(faults.missing()), reason=faults.missing())
@pytest.mark.timeout(300)
def test_whatever_happens_a_run_continues_from_the_newest_good_checkpoint_to_the_same_bits():
    command = [sys.executable, str(CAMPAIGN), "--trials", "14", "--several", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 trials, 0 wrong restores" in done.stdout
