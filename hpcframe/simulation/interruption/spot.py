"""EC2's notices that it takes a Spot instance back, which the instance finds in its metadata.

Source: "Spot Instance interruption notices" and "EC2 instance rebalance recommendations", EC2 User Guide.
"""

from __future__ import annotations

import json
import math
import threading
import time
import warnings
from datetime import datetime

from hpcframe.metadata import Metadata, MetadataError
from hpcframe.simulation.interruption.reason import Reason

PAUSE = 5.0  # s between two polls, as EC2 advises
ATTEMPTS = 3  # at the start, until there is taken to be no service


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
