"""Clients of AWS, and its errors in words that name the remedy. Credentials come from the usual chain of boto3:
environment, configuration files, the role of the container or of the instance; never from a file of hpcframe's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hpcframe.errors import HpcframeError, InputError

ATTEMPTS = 5  # of each request, by botocore, with jitter and growing pauses; throttling is waited out
CONNECT_WITHIN, READ_WITHIN = 10.0, 60.0  # s

CREDENTIALS = (
    "on EC2 attach a role to the instances, elsewhere log in (`aws sso login`, or `aws configure`) or set AWS_PROFILE"
)
PERMISSIONS = "give the role the permissions that docs/staging.md (data) or docs/reference/cluster.md (clusters) lists"
REMEDIES: Mapping[str, str] = {  # by the code of what AWS answers: what asking again does not mend
    "NoSuchBucket": "correct the bucket's name, or make it: aws s3 mb s3://NAME",
    "AccessDenied": PERMISSIONS,
    "AllAccessDisabled": PERMISSIONS,
    "UnauthorizedAccess": PERMISSIONS,
    "UnauthorizedOperation": PERMISSIONS,
    "AccessDeniedException": PERMISSIONS,
    "ExpiredToken": f"the credentials have expired; {CREDENTIALS}",
    "ExpiredTokenException": f"the credentials have expired; {CREDENTIALS}",
    "TokenRefreshRequired": f"the credentials have expired; {CREDENTIALS}",
    "InvalidAccessKeyId": f"AWS does not know these credentials; {CREDENTIALS}",
    "InvalidClientTokenId": f"AWS does not know these credentials; {CREDENTIALS}",
    "AuthFailure": f"AWS does not know these credentials, or the region is not enabled; {CREDENTIALS}",
    "InvalidToken": f"AWS does not know these credentials; {CREDENTIALS}",
    "UnrecognizedClientException": f"AWS does not know these credentials; {CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is wrong; {CREDENTIALS}",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: start chronyd",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION to that",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION to that",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_REGION to that",
    "KMS.NotFoundException": "correct [staging] kms_key: S3 knows no such key",
    "KMS.DisabledException": "enable the key of [staging] kms_key",
    "InvalidStorageClass": "correct [staging] storage_class",
    "InvalidObjectState": "it is archived: have it restored by aws s3api restore-object, and wait for that",
    "FileSystemNotFound": "correct --file-system, or set AWS_REGION to the region of the file system",
    "UnsupportedOperation": "link the file system to S3 as docs/fsx.md says: not every kind of it can be",
    "ServiceLimitExceeded": "wait for other tasks of the account to end, or ask AWS for a higher quota",
    "InvalidTag": "correct [staging] tags: S3 allows letters, digits, spaces and + - = . _ : / @",
}
DAMAGED = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


class AwsError(HpcframeError):
    """AWS cannot be reached, or cannot do it now: asking again may help.

    Attributes:
        code: of the answer; "" where there was none.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RefusedError(AwsError, InputError):
    """AWS refuses: somebody has to change something first."""


class DamagedError(AwsError):
    """What arrived at S3 does not have the checksum of what was written."""


def client(service: str, connections: int = 16, region: str = "") -> Any:
    """A client of an AWS service, for this process: never to be used in a child of it. Not collective.

    Args:
        region: "": that of the environment or of the configuration files.

    Raises:
        RefusedError: no region is known, or a profile is not there.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_WITHIN,
        read_timeout=READ_WITHIN,
        max_pool_connections=connections,
        # Checksums are given, not computed again; answers of tiles are compared with those in the manifest.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # AWS sets AWS_REGION, and its other clients read it; boto3 reads AWS_DEFAULT_REGION only.
    where = region or os.environ.get("AWS_REGION") or None
    with explaining(f"connecting to {service}"):
        return boto3.session.Session(region_name=where).client(service, config=config)


@contextmanager
def explaining(what: str) -> Iterator[None]:
    """Turn what boto3 raises in the block into an error that says what was done and what helps. Not collective.

    Raises:
        RefusedError, DamagedError, AwsError.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _answered(what, error.response) from error
    except (BotoCoreError, HTTPError) as error:
        raise _unanswered(what, error) from error


def _answered(what: str, response: Any) -> AwsError:
    told = response.get("Error", {})
    code, message = str(told.get("Code", "")), str(told.get("Message", "")) or "no reason given"
    # The answer to a HEAD has no body, and so no code but that of HTTP.
    code = {"403": "AccessDenied", "404": "NotFound"}.get(code, code)
    if code in DAMAGED:
        return DamagedError(f"{what}: the bytes that S3 got are not those that were written ({message})", code)
    if code in REMEDIES:
        return RefusedError(f"{what}: {code}: {message}; {REMEDIES[code]}", code)
    return AwsError(f"{what}: {code}: {message}", code)


def _unanswered(what: str, error: Exception) -> AwsError:
    from botocore import exceptions

    missing = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.UnauthorizedSSOTokenError,
    )
    if isinstance(error, missing):
        return RefusedError(f"{what}: {error}; {CREDENTIALS}")
    if isinstance(error, exceptions.NoRegionError):
        return RefusedError(f"{what}: no region is known; set AWS_REGION, for example to us-east-2")
    if isinstance(error, exceptions.ProfileNotFound | exceptions.ParamValidationError):
        return RefusedError(f"{what}: {error}")
    return AwsError(f"{what}: {error}")
