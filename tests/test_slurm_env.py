"""What the batch scripts set for ranks, threads, EFA and MPI, on nodes of other kinds: by files of a folder and a
command that say what Linux says there."""

import os
import subprocess
import sys
from pathlib import Path

import bare_environment
import pytest
from mpi4py import MPI

from hpcframe.protocol import name_of

ENV = Path(__file__).parents[1] / "slurm/env"
FOREIGN = ("SLURM_", "SRUN_", "SBATCH_", "HPCFRAME_", "OMPI_", "I_MPI_", "FI_")


@pytest.fixture
def sourced(tmp_path):
    """Variables as a script leaves them, and what it prints, in a job with the variables given."""
    (tmp_path / "commands").mkdir()

    def source(script: str, *names: str, python: str = sys.executable, **job: str) -> tuple[dict[str, str], str]:
        program = f'set -uo pipefail; . "{ENV}/{script}"; for name; do echo "=$name=${{!name-}}"; done'
        clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        path = f"{tmp_path / 'commands'}:{os.environ['PATH']}"
        settings = clean | {"PATH": path, "HPCFRAME_SYS": str(tmp_path / "sys"), "python": python} | job
        done = subprocess.run(["bash", "-c", program, "bash", *names], env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stdout.splitlines() if not line.startswith("=")]
        values = [line[1:].split("=", 1) for line in done.stdout.splitlines() if line.startswith("=")]
        return dict(values), "\n".join(said) + done.stderr

    return source


# -- threads.sh ---------------------------------------------------------------------------------------------------


@pytest.fixture
def threads(tmp_path, sourced):
    """Ranks in all, ranks a node, threads a rank, binding; and what is said."""

    def run(cpus: str, threads_a_core: int = 1, nodes: int = 1, **job: str) -> tuple[int, int, int, str, str]:
        said = f"CPU(s): 0\nThread(s) per core:  {threads_a_core}\nSocket(s): 2"
        bare_environment.command(tmp_path / "commands", "lscpu", f"cat <<'END'\n{said}\nEND")
        names = ("ranks", "ranks_per_node", "OMP_NUM_THREADS", "cpu_bind")
        known = {"SLURM_JOB_CPUS_PER_NODE": cpus, "SLURM_JOB_NUM_NODES": str(nodes)}
        found, text = sourced("threads.sh", *names, **known, **job)
        ranks, ranks_per_node, threads, binding = (found[name] for name in names)
        return int(ranks), int(ranks_per_node), int(threads), binding, text

    return run


def write_processors(root: Path, dies: list[list[int]], sibling: int = 0) -> None:
    """As Linux tells of them; `sibling` is how far the second hardware thread of a core is from the first."""
    for die in dies:
        shared = ",".join(str(cpu) for cpu in [*die, *([cpu + sibling for cpu in die] if sibling else [])])
        for cpu in die:
            own = f"{cpu},{cpu + sibling}" if sibling else str(cpu)
            for number in map(int, own.split(",")):
                folder = root / f"sys/devices/system/cpu/cpu{number}"
                (folder / "cache/index3").mkdir(parents=True)
                (folder / "topology").mkdir()
                (folder / "cache/index3/shared_cpu_list").write_text(f"{shared}\n")
                (folder / "topology/thread_siblings_list").write_text(f"{own}\n")


