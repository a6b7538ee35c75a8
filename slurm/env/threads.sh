# shellcheck shell=bash
# Ranks, threads, and the cores of each. Sets `ranks`, `ranks_per_node`, `threads_per_core` and `cpu_bind`.

# What Slurm calls a CPU is a hardware thread, unless the job asked for one a core (--threads-per-core=1).
cpus_a_core=$(LC_ALL=C lscpu | sed -n 's/^Thread(s) per core: *//p')
threads_per_core=${SLURM_THREADS_PER_CORE:-}
if [ "$threads_per_core" = 1 ]; then cpus_a_core=1; fi
# Of "96(x4)", or of the smallest of the nodes in "96(x3),64": it must have room for as many ranks as the others.
cpus=$(tr ',' '\n' <<<"$SLURM_JOB_CPUS_PER_NODE" | sed 's/(.*//' | sort -n | head -n 1)
cores=$((cpus / ${cpus_a_core:=1}))

threads=${HPCFRAME_THREADS:-$(((${SLURM_CPUS_PER_TASK:-1} + cpus_a_core - 1) / cpus_a_core))}
# numba, and libraries under NumPy, would each start a thread for every core of the node, in every rank.
export NUMBA_NUM_THREADS=$threads OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads

# Since Slurm 22.05 srun does not take over the cores a task that sbatch was given. Set where they were not given, it
# would bind the step to fewer cores than the job has.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
if [ $((${SLURM_CPUS_PER_TASK:-0} % cpus_a_core)) -ne 0 ]; then
    echo "hpcframe: --cpus-per-task counts hardware threads, $cpus_a_core a core: give a multiple, or ranks share cores"
fi

tasks=${SLURM_NTASKS:-}
# With --threads-per-core Slurm sets it to the number of nodes, where it was not given.
if [ -n "$threads_per_core" ] && [ "$tasks" = "$SLURM_JOB_NUM_NODES" ]; then tasks=; fi
# One rank a core, where nothing was given.
most=$((cores / threads > 0 ? cores / threads : 1))
ranks_per_node=${SLURM_NTASKS_PER_NODE:-$most}
ranks=${tasks:-$((SLURM_JOB_NUM_NODES * ranks_per_node))}
if [ -z "${SLURM_NTASKS_PER_NODE:-}" ]; then # all nodes the same, the last ones what is left: Slurm fills the first
    ranks_per_node=$(((ranks + SLURM_JOB_NUM_NODES - 1) / SLURM_JOB_NUM_NODES))
fi
if [ $((ranks_per_node * threads)) -gt "$cores" ]; then
    echo "hpcframe: $ranks_per_node ranks of $threads thread(s) share $cores cores of a node, which is slow. Where Slurm" \
        "counts hardware threads: sbatch --ntasks-per-node=$most, hpcframe submit --ranks-per-node $most"
fi

# A rank keeps to its cores, and its memory stays near. Fewer ranks than cores would pack the first socket and leave the
# memory of the other idle (hpc7a, hpc8a: 24 dies of 8 cores), and with two hardware threads a core Slurm would put two
# ranks on one. So the cores of each rank are listed then, spread over the dies, by what Linux says of them.
cpu_bind=${HPCFRAME_CPU_BIND:-}
if [ -z "$cpu_bind" ] && [ -z "${SLURM_CPUS_PER_TASK:-}" ] &&
    { [ $((ranks_per_node * threads)) -lt "$cores" ] || [ "$cpus_a_core" -gt 1 ]; }; then
    unset SLURM_THREADS_PER_CORE # by which srun would give the step the first cores only
    cpu_bind=$("$python" -m hpcframe.launch.placement "$cores" "$ranks_per_node" "$threads" "${HPCFRAME_SYS:-/sys}")
fi
cpu_bind=${cpu_bind:-cores}
echo "hpcframe: $ranks ranks of $threads thread(s) on $SLURM_JOB_NUM_NODES node(s), srun --cpu-bind=$cpu_bind"
