"""S3: can the role of this machine reach the bucket that HPCFRAME_BUCKET names?"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from hpcframe.launch.checks.finding import Finding

BUCKET = "HPCFRAME_BUCKET"
BY_HAND = f'aws sts get-caller-identity; aws s3api head-bucket --bucket "${BUCKET}"'
GRANT = (
    "give the role of the nodes s3:ListBucket and s3:GetObject, s3:PutObject on it (ParallelCluster: Iam: S3Access), "
    "and look at the name and the Region"
)


def bucket(environment: Mapping[str, str] = os.environ) -> Finding:
    """Not collective."""
    name = environment.get(BUCKET)
    if not name:
        return Finding("SKIP", f"{BUCKET} names no bucket")
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError:
        return Finding("SKIP", "there is no boto3", "pip install boto3")
    session = boto3.Session()
    if session.get_credentials() is None and "AWS_ENDPOINT_URL" not in environment:
        return Finding("SKIP", "there are no credentials of AWS", "give the nodes a role, or run: aws configure")
    exceptions = importlib.import_module("botocore.exceptions")
    try:
        session.client("s3").list_objects_v2(Bucket=name, MaxKeys=1)
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        return Finding("FAIL", f"{name}: {error}", GRANT)
    return Finding("PASS", f"{name} can be read")
