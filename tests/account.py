"""An account of AWS that runs here: moto's server, with a network, a bucket and images of ParallelCluster."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import boto3
from s3 import S3

REGION = "us-east-2"
BUCKET = "hpcframe-data"
EASTERN = "hpcframe-data-us-east-1"  # in that region, as the file systems that are linked to it have to be


class Account:
    """The account.

    Attributes:
        environment: for programs that are to use it.
        subnets: private ones, by the id of their zone.
    """

    def __init__(self, version: str = "3.16.1") -> None:
        self._folder = tempfile.TemporaryDirectory()
        images = Path(self._folder.name, "images.json")
        images.write_text(json.dumps([_image(version, name) for name in ("x86_64", "arm64")]))
        self._server = S3()
        self._server.environment |= {"MOTO_AMIS_PATH": str(images), "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
        self.environment: dict[str, str] = {}
        self.subnets: dict[str, str] = {}

    def __enter__(self) -> Account:
        self._server.start()
        self.environment = {
            **self._server.environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.proxy.moto}",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
        ec2, s3 = self.client("ec2"), self.client("s3")
        for subnet in ec2.describe_subnets()["Subnets"]:
            ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": False})
            self.subnets[subnet["AvailabilityZoneId"]] = subnet["SubnetId"]
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.client("s3", "us-east-1").create_bucket(Bucket=EASTERN)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._folder.cleanup()

    def client(self, service: str, region: str = REGION):
        return boto3.client(
            service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name=region,
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip

    def use(self, monkeypatch) -> None:
        """By this process and those that it starts, and nothing else of AWS."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)


def _image(version: str, architecture: str) -> dict[str, object]:
    """An official image of ParallelCluster, as EC2 has it."""
    return {
        "ami_id": f"ami-{len(architecture):08x}",
        "architecture": architecture,
        "name": f"aws-parallelcluster-{version}-amzn2023-hvm-{architecture}-202610010000",
        "owner_id": "amazon",
        "public": True,
        "state": "available",
        "root_device_type": "ebs",
        "root_device_name": "/dev/xvda",
        "description": "an image",
        "image_type": "machine",
        "image_location": "amazon/image",
        "platform": None,
        "sriov": "simple",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
    }
