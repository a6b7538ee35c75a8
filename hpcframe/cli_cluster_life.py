"""`hpcframe cluster network | create | update | delete`: what costs, and so says first what it does, and asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hpcframe.errors import HpcframeError, InputError

if TYPE_CHECKING:
    from hpcframe.launch.checks.finding import Finding
    from hpcframe.launch.cluster.document import Configuration
    from hpcframe.staging.exported import Linked

Name = Annotated[str, typer.Argument(help="of the cluster", show_default=False)]
File = Annotated[Path, typer.Argument(help="a configuration of ParallelCluster", show_default=False)]
Region = Annotated[str, typer.Option(help="of AWS, such as us-east-2", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and stop")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="until it is done; Ctrl-C leaves AWS to it")]
Until = Annotated[str, typer.Option(metavar="2027-01-31", help="nobody needs it after that; 30 days if not given")]
Zone = Annotated[
    str, typer.Option(metavar="use2-az2", help="id of the zone of the nodes' subnet; asked of AWS if not given")
]
Suppress = Annotated[
    list[str] | None, typer.Option("--suppress", metavar="type:NAME", help="a validator of pcluster to leave out")
]


def network(
    name: Annotated[str, typer.Argument(help="of the stack", show_default=False)],
    region: Region,
    zone: Annotated[str, typer.Option(metavar="use2-az2", help="id of the zone of all nodes", show_default=False)],
    owner: Annotated[str, typer.Option(help="who is asked about it: a tag", show_default=False)],
    project: str = "hpcframe",
    team: str = "research",
    environment: str = "dev",
    until: Until = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
) -> None:
    """Make a network by CloudFormation: a private subnet in one zone, and a gateway to the outside."""
    from hpcframe.aws import client
    from hpcframe.launch.cluster import account, cost, network_stack
    from hpcframe.launch.cluster.answers import tags_of

    tags = tags_of(project, team, environment, owner, until)
    where = account.zone_name(client("ec2", region=region), zone)
    print(f"stack {name} in {where} ({zone}): a VPC, a private subnet, a NAT gateway, an endpoint of S3")
    print(f"{cost.GATEWAY:.3f} USD an hour for the NAT gateway until it is deleted, and by the byte that passes it")
    _print_tags(tags)
    if dry_run:
        print("dry run: nothing was made")
        return
    _confirm(yes)
    cloudformation = client("cloudformation", region=region)
    network_stack.create(cloudformation, name, where, tags)
    if wait:
        network_stack.wait(cloudformation, name)
        for key, value in account.outputs(cloudformation, name).items():
            print(f"{key} {value}")
    print(f"next: hpcframe cluster render --region {region} --network {name} ...")
    print(f"to delete it: aws cloudformation delete-stack --region {region} --stack-name {name}")


def create(
    name: Name,
    path: File,
    zone: Zone = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    suppress: Suppress = None,
) -> None:
    """Create a cluster, once it is valid: says what comes and what it costs an hour, and asks."""
    from hpcframe.launch.cluster import life, pcluster
    from hpcframe.launch.cluster.document import load

    configuration = load(path)
    program, region = pcluster.needed(), configuration.region
    _check(configuration, name, zone, suppress or [])
    _announce(configuration, name)
    if dry_run:
        print("dry run: nothing was made")
        return
    _confirm(yes)
    life.put_script(configuration)
    pcluster.create(program, name, path, region, suppress or [])
    print(f"begun; look: pcluster describe-cluster -n {name} --region {region}")
    if wait:
        life.wait(program, name, region, "CREATE_COMPLETE", print)
        print(f"login: aws ssm start-session --region {region} --target {life.head_node(program, name, region)}")


def update(
    name: Name,
    path: File,
    zone: Zone = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    suppress: Suppress = None,
) -> None:
    """Update a cluster: says what the change asks for, and asks."""
    from hpcframe.launch.cluster import life, pcluster
    from hpcframe.launch.cluster.changes import Effect, changes, describe
    from hpcframe.launch.cluster.document import load

    after = load(path)
    program = pcluster.needed()
    found = changes(life.at_work(program, name, after.region), after)
    print(describe(found))
    if not found:
        return
    if any(change.effect >= Effect.REPLACE for change in found):
        raise InputError("this cannot be done to a cluster at work, see above; nothing was changed")
    _check(after, name, zone, suppress or [], at_work=True)
    _announce(after, name)
    if dry_run:
        print("dry run: nothing was changed")
        return
    _confirm(yes)
    life.put_script(after)
    pcluster.update(program, name, path, after.region, suppress or [])
    if wait:
        life.wait(program, name, after.region, "UPDATE_COMPLETE", print)


def delete(
    name: Name,
    region: Region,
    file_systems: Annotated[
        Literal["keep", "delete"], typer.Option("--file-systems", help="FSx, once its files are in S3")
    ] = "keep",
    streams: Annotated[int, typer.Option(min=1, help="reads of S3 at once, to prove checkpoints there")] = 16,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
) -> None:
    """Delete a cluster, after its files were exported to S3 and its checkpoints there were read and found right."""
    from hpcframe.aws import client
    from hpcframe.launch.cluster import account, life, pcluster
    from hpcframe.staging import exported

    remove = file_systems == "delete"
    if remove and not wait:
        raise InputError("--file-systems delete waits until nothing uses them; leave --no-wait out")
    program = pcluster.needed()
    _check_idle(program, name, region)
    configuration = life.at_work(program, name, region)
    fsx = client("fsx", region=region)
    found, retained = exported.linked(fsx, account.file_systems(fsx, name)), life.is_retained(configuration)
    refused = [why for each in found if (why := exported.refusal(each, retained))]
    refused += [f"{lost} would be deleted with the cluster; {SAVE}" for lost in life.going(configuration)]
    if refused:
        raise InputError("; ".join(refused))
    _tell_end(name, region, found, retained, remove)
    if dry_run:
        print("dry run: nothing was done")
        return
    _confirm(yes)
    _check_idle(program, name, region)  # a job may have begun since
    life.stop(program, name, region, print)
    for each in found:
        _export(fsx, each, name, region, streams)
    pcluster.delete(program, name, region)
    if wait:
        life.wait(program, name, region, "DELETE_COMPLETE", print)
    if remove and retained:
        _remove(fsx, client("ec2", region=region), name, [each.id for each in found if each.links])


SAVE = "copy what you need, and set its DeletionPolicy to Retain (hpcframe cluster update)"
LOOK_EVERY = 15.0  # s


def _check_idle(program: Path, name: str, region: str) -> None:
    """Raises InputError where nodes run."""
    from hpcframe.launch.cluster import pcluster

    running = pcluster.nodes(program, name, region)
    if running:
        raise InputError(
            f"{len(running)} node(s) of {name} run; `hpcframe cancel JOB --checkpoint` there, or wait until idle nodes "
            f"are given back"
        )


def _remove(fsx: Any, ec2: Any, cluster: str, ids: Sequence[str]) -> None:
    """Delete file systems, and what of the cluster a network could not be deleted with."""
    import time

    from hpcframe.launch.cluster import account
    from hpcframe.staging import exported

    for each in ids:
        exported.delete_file_system(fsx, each)
        print(f"{each} is being deleted", flush=True)
    while any(account.is_there(fsx, each) for each in ids):
        time.sleep(LOOK_EVERY)
    groups = account.delete_security_groups(ec2, cluster)
    print(f"deleted, with {len(groups)} security group(s) that were theirs")


def show_findings(results: Iterable[tuple[str, Finding]]) -> bool:
    """Print what was found; whether nothing failed."""
    from rich.console import Console

    from hpcframe.launch.report import show

    console, good = Console(highlight=False, soft_wrap=True), True
    for title, finding in results:
        show(console, title, finding.status, finding.found, finding.remedy)
        good &= finding.status != "FAIL"
    return good


def _check(configuration: Configuration, name: str, zone: str, suppress: Sequence[str], at_work: bool = False) -> None:
    """Raises InputError where something failed, or AWS cannot be asked."""
    from hpcframe.launch.cluster.validation import ask, examine

    asked = ask(configuration, zone)
    if not show_findings(examine(configuration, name, asked, suppress, at_work)):
        raise InputError(f"{configuration.path} is not valid, see above; nothing was made")
    if asked.troubles:
        raise InputError(f"AWS does not answer: {asked.troubles}; nothing was made")


def _announce(configuration: Configuration, name: str) -> None:
    from hpcframe.launch.catalogue import catalogue
    from hpcframe.launch.cluster import cost

    print(f"\ncluster {name} in {configuration.region}:")
    print(cost.table(cost.items_of(configuration, catalogue())))
    _print_tags(configuration.tags)


def _print_tags(tags: Mapping[str, str]) -> None:
    print("tags " + ", ".join(f"{key}={value}" for key, value in tags.items()))


def _confirm(yes: bool) -> None:
    if not yes and not typer.confirm("go on?"):
        raise InputError("nothing was done")


def _tell_end(name: str, region: str, found: Sequence[Linked], retained: bool, remove: bool) -> None:
    from hpcframe.launch.cluster import sizing
    from hpcframe.simulation.planning import in_bytes
    from hpcframe.staging import exported

    for each in found:
        links = ", ".join(f"{link.folder} to {link.url}" for link in each.links) or "nothing: it is linked to no bucket"
        print(f"{each.id}, {each.gib} GiB: export {links}")
    there = exported.bytes_there(link for each in found for link in each.links)
    print(f"read the checkpoints there, {in_bytes(there)} now: from a machine in {region} that costs no traffic")
    print(f"then the cluster {name} is deleted, and with it /home: copy from there what you need")
    for each in found:
        end = f"aws fsx delete-file-system --region {region} --file-system-id {each.id}"
        if not retained:
            print(f"and with it {each.id}")
        elif remove and each.links:
            print(f"then {each.id} is deleted, and what of it is below no link is lost")
            print(f"  where this command is ended before that: {end}")
        else:
            least = each.gib * min(sizing.PRICES.values())
            print(f"{each.id} stays, for {least:.0f} USD a month or more, until: {end}")
            print("  until then a network that it is in cannot be deleted, nor while its security group is there")


def _export(fsx: Any, found: Linked, cluster: str, region: str, streams: int) -> None:
    """Raises HpcframeError where not all is proven to be in S3."""
    from hpcframe.cli_progress import bar_of_bytes
    from hpcframe.cli_stage_fsx import shown
    from hpcframe.staging import exported

    if not found.links:
        return
    try:
        with shown() as show:
            files = exported.export(fsx, found, show)
        print(f"{found.id}: {files} file(s) exported")
        for link in found.links:
            with bar_of_bytes(0) as advance:
                results = list(exported.proven(link, streams, advance))
            exported.check_proven(results)
            print(f"{link.url}: {len(results)} checkpoint(s) read, and found right")
    except HpcframeError as error:
        again = f"pcluster update-compute-fleet -n {cluster} --region {region} --status START_REQUESTED"
        raise HpcframeError(f"{error}. The cluster stays, with its fleet stopped; to start it: {again}") from error
