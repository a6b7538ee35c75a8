# shellcheck shell=bash
# Jobs that follow each other: each hands its successor to Slurm before it begins.

# submit_successor SCRIPT SEGMENTS ARGUMENTS...: the next job of a chain, to begin when this one has ended. A job that
# was requeued has one already.
submit_successor() {
    successor=$(squeue --noheader --me --name="$SLURM_JOB_NAME" --format="%i %E" |
        sed -n "s/ .*afterany:$SLURM_JOB_ID\((.*\)*$//p")
    if [ "$2" -le 1 ] || [ -n "$successor" ]; then return; fi
    like_this_one
    successor=$(sbatch --parsable --dependency="afterany:$SLURM_JOB_ID" "${options[@]}" "$1" $(($2 - 1)) "${@:3}") ||
        exit 1
    echo "the next job of this chain is $successor"
}

# like_this_one: sets `options`, by which sbatch makes a job like this one. What Slurm does not tell of a job
# (--signal, --mail-type and the like) is in HPCFRAME_SBATCH, an option a line, if `hpcframe submit` was given it.
like_this_one() {
    options=(--job-name="$SLURM_JOB_NAME" --partition="$SLURM_JOB_PARTITION" --nodes="$SLURM_JOB_NUM_NODES"
        --ntasks="$ranks" --ntasks-per-node="$ranks_per_node")
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then options+=(--cpus-per-task="$SLURM_CPUS_PER_TASK"); fi
    if [ "$threads_per_core" ]; then options+=(--threads-per-core="$threads_per_core"); fi
    local each value
    for each in time:%l account:%a qos:%q reservation:%v constraint:%f comment:%k; do
        value=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format="${each#*:}")
        case $value in '' | '(null)' | N/A) ;; *) options+=("--${each%:*}=$value") ;; esac
    done
    value=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p')
    each=${value##*/} # the number of the job is a part of the name, not of the folder
    options+=(--output="${value%/*}/${each//$SLURM_JOB_ID/%j}")
    if [ -n "${HPCFRAME_SBATCH:-}" ]; then
        mapfile -t -O "${#options[@]}" options <<<"$HPCFRAME_SBATCH"
    fi
}

# end_segment: let the successor go on, or take it back.
end_segment() {
    case $code,$reason in
    75,STOP_FILE | 75,SIGINT) echo "stopped by hand: submit it again to go on from the checkpoint" ;;
    75,*)
        if waits; then
            echo "interrupted ($reason), a checkpoint is kept: job $successor goes on"
        else
            echo "interrupted ($reason), a checkpoint is kept, and no job comes after: submit it again to go on"
        fi
        return
        ;;
    0,*) ;;
    [23],*) echo "not to be started again (see above)" ;;
    *) return ;; # a node or a rank was lost: the successor goes on from the last checkpoint
    esac
    if [ -n "$successor" ]; then scancel "$successor"; fi
}

# waits: whether there is a successor, which was not cancelled meanwhile.
waits() {
    [ -n "$successor" ] &&
        [ -n "$(squeue --noheader --jobs="$successor" --states=PENDING --format=%i 2>/dev/null)" ]
}
