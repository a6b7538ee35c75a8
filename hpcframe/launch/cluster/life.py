"""A cluster from its beginning to its end, as `pcluster` does it."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from hpcframe.aws import client, explaining
from hpcframe.errors import HpcframeError
from hpcframe.launch.cluster import pcluster
from hpcframe.launch.cluster.document import Configuration, at, parse

NODE_SCRIPT = "node-configured"
LOOK_EVERY = 30.0  # s
STOPPABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_FAILED")  # in which pcluster stops a fleet
GONE = "does not exist"  # what pcluster says of a cluster that was deleted


def put_script(configuration: Configuration) -> None:
    """Put scripts/node-configured where the configuration says that it is. Not collective. Raises AwsError."""
    sections = [configuration.at("HeadNode"), *(queue.section for queue in configuration.queues)]
    places = {at(section, "CustomActions", "OnNodeConfigured", "Script") for section in sections}
    for url in sorted(place for place in places if place and re.fullmatch(rf"s3://.+/{NODE_SCRIPT}", place)):
        bucket, _, key = url.removeprefix("s3://").partition("/")
        with explaining(f"writing {url}"):
            client("s3", region=configuration.region).put_object(Bucket=bucket, Key=key, Body=script())


def script() -> bytes:
    """What nodes run when they start. Raises HpcframeError where it is not here."""
    import hpcframe

    beside = Path(hpcframe.__file__).parent
    for place in (beside / "scripts", beside.parent / "scripts"):  # as installed, and in a checkout
        if (place / NODE_SCRIPT).is_file():
            return (place / NODE_SCRIPT).read_bytes()
    raise HpcframeError(f"{NODE_SCRIPT} is not in {beside / 'scripts'}; install hpcframe anew")


def at_work(program: Path, name: str, region: str) -> Configuration:
    """The configuration of a cluster that is there. Not collective. Raises HpcframeError."""
    url = at(pcluster.describe(program, name, region), "clusterConfiguration", "url")
    try:
        with urllib.request.urlopen(str(url), timeout=60) as answer:
            return parse(answer.read().decode(), Path(f"{name} at work"))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise HpcframeError(f"the configuration of {name} cannot be read: {error}; run this again") from error


def head_node(program: Path, name: str, region: str) -> str:
    """Its id. Not collective. Raises PclusterError."""
    return str(at(pcluster.describe(program, name, region), "headNode", "instanceId"))


def is_retained(configuration: Configuration) -> bool:
    """Whether all FSx for Lustre that it made outlives it."""
    lustre = [store.get("FsxLustreSettings") or {} for store in configuration.storage if _kind(store) == "FsxLustre"]
    return all("FileSystemId" in each or each.get("DeletionPolicy") == "Retain" for each in lustre)


def going(configuration: Configuration) -> list[str]:
    """Names of other storage that would be deleted with it, which nothing exports."""
    found = []
    for store in configuration.storage:
        settings = store.get(f"{_kind(store)}Settings") or {}
        made = not any(key.endswith(("SystemId", "VolumeId")) for key in settings)
        if _kind(store) in ("Ebs", "Efs") and made and settings.get("DeletionPolicy") not in ("Retain", "Snapshot"):
            found.append(f"{store.get('Name')} ({_kind(store)}, {store.get('MountDir')})")
    return found


def _kind(store: Mapping[str, object]) -> str:
    return str(store.get("StorageType"))


def stop(
    program: Path, name: str, region: str, say: Callable[[str], None],
    pause: Callable[[], None] = lambda: time.sleep(LOOK_EVERY),
) -> None:  # fmt: skip
    """Let no job start any more, and wait until no node is left that could write. A cluster that was never whole has
    no fleet to stop. Not collective. Raises PclusterError."""
    if pcluster.describe(program, name, region).get("clusterStatus") in STOPPABLE:
        say("the fleet is being stopped")
        pcluster.stop(program, name, region)
        while pcluster.describe(program, name, region).get("computeFleetStatus") != "STOPPED":
            pause()
    while pcluster.nodes(program, name, region):
        pause()


def wait(
    program: Path, name: str, region: str, wanted: str, say: Callable[[str], None],
    pause: Callable[[], None] = lambda: time.sleep(LOOK_EVERY),
) -> None:  # fmt: skip
    """Until a cluster is in a state, and say each state that it passes. Not collective.

    Raises:
        HpcframeError: it ended in another one.
    """
    last, look = "", f"pcluster describe-cluster -n {name} --region {region}"
    while True:
        try:
            state = str(pcluster.describe(program, name, region).get("clusterStatus"))
        except pcluster.PclusterError as error:
            if wanted != "DELETE_COMPLETE" or GONE not in str(error):
                raise
            state = wanted
        if state != last:
            say(f"{time.strftime('%H:%M:%S')} {state}")
            last = state
        if state == wanted:
            return
        if not state.endswith("_IN_PROGRESS"):
            events = f"pcluster get-cluster-stack-events -n {name} --region {region}"
            raise HpcframeError(f"{name} is {state}, not {wanted}: {look}; {events}{_left_over(name, region, wanted)}")
        try:
            pause()
        except KeyboardInterrupt:
            raise HpcframeError(f"{name} goes on, only this command has ended: {look}") from None


def _left_over(name: str, region: str, wanted: str) -> str:
    """What a cluster that did not come up leaves, and is paid for."""
    if wanted != "CREATE_COMPLETE":
        return ""
    return f"; its FSx may stay, and cost: hpcframe cluster delete {name} --region {region} --file-systems delete"
