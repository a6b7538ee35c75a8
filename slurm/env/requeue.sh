# shellcheck shell=bash
# What happens after the ranks have ended: an interrupted run is started again, a finished or a wrong one never is.

restarts_at_most=${HPCFRAME_RESTARTS:-50}  # of one job; a run without progress ends itself after three, with code 3

# requeue_if_interrupted: ends the script where the job is requeued; else returns, with a line on why not.
requeue_if_interrupted() {
    case $code in
    0) return ;;
    75)
        case $reason in
        STOP_FILE | SIGINT) echo "stopped by hand: submit it again to go on from the checkpoint" ;;
        *) requeue "interrupted ($reason), a checkpoint is kept" ;;
        esac
        ;;
    2) echo "the input is wrong (see above): not requeued" ;;
    3) echo "no checkpoint can be used (see above): not requeued" ;;
    *)
        if [ "$reason" = unknown ] && ! nodes_answer; then requeue "a node was lost"; fi
        echo "not requeued: once the reason (see above) is gone, submit it again to go on from the newest checkpoint"
        ;;
    esac
}

# requeue WHY: put this job into the queue again. Returns where that is not to be.
requeue() {
    local record
    record=$(scontrol --oneliner show job "$job")
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$restarts_at_most" ]; then
        echo "$1, but not requeued: that was done $restarts_at_most times; HPCFRAME_RESTARTS=N allows more"
    elif [[ $record == *" Requeue=0 "* ]]; then # by `hpcframe cancel --checkpoint`, or sbatch --no-requeue
        echo "$1, and not requeued, as the job is not to be: submit it again to go on"
    else
        echo "$1: requeued, start number $((${SLURM_RESTART_COUNT:-0} + 2))"
        scontrol requeue "$job"
        sleep 60 # Slurm ends this script meanwhile
    fi
}

# nodes_answer: whether all nodes of the job can start something. Slurm itself notices a lost node minutes later.
nodes_answer() {
    timeout 60 srun --overlap --mem=0 --cpus-per-task=1 --cpu-bind=none --mpi=none \
        --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 true
}
