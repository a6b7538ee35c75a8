"""What a stall looks like from all ranks: which of them are stuck, and the report that says so.

A rank that waits in MPI for another shows the same phase as the one it waits for. Their stacks tell them apart: the
innermost call of the one is a collective or a wait, that of the other a computation, a write, a sleep.
"""

from __future__ import annotations

import itertools
import linecache
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType

import msgspec

DEEPEST = 12  # frames of a stack that are shown, from the innermost
HOSTS = 4  # names of hosts that are shown for a group of ranks

# Calls of mpi4py in which a rank waits for others. Names that other libraries share (`wait`, `send`) are left out.
WAITS = re.compile(
    r"[^(]*\b(?:Wait(?:all|any|some)?|Barrier|Bcast|Gatherv?|Scatterv?|All(?:reduce|gather|to)\w*|Reduce\w*|Scan|Exscan|"
    r"[SR]?send|Send|Recv|Sendrecv\w*|M?[Pp]robe|Neighbor_\w+|Dup|Split\w*|Create\w*|Free|"
    r"barrier|bcast|gather|scatter|all(?:reduce|gather|toall)|exscan|recv|sendrecv|waitall)\("
)


class RankState(msgspec.Struct, frozen=True):
    """What one rank is doing.

    Attributes:
        beats: how many phases it has entered.
        idle: time since the last of them (s).
        wake_ups: of its watchdog; they go on as long as the process runs.
        stack: of its main thread, outermost frame first.
        threads: stacks of its other threads, each with a line of its name first.
        waits: its innermost call waits for other ranks.
        answers: its watchdog runs.
    """

    rank: int
    host: str
    phase: str
    beats: int = 0
    idle: float = 0.0
    wake_ups: int = 0
    stack: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    waits: bool = False
    answers: bool = True


def describe_stack(frame: FrameType | None, sources: bool = True) -> tuple[str, ...]:
    """A line a frame, the innermost last: file, line, function and, where files may be read, source. Not collective."""
    lines: list[str] = []
    while frame is not None and len(lines) < DEEPEST:
        code, number = frame.f_code, frame.f_lineno or 0
        file = "/".join(Path(code.co_filename).parts[-3:])
        source = linecache.getline(code.co_filename, number).strip() if sources else ""
        lines.append(f"{file}:{number} {code.co_name}" + f": {source}" * bool(source))
        frame = frame.f_back
    return tuple(reversed(lines))


def waits_for_others(frame: FrameType) -> bool:
    """Whether the innermost call of a thread is one of mpi4py in which it waits for other ranks. Not collective.

    mpi4py is compiled and has no frames, so the text of the call is looked at. Without its source the answer is no.
    """
    positions = itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, _, column, _ = next(positions, (None, None, None, None))
    if line is None:
        return False
    source = linecache.getline(frame.f_code.co_filename, line).encode()[column or 0 :]
    return WAITS.match(source.decode(errors="replace")) is not None


def find_stuck(states: Sequence[RankState]) -> list[RankState]:
    """The ranks that the others wait for; none where no rank stands out. Not collective.

    The first of these signs that tells some ranks from the rest decides: they do not answer, or do anything but wait
    for others; they have entered the fewest phases; they are in a phase, or at a place, that few ranks are in.
    """
    silent = [state for state in states if not state.answers]
    working = [state for state in states if state.answers and not state.waits]
    fewest = min(state.beats for state in states)
    behind = [state for state in states if state.beats == fewest]
    signs = (silent + working, silent, behind, _rarest(states, _phase), _rarest(states, _place))
    return next((found for found in signs if 0 < len(found) < len(states)), [])


def describe_stall(states: Sequence[RankState], patience: float) -> str:
    """The report: the ranks that are stuck first, then the others, ranks that do the same together. Not collective."""
    stuck = find_stuck(states)
    others = [state for state in states if state not in stuck]
    lines = [f"hpcframe: no rank has made progress for {patience:g} s, so the job ends."]
    if stuck:
        lines += ["Stuck:", *_groups(stuck, threads=True), *["The others:"] * bool(others), *_groups(others)]
    else:
        lines += ["No rank stands out:", *_groups(others, threads=True)]
    return "\n".join(lines) + "\n"


def describe_alone(state: RankState, patience: float) -> str:
    """The report of a rank that cannot learn about the others. Not collective."""
    head = f"hpcframe: no progress for {patience:g} s, and no word of the other ranks by files, so this rank ends:"
    return "\n".join([head, *_groups([state], threads=True)]) + "\n"


def _rarest(states: Sequence[RankState], key: Callable[[RankState], object]) -> list[RankState]:
    """The states whose key is the rarest; none where the others are no more numerous."""
    counts = Counter(map(key, states)).most_common()
    rarest, count = counts[-1]
    return [state for state in states if key(state) == rarest] if count < counts[0][1] else []


def _phase(state: RankState) -> object:
    return state.phase


def _place(state: RankState) -> object:
    return state.phase, state.stack[-1:]


def _groups(states: Iterable[RankState], threads: bool = False) -> list[str]:
    groups: dict[object, list[RankState]] = {}
    for state in sorted(states, key=lambda state: state.rank):
        groups.setdefault((state.answers, state.phase, state.stack), []).append(state)
    return [line for group in groups.values() for line in _group(group, threads)]


def _group(group: Sequence[RankState], threads: bool) -> list[str]:
    first = group[0]
    hosts = list(dict.fromkeys(state.host for state in group))
    where = ", ".join(hosts[:HOSTS]) + f" and {len(hosts) - HOSTS} more" * (len(hosts) > HOSTS)
    who = f"  {ranks_in_words([state.rank for state in group])} on {where}"
    if not first.answers:
        verb = "do" if len(group) > 1 else "does"
        return [f"{who} {verb} not answer: stopped, killed, or held in compiled code. Last known: {first.phase}"]
    if not first.stack:
        return [f"{who}: {first.phase}"]
    where = "waits for others in" if first.waits else "in"
    head = f"{who}: {first.phase}, entered {min(state.idle for state in group):.0f} s ago, {where}"
    return [head, *(f"    {line}" for line in (*first.stack, *first.threads * threads))]


def ranks_in_words(ranks: Sequence[int]) -> str:
    """Ranks in ascending order as text.

    >>> ranks_in_words([0, 1, 2, 5])
    'ranks 0-2, 5'
    """
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"rank{'s' * (len(ranks) > 1)} {text}"
