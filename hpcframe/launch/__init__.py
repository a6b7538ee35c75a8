"""Start hpcframe's ranks: on this machine (`local`). Knows neither grids nor simulations, and imports no MPI."""
