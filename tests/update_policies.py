"""Run by ParallelCluster's own Python: what its schema says of updates, by path, as JSON. Sections are left out, and
what hpcframe does not make: AWS Batch, login nodes, directories of users."""

import json
import os
import re

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-2")


def walk(schema, path):
    for name, field in schema.declared_fields.items():
        here = "/".join([*path, field.data_key or name]) + "[]" * bool(getattr(field, "many", False))
        if hasattr(field, "nested"):
            yield from walk(field.schema, [here])
        elif policy := field.metadata.get("update_policy"):
            yield here, policy.name.removesuffix("_UPDATE_POLICY") if "POOLS" in policy.name else policy.name


def main():
    from pcluster.schemas.cluster_schema import ClusterSchema

    found = dict(walk(ClusterSchema(cluster_name="check"), []))
    left = "Awsbatch|AwsBatch|LoginNodes|DirectoryService|DevSettings"
    print(json.dumps({path: name for path, name in found.items() if not re.search(left, path)}))


main()
