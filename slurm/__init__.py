"""Batch scripts for Slurm, which `hpcframe submit` hands over: plain files, no code."""
