"""Simulations: what sim.toml says, the models, the time loop and its output."""
