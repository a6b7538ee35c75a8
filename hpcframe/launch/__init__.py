"""Start hpcframe's ranks: on this machine (`local`), by Slurm (`submission`, `jobs`); and look at machines (`checks`).

Knows neither grids nor simulations. No process of it starts MPI, but for the ranks of a trial launch.
"""
