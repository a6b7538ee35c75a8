"""What a batch script has to know of the MPI that mpi4py loads: python -m hpcframe.launch.protocol

Prints the --mpi of srun, and the name: "pmix Open MPI v5.0.11".
"""

from __future__ import annotations

import sys

from hpcframe.launch.checks.mpi import loaded_version
from hpcframe.protocol import name_of, protocol_of


def main() -> int:
    """Exit code 1, with the reason, where mpi4py finds no MPI. Not collective."""
    try:
        library = loaded_version()
    except (ImportError, RuntimeError) as error:
        print(f"hpcframe: mpi4py does not load: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(protocol_of(library), name_of(library))
    return 0


if __name__ == "__main__":
    sys.exit(main())
