"""The physics that hpcframe ships: one model a file, its sample sim.toml beside it."""
