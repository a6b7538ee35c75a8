"""Everything that asks a run to stop, told to the time loop as one reason. Its modules are read in this order:

reason -> signals, stop_file, slurm, time_limit, spot (one source each) -> interruptions.
"""
