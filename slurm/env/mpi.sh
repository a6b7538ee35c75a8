# shellcheck shell=bash
# Which MPI the ranks run on, and what it needs. Sets `mpi_protocol` and exports settings of that MPI.

about=$("$python" -m hpcframe.launch.protocol) || {
    echo "no rank can be started by $python: activate the environment of hpcframe before sbatch, or see hpcframe doctor" >&2
    exit 1
}
read -r mpi_protocol mpi_name <<<"$about"  # such as "pmix Open MPI v5.0.11"
mpi_protocol=${HPCFRAME_SRUN_MPI:-$mpi_protocol}  # for a site where it has another name, such as pmix_v4

case $mpi_name in
Intel*)
    # srun starts the ranks of Intel MPI only through Slurm's own library of that protocol.
    if [ -z "${I_MPI_PMI_LIBRARY:-}" ]; then
        I_MPI_PMI_LIBRARY=$(find /opt/slurm/lib /usr/lib64 /usr/lib -name libpmi2.so -print -quit 2>/dev/null)
        export I_MPI_PMI_LIBRARY
    fi
    # srun binds the ranks; Intel MPI would do it again, by its own count of cores.
    export I_MPI_PIN=${I_MPI_PIN:-0}
    ;;
esac
echo "hpcframe: $mpi_name, srun --mpi=$mpi_protocol"
