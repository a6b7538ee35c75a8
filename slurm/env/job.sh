# shellcheck shell=bash
# What all batch scripts have in common: sets up the environment of the ranks, and defines how they are started and what
# happens then. Sourced by a script that runs under sbatch. Sets `python`, `code` and `reason`.

set -uo pipefail
# This job as scontrol knows it: a task of an array may have the number of the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
# The ranks get all that is set here, also where sbatch was told to take little from the user's shell (--export).
export SLURM_EXPORT_ENV=ALL
folder=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=slurm/env/unpack.sh
source "$folder/unpack.sh"
python=$HPCFRAME_PYTHON
# shellcheck source=slurm/env/mpi.sh
source "$folder/mpi.sh"
# shellcheck source=slurm/env/efa.sh
source "$folder/efa.sh"
# shellcheck source=slurm/env/threads.sh
source "$folder/threads.sh"
# shellcheck source=slurm/env/requeue.sh
source "$folder/requeue.sh"

# Rank 0 leaves the exit code of the run and a word on why here: see hpcframe/outcome.py.
export HPCFRAME_OUTCOME=$PWD/.hpcframe-outcome-$SLURM_JOB_ID

# start_ranks ARGUMENTS...: run Python on all ranks. Sets `code` and `reason`.
start_ranks() {
    rm -f "$HPCFRAME_OUTCOME"
    # --kill-on-bad-exit: else a rank that was killed leaves the others waiting for its messages.
    # block:block: ranks that are neighbours in the grid are neighbours on a node.
    srun --mpi="$mpi_protocol" --kill-on-bad-exit=1 --distribution=block:block --cpu-bind="$cpu_bind" \
        --ntasks="$ranks" --ntasks-per-node="$ranks_per_node" "$python" "$@"
    code=$? reason=unknown
    if [ -s "$HPCFRAME_OUTCOME" ]; then read -r code reason <"$HPCFRAME_OUTCOME"; fi
    rm -f "$HPCFRAME_OUTCOME"
}
