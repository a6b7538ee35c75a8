"""A program with one step, as short as one can be: for what it takes to start."""

import hpcframe as hf


@hf.stencil
def star7(v, u, k):
    v[0, 0, 0] = u[0, 0, 0] + k * (
        u[1, 0, 0] + u[-1, 0, 0] + u[0, 1, 0] + u[0, -1, 0] + u[0, 0, 1] + u[0, 0, -1] - 6.0 * u[0, 0, 0]
    )


grid = hf.Grid((64, 64, 64))
u, v = grid.fields("u", "v")
star7(v, u, k=0.1)
grid.comm.Barrier()
if grid.rank == 0:
    print("first step", flush=True)
