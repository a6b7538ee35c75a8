"""EC2's notices that it takes a Spot instance back, which the instance finds in its metadata.

Source: "Spot Instance interruption notices" and "EC2 instance rebalance recommendations", EC2 User Guide.
"""

from __future__ import annotations

import json
import math
import threading
import time
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hpcframe.errors import InputError
from hpcframe.simulation.interruption.reason import Reason

if TYPE_CHECKING:
    from hpcframe.simulation.interruption.metadata import Metadata

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
DISABLED = "AWS_EC2_METADATA_DISABLED"
DEFAULT = "169.254.169.254"
FIRMWARE = Path("/sys/devices/virtual/dmi/id")
PAUSE = 5.0  # s between two polls, as EC2 advises
ATTEMPTS = 3  # at the start, until there is taken to be no service


def metadata_host(environment: Mapping[str, str], firmware: Path = FIRMWARE) -> str | None:
    """The host of the metadata service to poll, None for none. Not collective.

    On other machines than EC2's its address may belong to anybody, or hang; there it has to be given.

    Raises:
        InputError: AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL that starts with http://.
    """
    if environment.get(DISABLED, "").lower() == "true":
        return None
    given = environment.get(ENDPOINT)
    if not given:
        return DEFAULT if is_ec2(firmware) else None
    try:
        url = urlsplit(given)
        right = url.scheme == "http" and url.hostname and url.port != 0
    except ValueError:  # a port that is not a number, half an IPv6 address
        right = False
    if not right:
        raise InputError(f"{ENDPOINT} is {given!r}: expected a URL such as http://{DEFAULT}")
    return url.netloc


def is_ec2(firmware: Path = FIRMWARE) -> bool:
    """Whether the firmware says that this machine is EC2's; its older ones say so in the version. Not collective."""
    files = [firmware / name for name in ("sys_vendor", "bios_version")]
    return any("amazon" in file.read_text().lower() for file in files if file.exists())


class SpotNotices:
    """What the metadata service says, as a thread of this node learns it: one a node, so that the service is spared."""

    def __init__(self, host: str, pause: float = PAUSE) -> None:
        """Start to poll, with a pause (s) between two polls. Not collective."""
        self._host = host
        self._pause = pause
        self._begin = time.time()
        self._end = math.inf  # by time.monotonic()
        self._reason = Reason.NONE
        self._closed = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="hpcframe-spot", daemon=True)
        self.thread.start()

    def look(self) -> tuple[Reason, float]:
        """As of `Source`. Not collective."""
        return self._reason, max(self._end - time.monotonic(), 0.0)

    def close(self) -> None:
        """Stop polling, without waiting for a request under way. Not collective."""
        self._closed.set()

    def _watch(self) -> None:
        from hpcframe.simulation.interruption.metadata import Metadata, MetadataError  # loaded where it is needed

        metadata, failures, ever = Metadata(self._host), 0, False
        while not self._closed.is_set() and self._reason is not Reason.SPOT:
            try:
                self._poll(metadata)
                ever = True
            except MetadataError as error:  # may be better at the next poll, if there is a service at all
                failures += 1
                if not ever and failures == ATTEMPTS:
                    warnings.warn(f"EC2 Spot notices will not be seen: {error}", RuntimeWarning, stacklevel=2)
                    return
            self._closed.wait(self._pause)

    def _poll(self, metadata: Metadata) -> None:
        """The end is set before the reason, so that who sees the reason sees its end."""
        action = _notice(metadata.read("spot/instance-action"), "action")
        if action is not None:
            self._end = time.monotonic() + _seconds_until(action.get("time"))
            self._reason = Reason.SPOT
            return
        advice = _notice(metadata.read("events/recommendations/rebalance"), "noticeTime")
        # One from before the start did not keep the run from being started here, so it must not end it for ever.
        if advice is not None and _seconds_until(advice["noticeTime"]) + time.time() > self._begin:
            self._reason = Reason.REBALANCE


def _notice(body: bytes | None, key: str) -> dict[str, object] | None:
    """The JSON object of a notice that has a key; None for anything else."""
    try:
        notice = json.loads(body or b"null")
    except ValueError:
        return None
    return notice if isinstance(notice, dict) and key in notice else None


def _seconds_until(moment: object) -> float:
    """From now to a time in ISO 8601; infinite where it is not told."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp() - time.time()
    except ValueError:
        return math.inf
