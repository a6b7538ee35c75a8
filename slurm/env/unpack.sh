# shellcheck shell=bash
# The Python of the ranks, on each node: hundreds of ranks that import from one shared file system wait for it.
# HPCFRAME_PACK names a file that scripts/pack-env has made; without it the ranks run the `python` on PATH, wherever
# that lies. Sets HPCFRAME_PYTHON, and removes what it left on the nodes when the batch script ends.

# each_node COMMAND...: run it once on every node of the job.
each_node() {
    srun --mpi=none --overlap --cpu-bind=none --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$@"
}

# node_storage: prints the folder to use on the nodes, as this one, the first, has it.
node_storage() {
    local folder needed kind
    case $HPCFRAME_PACK in
    *.tar) needed=$((3 * $(stat -L -c %s "$HPCFRAME_PACK"))) ;;
    *) needed=$((6 * $(stat -L -c %s "$HPCFRAME_PACK"))) ;; # the pack, and what it becomes: 3.4 times as large
    esac
    for folder in /scratch /dev/shm; do
        kind=$(stat -f -c %T "$folder" 2>/dev/null)
        case $folder:$kind in
        # ParallelCluster mounts a node's own NVMe there. Elsewhere it may be a file system that all nodes share.
        /scratch:ext2/ext3 | /scratch:xfs | /dev/shm:tmpfs) ;;
        *) continue ;;
        esac
        if [ -w "$folder" ] && [ "$(df -B1 --output=avail "$folder" | tail -n 1)" -gt "$needed" ]; then
            echo "$folder" && return
        fi
    done
    echo /tmp
}

# make_node_folder: one that nobody else can write to, as what is in it is run. Before that goes what this user's jobs
# left there: this one before it was requeued, and those that were cancelled, which Slurm lets start nothing any more.
make_node_folder() {
    local others
    others=$(squeue --noheader --me --format=%A) || return
    # shellcheck disable=SC2016 # bash on the nodes expands it
    each_node bash -c '
        for old in "${1%/*}"/hpcframe-job-*; do
            case $2 in
            *" ${old##*-} "*) [ "$old" = "$1" ] || continue ;; # a job that runs
            esac
            if [ -O "$old" ]; then rm -rf "$old"; fi
        done
        mkdir -m 700 "$1"
    ' bash "$node_folder" " ${others//$'\n'/ } "
}

# unpack: the pack to every node, by Slurm's own tree of nodes, and there into the folder.
unpack() {
    sbcast --force "$HPCFRAME_PACK" "$node_folder/pack" || give_up "$HPCFRAME_PACK cannot be sent to the nodes"
    # shellcheck disable=SC2016 # sh on the nodes expands it
    each_node sh -c 'tar -xf "$1/pack" --no-same-owner -C "$1" && rm "$1/pack"' sh "$node_folder" ||
        give_up "$HPCFRAME_PACK cannot be unpacked on the nodes"
}

# give_up WHY
give_up() {
    cat >&2 <<TEXT
hpcframe: $1, see above. What to do:
  - a node has no room in ${node_folder%/*}: HPCFRAME_NODE_STORAGE=/tmp names another folder of the nodes
  - a node has no zstd: scripts/pack-env --output hpcframe-env.tar.gz
  - the pack is damaged, or was made on another system: scripts/pack-env again, on a node of this partition
  - have the ranks import from the shared file system: unset HPCFRAME_PACK
TEXT
    exit 1
}

# remove_environment: at the end of the job.
remove_environment() {
    each_node rm -rf "$node_folder" 2>/dev/null || rm -rf "$node_folder"
}

# Modules that were compiled at import would be written to the shared file system, by all ranks at once.
export PYTHONDONTWRITEBYTECODE=1
# Every import would first look into the current folder, which is on the shared file system.
export PYTHONSAFEPATH=1

if [ -n "${HPCFRAME_PACK:-}" ]; then
    if [ ! -r "$HPCFRAME_PACK" ]; then
        echo "hpcframe: there is no file $HPCFRAME_PACK: scripts/pack-env makes one, or unset HPCFRAME_PACK" >&2
        exit 1
    fi
    node_folder=${HPCFRAME_NODE_STORAGE:-$(node_storage)}/hpcframe-job-$SLURM_JOB_ID
    trap remove_environment EXIT
    make_node_folder || give_up "$node_folder cannot be made on every node"
    unpack
    export PATH=$node_folder/bin:$PATH HPCFRAME_PYTHON=$node_folder/bin/python
    # The pack brings compiled kernels; others are compiled beside them. numba has a cache of its own, of what a model
    # of one's own marks with njit(cache=True): it would be beside the source.
    export HPCFRAME_CACHE_DIR=$node_folder/cache NUMBA_CACHE_DIR=$node_folder/numba
    # Packages in the home folder would be found first: the pack is no virtual environment, which would ignore them.
    export PYTHONNOUSERSITE=1
    # A Python of the system that was packed finds its library here, should the node lack it.
    if compgen -G "$node_folder/lib/libpython3.*" >/dev/null; then
        export LD_LIBRARY_PATH=$node_folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    fi
    # Proves that every node can run it, before hundreds of ranks find out.
    each_node "$HPCFRAME_PYTHON" -c "import hpcframe" ||
        give_up "the Python of $HPCFRAME_PACK does not run on the nodes"
else
    export HPCFRAME_PYTHON=${HPCFRAME_PYTHON:-python}
    # On the node too (hpcframe's own cache is, by default). Nobody can guess the name and put code of theirs there.
    NUMBA_CACHE_DIR=/tmp/numba-$SLURM_JOB_ID-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
    export NUMBA_CACHE_DIR
fi
