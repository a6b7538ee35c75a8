"""A program with one step, as short as one can be: for what it takes to start."""

from hpcframe_stars import star7

import hpcframe as hf

grid = hf.Grid((64, 64, 64))
u, v = grid.fields("u", "v")
star7(v, u, k=0.1)
grid.comm.Barrier()
if grid.rank == 0:
    print("first step", flush=True)
