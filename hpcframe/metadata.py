"""The instance metadata service of EC2 in its second version (IMDSv2), in which every request carries a token.

Source: "Use the Instance Metadata Service to access instance metadata", EC2 User Guide.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hpcframe.errors import InputError

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
DISABLED = "AWS_EC2_METADATA_DISABLED"
DEFAULT = "169.254.169.254"
FIRMWARE = Path("/sys/devices/virtual/dmi/id")
LONGEST_TOKEN = 21600  # s: the longest that the service grants
WITHIN = 2.0  # s for each step of a request; the service is on the machine and takes a millisecond


def metadata_host(environment: Mapping[str, str], firmware: Path = FIRMWARE) -> str | None:
    """The host of the metadata service to ask, None for none. Not collective.

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


class MetadataError(Exception):
    """The metadata service cannot be used at present."""


class Metadata:
    """A client of the metadata service at `host`, an address with a port if that is not 80. Never by a proxy."""

    def __init__(self, host: str) -> None:
        """Connects to nothing yet. Not collective."""
        self.host = host
        self._token = ""
        self._renewal = 0.0

    def read(self, path: str) -> bytes | None:
        """What is at /latest/meta-data/`path`, None if there is nothing. Not collective.

        Raises:
            MetadataError: the service is not there, refuses, hangs or fails.
        """
        if time.monotonic() >= self._renewal:
            self._renew()
        status, body = self._get(path)
        if status == 401:  # the service no longer knows the token
            self._renew()
            status, body = self._get(path)
        if status not in (200, 404):
            raise MetadataError(f"http://{self.host}/latest/meta-data/{path} answers {status}")
        return body if status == 200 else None

    def _get(self, path: str) -> tuple[int, bytes]:
        return self._request("GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._token})

    def _renew(self) -> None:
        """Get a token, to be renewed at half its time."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(LONGEST_TOKEN)}
        status, token = self._request("PUT", "/latest/api/token", headers)
        if status != 200:
            raise MetadataError(f"http://{self.host}/latest/api/token answers {status}")
        self._token = token.decode("latin-1")
        self._renewal = time.monotonic() + LONGEST_TOKEN / 2

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        import http.client  # loaded where it is needed: most machines are not EC2's

        connection = http.client.HTTPConnection(self.host, timeout=WITHIN)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: the token is no token
            raise MetadataError(f"http://{self.host}: {error or type(error).__name__}") from error
        finally:
            connection.close()
