"""Run by ParallelCluster's own Python, as `python schema.py FILE`: what its schema refuses, as JSON, without a network.

Nothing of hpcframe is imported: it is not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any


def main(path: str) -> list[str]:
    import marshmallow
    import yaml
    from pcluster.schemas.cluster_schema import ClusterSchema

    with open(path) as file:
        body = yaml.safe_load(file)
    try:
        ClusterSchema(cluster_name="check").load(body)
    except marshmallow.ValidationError as error:
        return list(flat(error.messages, []))
    return []


def flat(messages: Any, path: list[str]) -> Iterator[str]:
    """Messages are nested as the sections are that they are about."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from flat(inner, [*path, str(key)] if key != "_schema" else path)
    else:
        for message in messages if isinstance(messages, list) else [messages]:
            yield f"{'/'.join(path)}: {message}"


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
