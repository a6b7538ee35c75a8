"""Run by ParallelCluster's own Python, as `python update_checks.py BEFORE AFTER`: whether a cluster whose nodes run may
be updated so, as JSON; what it says of each change on stderr."""

import json
import os
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-2")


class Cluster:
    """One whose nodes run, as far as the comparison asks."""

    name = stack_name = "demo"

    def has_running_capacity(self, *_, **__):
        return True

    def has_running_login_nodes(self, *_, **__):
        return False


def main(before, after):
    import yaml
    from pcluster.config.config_patch import ConfigPatch

    with open(before) as old, open(after) as new:
        patch = ConfigPatch(Cluster(), yaml.safe_load(old), yaml.safe_load(new))
    goes, rows = patch.check()
    print(*rows, sep="\n", file=sys.stderr)
    print(json.dumps(goes))


main(*sys.argv[1:])
