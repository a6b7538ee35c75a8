"""The line by which a job is handed to Slurm, and what is checked before. Pure, but for `submit`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hpcframe.errors import HpcframeError, InputError
from hpcframe.launch import durations
from hpcframe.launch.partitions import NodeType
from hpcframe.launch.placement import Placement
from hpcframe.launch.slurm import PATIENCE, as_typed
from hpcframe.launch.supervision import run_within

LOG, LOG_OF_SWEEP = "hpcframe-%j.out", "hpcframe-%A_%a.out"  # in the folder that sbatch is called in
# Of a sweep: what can be cut at commas, and be the name of a folder. A text is in quotes, as in TOML.
PLAIN_VALUE = re.compile(r"""(["']?)[^\s,/\\\[\]{}"']+\1""")


@dataclass(frozen=True)
class Sweep:
    """Values of one key of sim.toml, a run each."""

    key: str
    values: tuple[str, ...]

    def name(self, index: int) -> str:
        """Of the folder of a run.

        >>> Sweep("parameters.scheme", ("'upwind'", "'central'")).name(0)
        'parameters.scheme=upwind'
        """
        return f"{self.key}={unquoted(self.values[index])}"


def unquoted(value: str) -> str:
    """A value of a sweep without the quotes of a text."""
    return value.strip("\"'")


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        configuration: sim.toml.
        name: of the job, after "hpcframe-".
        overrides: "section.key=value", as typed.
        time: limit of the job (s); None: that of the partition.
        chain: how many jobs follow each other, past a time limit; 1: no chain.
        options: for sbatch, as they are.
    """

    configuration: Path
    name: str
    nodes: int
    partition: str
    overrides: tuple[str, ...] = ()
    time: int | None = None
    spot: bool = False
    constraint: str | None = None
    sweep: Sweep | None = None
    chain: int = 1
    options: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """The batch script that does it."""
        if self.sweep:
            return "sweep.sbatch"
        return "chain.sbatch" if self.chain > 1 else "spot.sbatch" if self.spot else "run.sbatch"

    @property
    def log(self) -> str:
        """Where the job's output goes, in sbatch's words."""
        return LOG_OF_SWEEP if self.sweep else LOG


def parse_sweep(text: str) -> Sweep:
    """
    >>> parse_sweep("parameters.diffusivity=1e-4,2e-4")
    Sweep(key='parameters.diffusivity', values=('1e-4', '2e-4'))

    Raises:
        InputError: it is no key with values, or two values are one, so that their runs would share a folder.
    """
    key, equals, listed = text.partition("=")
    values = tuple(value.strip() for value in listed.split(","))
    if not equals or "." not in key or not all(map(PLAIN_VALUE.fullmatch, values)):
        raise InputError(
            f"--sweep {text}: expected section.key=value,value,... with plain values, for example "
            f'--sweep parameters.diffusivity=1e-4,2e-4, or \'parameters.scheme="upwind","central"\''
        )
    if key.strip() == "simulation.directory":
        raise InputError(f"--sweep {text}: each value gets a folder of its own already; sweep another key")
    named = list(map(unquoted, values))
    again = next((value for value in named if named.count(value) > 1), None)
    if again is not None:
        raise InputError(f"--sweep {text}: {again} is there twice, and both runs would write into one folder")
    return Sweep(key.strip(), values)


def check(request: Request, types: Sequence[NodeType]) -> None:
    """Refuse what these nodes cannot do.

    Raises:
        InputError: too many nodes, too long a time, or what excludes each other.
    """
    count, limit = sum(kind.count for kind in types), types[0].time_limit
    if request.nodes > count:
        raise InputError(
            f"--nodes {request.nodes}: partition {request.partition} has {count} such node(s); give {count} or fewer"
        )
    if request.time is not None and limit is not None and request.time > limit:
        raise InputError(
            f"--time {durations.as_slurm(request.time)}: partition {request.partition} allows "
            f"{durations.as_slurm(limit)}; give that, and --chain N for N jobs that follow each other"
        )
    if request.sweep and request.chain > 1:
        raise InputError("--sweep and --chain exclude each other: submit a chain for each value, by --set")
    if request.spot and (request.sweep or request.chain > 1):
        raise InputError("--spot is for one run: leave out --sweep and --chain")
    kept = next((k.instance for k in types if request.spot and (k.instance or "").startswith("hpc")), None)
    if kept:
        raise InputError(f"--spot: AWS offers no {kept} as Spot; give a --partition of another instance type")


def check_memory(needed: int, kind: NodeType, nodes: int) -> None:
    """Refuse what has no room.

    Args:
        needed: bytes a node.

    Raises:
        InputError: it is more than a node has.
    """
    if needed > kind.memory:
        enough = -(-needed * nodes // kind.memory)
        raise InputError(
            f"a run needs {needed / 1e9:,.1f} GB of memory on each of {nodes} node(s), and a node of partition "
            f"{kind.partition} has {kind.memory / 1e9:,.1f} GB; give --nodes {enough} or more, or a smaller grid"
        )


def command(request: Request, placement: Placement, kind: NodeType, comment: str, scripts: Path) -> list[str]:
    """The whole call of sbatch.

    Args:
        comment: what `hpcframe status` is to find, see `jobs.comment`.
        scripts: the folder of batch scripts.
    """
    options = {
        "job-name": f"hpcframe-{request.name}",
        "partition": request.partition,
        "nodes": request.nodes,
        "ntasks-per-node": placement.ranks,
        "cpus-per-task": placement.cores_a_rank,
        "time": durations.as_slurm(request.time) if request.time else None,
        "constraint": request.constraint,
        "threads-per-core": 1 if kind.threads_a_core > 1 else None,  # two ranks on one core would share its units
        "array": f"0-{len(request.sweep.values) - 1}" if request.sweep else None,
        "output": request.log,
        "comment": comment,
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    # The whole node: other jobs would share the memory's bandwidth, and core lists are for whole nodes only.
    # Also where SBATCH_EXPORT says otherwise: the script reads variables of `environment`.
    fixed = ["--parsable", "--exclusive", "--export=ALL"]
    return ["sbatch", *fixed, *given, *request.options, str(scripts / request.script), *_arguments(request)]


def _arguments(request: Request) -> list[str]:
    first = [str(request.chain)] if request.chain > 1 else []
    swept = [f"{request.sweep.key}={','.join(request.sweep.values)}"] if request.sweep else []
    changes = [word for override in request.overrides for word in ("--set", override)]
    return [*first, str(request.configuration), *swept, *changes]


def environment(request: Request, placement: Placement) -> dict[str, str]:
    """What the batch script has to find in its environment."""
    found = {"HPCFRAME_THREADS": str(placement.threads)}
    if placement.is_explicit:
        found["HPCFRAME_CPU_BIND"] = placement.binding
    if request.chain > 1 and request.options:
        found["HPCFRAME_SBATCH"] = "\n".join(request.options)  # for the jobs that come after
    return found


def scripts() -> Path:
    """The folder of the batch scripts.

    Raises:
        HpcframeError: they are not there.
    """
    import hpcframe

    beside = Path(hpcframe.__file__).parent
    places = [beside / "slurm", beside.parent / "slurm"]  # as installed, and in a checkout
    with suppress(ModuleNotFoundError):  # a checkout that was not installed since it has them
        places.insert(0, Path(str(files("hpcframe.slurm"))))
    found = next((place for place in places if (place / "run.sbatch").is_file()), None)
    if found is None:
        raise HpcframeError(f"hpcframe's batch scripts are not in {places[0]}; install hpcframe anew")
    return found


def submit(line: list[str], changes: dict[str, str]) -> str:
    """Hand a job to Slurm; its id. Not collective.

    Args:
        changes: of the environment.

    Raises:
        HpcframeError: Slurm refuses it, with its reason.
    """
    # As Python knows it: an MPI that was asked something in this process may have put variables of its own into the
    # environment, by which the ranks of the job would take themselves for it.
    answer = run_within(PATIENCE, line, {**os.environ, **changes})
    found = re.search(r"(?m)^(\d+)(?:;.*)?$", answer.output)
    if answer.code != 0 or found is None:
        said = answer.errors.strip() or answer.output.strip() or f"no answer within {PATIENCE:g} s"
        raise HpcframeError(f"Slurm does not take the job: {said}\n  The line was: {as_typed(line, changes)}")
    return found[1]


def log_of(request: Request, job: str) -> Path:
    """The file that a job's output goes to: of an array, that of its first task."""
    return Path(os.getcwd(), request.log.replace("%j", job).replace("%A", job).replace("%a", "0"))
