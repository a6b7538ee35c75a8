# shellcheck shell=bash
# Ranks, threads, and the cores of each. Sets `ranks`, `ranks_per_node` and `cpu_bind`.

threads=${HPCFRAME_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
# numba, and libraries under NumPy, would each start a thread for every core of the node, in every rank.
export NUMBA_NUM_THREADS=$threads OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads

# Since Slurm 22.05 srun does not take over the cores a task that sbatch was given. Set where they were not given, it
# would bind the step to fewer cores than the job has.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

# One rank a core where the number of ranks was not given. Slurm counts hardware threads, where there are two a core.
threads_a_core=$(LC_ALL=C lscpu | sed -n 's/^Thread(s) per core: *//p')
cores=${SLURM_JOB_CPUS_PER_NODE%%[(,]*} # of "96(x4)", or of the first kind of node in "96(x3),64"
cores=$((cores / ${threads_a_core:-1}))
ranks_per_node=${SLURM_NTASKS_PER_NODE:-$((cores / threads))}
if [ -n "${SLURM_NTASKS_PER_NODE:-}" ] || [ "${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES}" -eq "$SLURM_JOB_NUM_NODES" ]; then
    ranks=$((SLURM_JOB_NUM_NODES * ranks_per_node))
else # --ntasks alone: spread evenly, else Slurm fills the first nodes
    ranks=$SLURM_NTASKS ranks_per_node=$(((SLURM_NTASKS + SLURM_JOB_NUM_NODES - 1) / SLURM_JOB_NUM_NODES))
fi

# A rank keeps to its cores, and its memory stays near. Fewer ranks than cores would pack the first socket and leave the
# memory of the other idle (hpc7a, hpc8a: 24 dies of 8 cores), so the cores of each rank are listed then, spread over
# the dies, by the number of last-level caches.
cpu_bind=${HPCFRAME_CPU_BIND:-}
if [ -z "$cpu_bind" ] && [ $((ranks_per_node * threads)) -lt "$cores" ] && [ -z "${SLURM_CPUS_PER_TASK:-}" ]; then
    dies=$(cat /sys/devices/system/cpu/cpu*/cache/index3/shared_cpu_list 2>/dev/null | sort -u | wc -l)
    cpu_bind=$("$python" -m hpcframe.launch.placement "$cores" "$dies" "$ranks_per_node" "$threads")
fi
cpu_bind=${cpu_bind:-cores}
echo "hpcframe: $ranks ranks of $threads thread(s) on $SLURM_JOB_NUM_NODES node(s), srun --cpu-bind=$cpu_bind"
