"""Where in S3: s3://bucket/prefix. Pure, and quick to import: every run reads whether its files are there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcframe.errors import InputError

URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


def is_url(text: str) -> bool:
    """Whether a text means something in S3 and no file."""
    return text.startswith("s3://")


@dataclass(frozen=True)
class Location:
    """A bucket, and what the names of all objects there begin with: nothing, or a text that ends in a slash."""

    bucket: str
    prefix: str

    @staticmethod
    def parse(url: str) -> Location:
        """Not collective. Raises InputError for what is no s3://bucket/prefix."""
        match = URL.fullmatch(url)
        if match is None or "//" in (match[2] or "") or ".." in match[1]:
            raise InputError(
                f"{url}: expected s3://bucket/prefix, the bucket of 3 to 63 small letters, digits, dots and hyphens"
            )
        prefix = (match[2] or "").strip("/")
        return Location(match[1], f"{prefix}/" if prefix else "")

    def key(self, name: str) -> str:
        return self.prefix + name

    def url(self, name: str = "") -> str:
        return f"s3://{self.bucket}/{self.prefix}{name}"
