"""What all tests share: the same examples on every rank, one rank that talks, and a record of what ran where.

An unmarked test is serial. A test marked `@pytest.mark.mpi` runs on every rank, at any number of ranks:
`python -m hpcframe.launch.local -n 3 -- python -m pytest --with-mpi -m mpi`, as `scripts/test` does.
"""

import ctypes
import faulthandler
import os
import signal
from pathlib import Path
from typing import TextIO

import hypothesis
import pytest

# Ranks that drew different examples would wait for each other for ever.
hypothesis.settings.register_profile("same on every rank", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same on every rank")


@pytest.fixture(scope="session")
def comm():
    """COMM_WORLD: the ranks of an MPI run, a single one in a serial test."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what a test started, as Ctrl-C does
    stderr = os.fdopen(os.dup(2), "w", buffering=1)  # the real one, also while pytest captures a test's output
    rank = _rank(config)
    if rank > 0:
        silent = pytest.TerminalReporter(config, file=open(os.devnull, "w"))  # noqa: SIM115
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(silent, "terminalreporter")
    # The launcher interrupts ranks by this signal: before it ends a rank that hangs, show where it hangs.
    faulthandler.register(signal.SIGUSR1, file=stderr, chain=True)
    if not hasattr(config, "workerinput"):  # of pytest-xdist, which reports to the process that started it
        config.pluginmanager.register(RankReport(rank, stderr))


SLOWEST = (
    "slurm/",
    "test_restart",
    "test_reliability",
    "test_checkpoint_cli",
    "test_watchdog",
    "test_pack_env",
    "test_do",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests that wait for a minute or so")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that take minutes first: of two processes none is left alone with them in the end."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in SLOWEST))
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="waits for about a minute: run it with --slow"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not item.config.getoption("--with-mpi"):
        forget_singleton()


def forget_singleton() -> None:
    """Take back what MPI put into the environment of this process, when a serial test started it without a launcher.

    A launcher that a later test starts would take itself for a rank. Python does not know of these variables.
    """
    names, index = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"), 0
    known = []
    while names[index]:
        known.append(names[index].partition(b"=")[0])
        index += 1
    for name in known:
        if name not in os.environb:
            os.unsetenv(name)


def _rank(config: pytest.Config) -> int:
    if not config.getoption("--with-mpi"):
        return 0
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank


class RankReport:
    """Shows the failures of ranks other than 0 at once, as the job may soon hang, and records each test's outcome.

    The record is the file rank-<rank> in the folder HPCFRAME_TEST_RECORD, if that is set: lines of an outcome, a tab
    and a test. A test that was started and not ended is the one that hung, or that took its rank down.
    """

    def __init__(self, rank: int, stderr: TextIO) -> None:
        self.rank = rank
        self.stderr = stderr
        folder = os.environ.get("HPCFRAME_TEST_RECORD")
        self.file = open(Path(folder, f"rank-{rank}"), "w", buffering=1) if folder else None  # noqa: SIM115

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.record("started", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.show(report)
        if report.when == "call" or not report.passed:
            self.record(report.outcome, report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.record("ended", nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.show(report)
            self.record("failed", report.nodeid)

    def record(self, outcome: str, nodeid: str) -> None:
        if self.file:
            print(outcome, nodeid, sep="\t", file=self.file)

    def show(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if self.rank > 0:
            texts = [f"FAILED {report.nodeid}", report.longreprtext, report.capstdout, report.capstderr]
            lines = "\n".join(texts).rstrip().splitlines()
            print("\n".join(f"[rank {self.rank}] {line}" for line in lines), file=self.stderr)
