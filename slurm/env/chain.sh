# shellcheck shell=bash
# Jobs that follow each other: each hands its successor to Slurm before it begins.

# submit_successor SCRIPT SEGMENTS ARGUMENTS...: the next job of a chain, to begin when this one has ended. A job that
# was requeued has one already.
submit_successor() {
    successor=$(squeue --noheader --me --format=%i --name="$SLURM_JOB_NAME-after-$SLURM_JOB_ID")
    if [ "$2" -le 1 ] || [ -n "$successor" ]; then return; fi
    options=(--nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node="$ranks_per_node" --partition="$SLURM_JOB_PARTITION"
        --time="$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%l)" --account="${SLURM_JOB_ACCOUNT:-}"
        --comment="$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%k)")
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then options+=(--cpus-per-task="$SLURM_CPUS_PER_TASK"); fi
    successor=$(sbatch --parsable --dependency="afterany:$SLURM_JOB_ID" --job-name="$SLURM_JOB_NAME-after-$SLURM_JOB_ID" \
        "${options[@]}" "$1" $(($2 - 1)) "${@:3}") || exit 1
    echo "the next job of this chain is $successor"
}

# end_segment: let the successor go on, or take it back.
end_segment() {
    case $code,$reason in
    75,STOP_FILE | 75,SIGINT) echo "stopped by hand: submit it again to go on from the checkpoint" ;;
    75,*)
        echo "interrupted ($reason), a checkpoint is kept: ${successor:+job $successor goes on}"
        return
        ;;
    0,*) ;;
    [23],*) echo "not to be started again (see above)" ;;
    *) return ;; # a node or a rank was lost: the successor goes on from the last checkpoint
    esac
    if [ -n "$successor" ]; then scancel "$successor"; fi
}
