"""hpcframe: a stencil code that works on a laptop, on 512 MPI ranks.

Importing the package loads neither MPI nor numba; the first use of a name does.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Intel's vector functions, where numba finds them, round otherwise than the scalar ones at the end of a loop: a point's
# value would depend on its place in the block. numba reads this when it is first imported.
os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")

if TYPE_CHECKING:
    from hpcframe.checkpoint.checkpoints import Checkpoints as Checkpoints
    from hpcframe.checkpoint.hdf5 import load as load
    from hpcframe.checkpoint.hdf5 import save as save
    from hpcframe.errors import HpcframeError as HpcframeError
    from hpcframe.errors import InputError as InputError
    from hpcframe.errors import NoCheckpointError as NoCheckpointError
    from hpcframe.errors import RemoteError as RemoteError
    from hpcframe.grid.boundary import Dirichlet as Dirichlet
    from hpcframe.grid.boundary import Neumann as Neumann
    from hpcframe.grid.field import Field as Field
    from hpcframe.simulation.model import Model as Model
    from hpcframe.simulation.model import Parameters as Parameters
    from hpcframe.staging.companion import Staging as Staging
    from hpcframe.stencils.kernel import kernel as kernel
    from hpcframe.stencils.point import index as index
    from hpcframe.stencils.reductions import Grid as Grid
    from hpcframe.stencils.reductions import reduction as reduction
    from hpcframe.stencils.stencil import stencil as stencil

_HOME = {
    "Grid": "hpcframe.stencils.reductions",
    "Field": "hpcframe.grid.field",
    "Dirichlet": "hpcframe.grid.boundary",
    "Neumann": "hpcframe.grid.boundary",
    "stencil": "hpcframe.stencils.stencil",
    "kernel": "hpcframe.stencils.kernel",
    "reduction": "hpcframe.stencils.reductions",
    "index": "hpcframe.stencils.point",
    "save": "hpcframe.checkpoint.hdf5",
    "load": "hpcframe.checkpoint.hdf5",
    "Checkpoints": "hpcframe.checkpoint.checkpoints",
    "Staging": "hpcframe.staging.companion",
    "Model": "hpcframe.simulation.model",
    "Parameters": "hpcframe.simulation.model",
    "HpcframeError": "hpcframe.errors",
    "InputError": "hpcframe.errors",
    "NoCheckpointError": "hpcframe.errors",
    "RemoteError": "hpcframe.errors",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hpcframe' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
