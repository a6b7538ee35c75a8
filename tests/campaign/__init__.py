"""Trials of reliability: a run is hurt at a random place, started again, and has to end as if nothing had been.

    simulation  a small run whose every state is known
    job         the same as a program: it makes checkpoints, and continues from them
    jobs        starting the program on ranks, watching it, ending it
    killing     trials that kill or stop processes at a system call
    corruption  ways in which a checkpoint on the disk can be wrong
    hurting     trials within one process: wrong checkpoints, errors of the disk, bits that flip
    batches     running many of those
    judging     what came of a trial

`tests/test_reliability.py` runs a few trials, `benchmarks/reliability.py` as many as you like.
"""
