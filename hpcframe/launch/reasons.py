"""Why a job waits, in words, with what to do about it: Slurm's own words are short."""

from __future__ import annotations

REASONS = {
    "None": "",
    "Resources": "the nodes it needs are in use, or are starting: it is next",
    "Priority": "jobs of higher priority are before it: `squeue --start --jobs=JOB` tells when it may begin",
    "Dependency": "it waits for another job to end",
    "DependencyNeverSatisfied": "the job it waits for has failed, so it never starts: hpcframe cancel JOB",
    "BeginTime": "its time to begin has not come; a job that was requeued waits two minutes or so",
    "JobHeldUser": "you hold it: scontrol release JOB",
    "JobHeldAdmin": "an administrator holds it: ask one, since when it often failed to start",
    "launch failed requeued held": "it failed to start, and is held: `scontrol show job JOB` has the node; have it "
    "looked at, then scontrol release JOB",
    "job requeued in held state": "it was requeued and is held: scontrol release JOB",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved: `sinfo --list-reasons` tells why; it "
    "starts when they are back, or submit to another partition",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": "`sinfo "
    "--list-reasons` tells why; it starts when they are back, or submit with fewer --nodes",
    "NodeDown": "a node that it needs is down: sinfo --list-reasons",
    "PartitionDown": "its partition takes no jobs to run for now: ask an administrator, or submit to another",
    "PartitionInactive": "its partition is switched off: submit to another",
    "PartitionNodeLimit": "it asks for more nodes than its partition gives a job: cancel it, submit with fewer --nodes",
    "PartitionTimeLimit": "it asks for more time than its partition allows: scontrol update JobId=JOB TimeLimit=...",
    "BadConstraints": "no node is as it asks: cancel it, and submit without --constraint or to another partition. "
    "On ParallelCluster a preempted Spot job gets here with memory-based scheduling: switch that off",
    "AssocGrpCpuLimit": "your account's processors are all in use: it starts when other jobs of the account end",
    "AssocMaxJobsLimit": "you run as many jobs as your account may: it starts when one of them ends",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as you may: it starts when one of them ends",
    "QOSMaxCpuPerUserLimit": "you use as many processors as you may: it starts when another job of yours ends",
    "QOSMaxNodePerUserLimit": "you use as many nodes as you may: it starts when another job of yours ends",
    "QOSMaxNodePerJobLimit": "it asks for more nodes than a job may: cancel it, submit with fewer --nodes",
    "MaxCpuPerAccount": "your account's processors are all in use: it starts when other jobs of the account end",
    "Reservation": "it waits for its reservation to begin",
    "Licenses": "it waits for a licence",
    "JobArrayTaskLimit": "as many tasks of this array run as it allows at a time",
    "InvalidAccount": "its account does not exist: cancel it, submit with --sbatch=--account=NAME",
    "InvalidQOS": "its quality of service does not exist: cancel it, submit with --sbatch=--qos=NAME",
    "NonZeroExitCode": "its exit code is not 0: its log tells why; 75 is an interruption with a checkpoint",
    "TimeLimit": "it ran into its time limit",
    "NodeFail": "a node failed under it",
    "OutOfMemory": "it needed more memory than it was given: submit with more --nodes",
    "RaisedSignal": "a signal ended it: its log may tell more",
}


def in_words(reason: str, job: str) -> str:
    """What a reason of `squeue` means.

    >>> in_words("JobHeldUser", "7")
    'JobHeldUser: you hold it: scontrol release 7'
    >>> in_words("(ReqNodeNotAvail, UnavailableNodes:node-3)", "7").partition(":")[0]
    'ReqNodeNotAvail, UnavailableNodes'
    """
    reason = reason.strip().removeprefix("(").removesuffix(")")
    known = next((key for key in (reason, reason.partition(",")[0]) if key in REASONS), None)
    if known is None:
        return f"{reason}: see `scontrol show job {job}`"
    return f"{reason}: {REASONS[known].replace('JOB', job)}" if REASONS[known] else ""