def test_one_rank_a_core_fills_the_nodes(threads):
    assert threads("96(x4)", nodes=4)[:4] == (384, 96, 1, "cores")


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"SLURM_NTASKS": "2"}, (2, 1)),  # as many as nodes, and asked for
        ({"SLURM_NTASKS": "10"}, (10, 5)),
        ({"SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "4"}, (6, 4)),
        ({"SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "3"}, (6, 3)),
        ({"SLURM_NTASKS_PER_NODE": "3"}, (6, 3)),
        ({"HPCFRAME_THREADS": "4"}, (4, 2)),
    ],
)
def test_ranks_are_as_many_as_asked_for(threads, job, expected):
    assert threads("8(x2)", nodes=2, **job)[:2] == expected


def test_the_smallest_node_has_room_for_its_ranks(threads):
    assert threads("96(x3),64", nodes=4)[:2] == (256, 64)


def test_fewer_ranks_than_cores_are_spread_over_dies_wherever_their_cores_are(tmp_path, threads):
    write_processors(tmp_path, [list(range(first, 48, 2)) for first in (0, 1)])  # even on one socket, odd on the other
    binding = threads("48", SLURM_NTASKS_PER_NODE="24")[3]
    cores = [int(core) for core in binding.removeprefix("map_cpu:").split(",")]
    assert len(set(cores)) == 24
    assert sum(core % 2 for core in cores) == 12


def test_a_rank_of_several_threads_stays_on_a_die(tmp_path, threads):
    write_processors(tmp_path, [[0, 2, 4, 6], [1, 3, 5, 7]])
    assert threads("8", SLURM_NTASKS_PER_NODE="2", HPCFRAME_THREADS="2")[3] == "mask_cpu:0x5,0xa"


def test_where_linux_tells_of_other_cores_than_slurm_there_is_no_list(tmp_path, threads):
    write_processors(tmp_path, [[0, 1]])
    assert threads("8", SLURM_NTASKS_PER_NODE="4")[3] == "cores"


@pytest.mark.parametrize("told", [{}, {"SLURM_THREADS_PER_CORE": "1", "SLURM_NTASKS": "1"}])
def test_with_two_hardware_threads_a_core_each_rank_has_a_core_of_its_own(tmp_path, threads, told):
    write_processors(tmp_path, [[0, 1], [2, 3]], sibling=4)
    cpus = "4" if told else "8"
    ranks, ranks_per_node, _, binding, said = threads(cpus, 2, **told)
    assert (ranks, ranks_per_node) == (4, 4)
    assert binding == ("cores" if told else "map_cpu:0,1,2,3")  # Slurm binds them, where it was told of one thread
    assert "share" not in said


def test_cpus_of_a_rank_that_are_hardware_threads_are_half_as_many_threads(threads):
    assert threads("96", 2, SLURM_CPUS_PER_TASK="96")[:4] == (1, 1, 48, "cores")
    assert threads("96", 2, SLURM_CPUS_PER_TASK="2")[:3] == (48, 48, 1)


def test_ranks_that_share_cores_are_noticed(threads):
    assert "give a multiple" in threads("96", 2, SLURM_CPUS_PER_TASK="3")[4]
    ranks, *_, said = threads("96", 2, SLURM_NTASKS_PER_NODE="96", SLURM_CPUS_PER_TASK="1", HPCFRAME_THREADS="1")
    assert ranks == 96
    assert "96 ranks of 1 thread(s) share 48 cores" in said
    assert "--ranks-per-node 48" in said


def test_what_the_user_binds_stays(threads):
    assert threads("8", SLURM_NTASKS_PER_NODE="4", HPCFRAME_CPU_BIND="none")[3] == "none"


# -- efa.sh -------------------------------------------------------------------------------------------------------

SETTINGS = ("FI_PROVIDER", "OMPI_MCA_pml", "OMPI_MCA_mtl", "I_MPI_FABRICS", "I_MPI_OFI_PROVIDER", "FI_EFA_FORK_SAFE")


@pytest.fixture
def efa(tmp_path, sourced):
    (tmp_path / "sys/bus/pci/drivers/efa/0000:00:1f.0").mkdir(parents=True)
    bare_environment.command(tmp_path / "commands", "uname", "echo ${KERNEL:-6.1.0}")

    def run(mpi: str, **job: str) -> list[str]:
        found, _ = sourced("efa.sh", *SETTINGS, mpi_name=mpi, **job)
        return [found[name] for name in SETTINGS]

    return run


def test_each_mpi_is_led_to_the_adapters(efa):
    assert efa("Open MPI v5.0.11") == ["efa", "cm", "ofi", "", "", ""]
    assert efa("Intel(R) MPI Library 2021.15") == ["efa", "", "", "shm:ofi", "efa", ""]
    assert efa("MPICH Version: 5.0.2") == ["efa", "", "", "", "", ""]


def test_what_the_user_has_set_for_the_adapters_stays(efa):
    assert efa("Open MPI v5.0.11", FI_PROVIDER="tcp", OMPI_MCA_pml="ob1")[:3] == ["tcp", "ob1", "ofi"]


@pytest.mark.parametrize(("kernel", "safe"), [("5.10.0-28-amd64", "1"), ("5.15.0", ""), ("6.8.0-aws", "")])
def test_old_kernels_let_a_process_with_efa_fork(efa, kernel, safe):
    assert efa("MPICH", KERNEL=kernel)[-1] == safe


def test_without_adapters_nothing_is_set(tmp_path, efa):
    (tmp_path / "sys/bus/pci/drivers/efa/0000:00:1f.0").rmdir()
    assert efa("Open MPI v5.0.11") == [""] * len(SETTINGS)


# -- mpi.sh -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mpi(tmp_path, sourced):
    def run(about: str, **job: str) -> tuple[dict[str, str], str]:
        python = bare_environment.command(tmp_path / "commands", "some-python", f"echo '{about}'")
        bare_environment.command(tmp_path / "commands", "find", "echo /opt/slurm/lib/libpmi2.so")
        return sourced("mpi.sh", "mpi_protocol", "I_MPI_PMI_LIBRARY", "I_MPI_PIN", python=str(python), **job)

    return run


def test_srun_speaks_what_the_loaded_mpi_understands(sourced):
    found, said = sourced("mpi.sh", "mpi_protocol")
    loaded = name_of(MPI.Get_library_version())
    assert found["mpi_protocol"] == ("pmix" if loaded.startswith("Open MPI") else "pmi2")
    assert f"hpcframe: {loaded}, srun --mpi={found['mpi_protocol']}" in said


def test_a_site_may_have_another_name_for_it(mpi):
    assert mpi("pmix Open MPI v5.0.11", HPCFRAME_SRUN_MPI="pmix_v4")[0]["mpi_protocol"] == "pmix_v4"


def test_intel_mpi_gets_slurms_library_and_does_not_bind_ranks_itself(mpi):
    found, said = mpi("pmi2 Intel(R) MPI Library 2021.15")
    expected = {"mpi_protocol": "pmi2", "I_MPI_PMI_LIBRARY": "/opt/slurm/lib/libpmi2.so", "I_MPI_PIN": "0"}
    assert found == expected
    assert "Intel(R) MPI Library 2021.15, srun --mpi=pmi2" in said
    assert mpi("pmi2 Intel(R) MPI Library", I_MPI_PMI_LIBRARY="/own.so")[0]["I_MPI_PMI_LIBRARY"] == "/own.so"
    assert mpi("pmix Open MPI v5.0.11")[0]["I_MPI_PIN"] == ""
