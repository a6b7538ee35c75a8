"""Short campaigns of kills, of which benchmarks/reliability.py is the long one, and of errors that are survived."""

import random
import subprocess
import sys
from pathlib import Path

import faults
import pytest

CAMPAIGN = Path(__file__).parent.parent / "benchmarks" / "reliability.py"
ERRORS = Path(__file__).parent / "trials_errors.py"


WAYS = {
    "direct": [],
    "asynchronous": ["--asynchronous"],
    "mpio": ["--driver", "mpio"],
}


@pytest.mark.skipif(bool(faults.missing()), reason=faults.missing())
@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", ["direct", "mpio"])
def test_whatever_happens_a_run_continues_from_the_newest_good_checkpoint_to_the_same_bits(driver):
    count = 14 if driver == "direct" else 7
    command = [sys.executable, str(CAMPAIGN), "--trials", str(count), "--several", "0.1", "--driver", driver]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} trials, 0 wrong restores" in done.stdout


@pytest.mark.skipif(bool(faults.missing()), reason=faults.missing())
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["direct", "asynchronous", "mpio"])
def test_whatever_call_fails_all_ranks_say_why_and_the_program_goes_on(tmp_path, way):
    seed = str(random.randrange(10**6))
    faulty = ["env", *(f"{key}={value}" for key, value in faults.environment().items())]
    program = [sys.executable, str(ERRORS), str(tmp_path), "--trials", "20", "--seed", seed, *WAYS[way]]
    command = [sys.executable, "-m", "hpcframe.launch.local", "-n", "2", "--", *faulty, *program]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 trials, 0 with anything amiss" in done.stdout, f"seed {seed}: {done.stdout}"
