#!/bin/sh
# The environment of what hpcframe is compared with, apart from its own: Devito wants other versions than it.
set -eu

usage() {
    cat <<'TEXT'
usage: benchmarks/peers.sh [--python PYTHON]

Makes benchmarks/.peers with Devito in it, for benchmarks/stencil.py. It needs gcc to run. Can be run again.

  --python PYTHON   the Python to make it with (python3)
TEXT
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

python=python3
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --python=*) python=${1#*=} ;;
    --python)
        [ $# -gt 1 ] || die "$1 needs a value: see --help"
        python=$2
        shift
        ;;
    *) die "unknown option $1: see --help" ;;
    esac
    shift
done

folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
peers=$folder/.peers
command -v "$python" >/dev/null || die "there is no $python: name a Python by --python"
command -v gcc >/dev/null || die "Devito compiles with gcc, and there is none: apt-get install gcc, or load its module"
[ -x "$peers/bin/python" ] || "$python" -m venv "$peers" || die "no environment: apt-get install python3-venv"
"$peers/bin/python" -m pip install --quiet --disable-pip-version-check 'devito==4.8.23'
"$peers/bin/python" -c 'import devito; print("Devito", devito.__version__, "is in benchmarks/.peers")'
