"""The S3 that tests use: does it compare, refuse and fail as S3 does?"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3 import BUCKET
from s3_proxy import Fault
from s3_rules import in_base64
from waiting import until

from hpcframe.checkpoint.crc32c import crc32c

pytest_plugins = ["s3_fixtures"]

SMALLEST = 5 * 2**20  # bytes of a part that is not the last
FIRST, LAST = bytes(SMALLEST), b"the end"


@pytest.fixture
def client(s3):
    """One that does not try again, with nothing but what the environment says."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
    return boto3.client("s3", config=config)


def put(client, key="a", body=b"some", **more):
    return client.put_object(Bucket=BUCKET, Key=key, Body=body, ChecksumCRC32C=in_base64(crc32c(body)), **more)


def get(client, key="a", **more):
    return client.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()


def head(client, key="a"):
    return client.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")


def begin(client, key="a", kind="FULL_OBJECT"):
    begun = client.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm="CRC32C", ChecksumType=kind)
    return {"Bucket": BUCKET, "Key": key, "UploadId": begun["UploadId"]}


def send(client, upload, bodies):
    """Parts by number; what Complete is to be given."""
    for number, body in bodies.items():
        sent = client.upload_part(**upload, PartNumber=number, Body=body, ChecksumCRC32C=in_base64(crc32c(body)))
        yield {"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32C": sent["ChecksumCRC32C"]}


def complete(client, upload, parts, **more):
    return client.complete_multipart_upload(**upload, MultipartUpload={"Parts": list(parts)}, **more)


def code_of(action, *arguments, **options):
    """What S3 says why not."""
    with pytest.raises(ClientError) as raised:
        action(*arguments, **options)
    return raised.value.response["Error"]["Code"]


# -- as S3 does -------------------------------------------------------------------------------------------------


def test_what_is_put_comes_back_with_its_checksum(s3, client):
    body = os.urandom(3 * 2**20 + 1)
    put(client, body=body)
    assert get(client) == body and get(client, Range="bytes=5-9") == body[5:10]
    found = head(client)
    assert (found["ChecksumCRC32C"], found["ChecksumType"]) == (in_base64(crc32c(body)), "FULL_OBJECT")
    assert "ChecksumCRC32C" not in client.get_object(Bucket=BUCKET, Key="a", Range="bytes=0-1", ChecksumMode="ENABLED")
    assert s3.names() == ["a"] and s3.proxy.sent == len(body)
    assert s3.proxy.requests == {"put": 1, "get": 3, "head": 1, "list": 1}


def test_a_checksum_that_nobody_named_is_not_told(client):
    put(client)
    client.put_object(Bucket=BUCKET, Key="a", Body=b"other")
    assert "ChecksumCRC32C" not in head(client)


@pytest.mark.parametrize(
    "checksum",
    [
        {"ChecksumCRC32C": "AAAAAA=="},
        {"ChecksumCRC32": "AAAAAA=="},
        {"ChecksumSHA256": in_base64(0)},
        {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
    ],
)
def test_a_body_with_another_checksum_is_refused(s3, client, checksum):
    assert code_of(client.put_object, Bucket=BUCKET, Key="a", Body=b"some", **checksum) == "BadDigest"
    assert s3.names() == [] and s3.proxy.sent == 0


def test_crc64nvme_is_compared(client):
    checksums = pytest.importorskip("awscrt.checksums")
    right = checksums.crc64nvme(b"some").to_bytes(8, "big")
    client.put_object(Bucket=BUCKET, Key="a", Body=b"some", ChecksumCRC64NVME=base64.b64encode(right).decode())
    wrong = base64.b64encode(bytes(8)).decode()
    assert code_of(client.put_object, Bucket=BUCKET, Key="a", Body=b"some", ChecksumCRC64NVME=wrong) == "BadDigest"


def test_a_whole_object_is_compared_when_it_is_completed(s3, client):
    upload = begin(client)
    parts = list(send(client, upload, {1: FIRST, 7: LAST}))
    whole = in_base64(crc32c(FIRST + LAST))
    wrong = in_base64(crc32c(LAST + FIRST))
    assert code_of(complete, client, upload, parts, ChecksumCRC32C=wrong, ChecksumType="FULL_OBJECT") == "BadDigest"
    assert s3.names() == [] and s3.unfinished() == ["a"]
    done = complete(client, upload, parts, ChecksumCRC32C=whole, ChecksumType="FULL_OBJECT")
    assert (done["ChecksumCRC32C"], done["ChecksumType"]) == (whole, "FULL_OBJECT")
    found = head(client)
    assert (found["ChecksumCRC32C"], found["ChecksumType"]) == (whole, "FULL_OBJECT")
    assert get(client) == FIRST + LAST and s3.unfinished() == []


def test_a_checksum_of_checksums_says_that_it_is_one(client):
    upload = begin(client, kind="COMPOSITE")
    complete(client, upload, send(client, upload, {1: FIRST, 2: LAST}))
    both = b"".join(crc32c(body).to_bytes(4, "big") for body in (FIRST, LAST))
    found = head(client)
    assert (found["ChecksumCRC32C"], found["ChecksumType"]) == (f"{in_base64(crc32c(both))}-2", "COMPOSITE")


def test_parts_that_are_others_are_refused(client):
    upload = begin(client)
    first, last = send(client, upload, {1: FIRST, 2: LAST})
    tag = {**first, "ETag": last["ETag"]}
    checksum = {**first, "ChecksumCRC32C": last["ChecksumCRC32C"]}
    for wrong in (tag, checksum, {**first, "PartNumber": 3}):
        assert code_of(complete, client, upload, sorted([wrong, last], key=lambda p: p["PartNumber"])) == "InvalidPart"
    assert code_of(complete, client, upload, [last, first]) == "InvalidPartOrder"
    assert code_of(complete, client, upload, [first, last], ChecksumType="COMPOSITE") == "InvalidRequest"
    assert code_of(client.upload_part, **upload, PartNumber=3, Body=b"", ChecksumCRC32="AAAAAA==") == "InvalidRequest"
    assert code_of(complete, client, upload, [{**last, "PartNumber": 2}, *send(client, upload, {3: LAST})]) == (
        "EntityTooSmall"
    )


def test_what_is_there_is_not_written_over_where_that_is_the_condition(client):
    put(client, IfNoneMatch="*")
    assert code_of(put, client, body=b"other", IfNoneMatch="*") == "PreconditionFailed"
    upload = begin(client)
    parts = list(send(client, upload, {1: LAST}))
    assert code_of(complete, client, upload, parts, IfNoneMatch="*") == "PreconditionFailed"
    assert get(client) == b"some" and head(client)["ChecksumCRC32C"] == in_base64(crc32c(b"some"))
    client.delete_object(Bucket=BUCKET, Key="a")
    complete(client, upload, parts, IfNoneMatch="*")
    assert get(client) == LAST


def test_of_many_who_write_if_nothing_is_there_one_does(client):
    codes = []

    def write():
        try:
            put(client, body=FIRST, IfNoneMatch="*")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == ["PreconditionFailed"] * 7


def test_parts_are_listed_with_their_checksums_page_by_page(client):
    upload = begin(client)
    sent = list(send(client, upload, {2: b"one", 5: b"two", 9: b"three"}))
    pages = list(client.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 2}))
    assert [len(page["Parts"]) for page in pages] == [2, 1]
    listed = [part for page in pages for part in page["Parts"]]
    assert [{name: part[name] for name in sent[0]} for part in listed] == sent
    assert [part["Size"] for part in listed] == [3, 3, 5]


def test_uploads_are_listed_by_key_prefix_and_page(s3, client):
    begun = [begin(client, key) for key in ("x/c", "x/a", "y", "x/b", "x/a")]
    pages = list(
        client.get_paginator("list_multipart_uploads").paginate(
            Bucket=BUCKET, Prefix="x/", PaginationConfig={"PageSize": 3}
        )
    )
    listed = [upload for page in pages for upload in page["Uploads"]]
    assert [upload["Key"] for upload in listed] == ["x/a", "x/a", "x/b", "x/c"]
    assert {upload["UploadId"] for upload in listed} == {each["UploadId"] for each in begun if each["Key"] != "y"}
    client.abort_multipart_upload(**begun[2])
    assert s3.unfinished() == ["x/a", "x/a", "x/b", "x/c"]
    for each in (client.abort_multipart_upload, client.list_parts):
        assert code_of(each, **begun[2]) == "NoSuchUpload"


def test_uploads_tell_when_they_were_begun(s3, client):
    upload = begin(client)
    began = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"][0]["Initiated"].timestamp()
    assert abs(began - time.time()) < 60
    s3.proxy.uploads[upload["UploadId"]].begun -= timedelta(days=2)
    assert client.list_multipart_uploads(Bucket=BUCKET)["Uploads"][0]["Initiated"].timestamp() < began - 86400


def test_an_upload_that_is_not_there_takes_nothing(client):
    gone = {"Bucket": BUCKET, "Key": "a", "UploadId": "never"}
    assert code_of(client.upload_part, **gone, PartNumber=1, Body=b"") == "NoSuchUpload"
    assert code_of(complete, client, gone, [{"PartNumber": 1, "ETag": "x"}]) == "NoSuchUpload"


# -- what fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ("slow down", 503, "SlowDown"),
        ("503", 503, "SlowDown"),
        ("500", 500, "InternalError"),
        ("403", 403, "AccessDenied"),
        ("expired", 400, "ExpiredToken"),
        ("no bucket", 404, "NoSuchBucket"),
        ("conflict", 409, "ConditionalRequestConflict"),
    ],
)
def test_a_fault_is_what_s3_answers_then(s3, client, action, status, code):
    with s3.failing(action, method="PUT", count=1) as fault, pytest.raises(ClientError) as raised:
        put(client)
    assert raised.value.response["Error"]["Code"] == code
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert fault.count == 0 and s3.names() == [] and s3.proxy.requests["put"] == 1
    put(client)


def test_a_fault_that_nobody_knows_is_none(s3):
    with pytest.raises(ValueError, match="slow down"):
        Fault("slowdown")


def test_a_fault_hits_what_it_is_meant_for(s3, client):
    with s3.failing("denied", method="PUT", path="partNumber=2&?", after=1, count=1):
        upload = begin(client)
        list(send(client, upload, {1: LAST, 2: LAST, 3: LAST}))
        assert code_of(list, send(client, upload, {2: LAST})) == "AccessDenied"
        list(send(client, upload, {2: LAST}))


def test_a_fraction_of_requests_fails(s3, client):
    with s3.failing("slow down", fraction=0.5):
        failed = sum(_fails(put, client) for _ in range(40))
    assert 8 < failed < 32


def _fails(action, *arguments):
    try:
        action(*arguments)
    except (ClientError, BotoCoreError):
        return True
    return False


@pytest.mark.parametrize("action", ["drop", "lose answer"])
def test_a_connection_breaks(s3, client, action):
    body = os.urandom(2**20)
    with s3.failing(action, count=1), pytest.raises(BotoCoreError):
        put(client, body=body)
    assert s3.names() == (["a"] if action == "lose answer" else [])
    put(client, body=body)
    with s3.failing(action, method="GET", count=1), pytest.raises(BotoCoreError):
        get(client)
    assert get(client) == body


def test_a_completion_whose_answer_was_lost_may_be_repeated(s3, client):
    upload = begin(client)
    parts = list(send(client, upload, {1: LAST}))
    with s3.failing("lose answer", count=1), pytest.raises(BotoCoreError):
        complete(client, upload, parts)
    assert get(client) == LAST
    complete(client, upload, parts)
    put(client)
    assert code_of(complete, client, upload, parts) == "NoSuchUpload"


def test_a_completion_that_fails_after_it_began_to_answer_fails(s3, client):
    upload = begin(client)
    parts = list(send(client, upload, {1: LAST}))
    with s3.failing("late internal", count=1):
        assert code_of(complete, client, upload, parts) == "InternalError"
    complete(client, upload, parts)


def test_what_is_damaged_on_its_way_is_refused_by_s3_or_arrives_so(s3, client):
    body = bytes(3 * 2**20)
    with s3.failing("corrupt", count=1):
        assert code_of(put, client, body=body) == "BadDigest"
    with s3.failing("corrupt", count=1):  # only its signature tells
        client = boto3.client("s3", config=Config(request_checksum_calculation="when_required"))
        assert code_of(client.put_object, Bucket=BUCKET, Key="a", Body=body) == "XAmzContentSHA256Mismatch"
    put(client, body=body)
    for action in ("corrupt", "corrupt answer"):
        with s3.failing(action, method="GET", count=1):
            damaged = get(client)
        assert sum(damaged) == 1 and len(damaged) == len(body)
    assert get(client) == body


def test_delays_and_hangs_end(s3, client):
    start = time.monotonic()
    with s3.failing("delay", seconds=0.1, count=1):
        put(client)
    assert time.monotonic() - start > 0.1
    with s3.failing("hang", method="GET"):
        asking = threading.Thread(target=_fails, args=(get, client))
        asking.start()
        until(lambda: s3.proxy.requests["get"] == 1)
        asking.join(0.05)
        assert asking.is_alive()
    asking.join(5)
    assert not asking.is_alive() and get(client) == b"some"


def test_others_are_told_and_tell_over_http(s3, client):
    control(s3, "_faults", [{"action": "slow down", "count": 1}])
    assert code_of(put, client) == "SlowDown"
    assert control(s3, "_faults")[0]["count"] == 0
    put(client)
    assert control(s3, "_requests") == {"requests": {"put": 2}, "sent": 4}
    assert control(s3, "_requests", []) == {"requests": {}, "sent": 0}
    for wrong, content in (("_fault", []), ("_faults", [{"action": "slowdown"}]), ("_faults", [{"count": 1}])):
        with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
            control(s3, wrong, content)


def control(s3, what, content=None):
    data = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(f"{s3.url}/{what}", data, timeout=5) as answer:
        return json.load(answer)


def test_a_body_that_is_announced_is_only_sent_where_it_is_wanted(s3):
    """As botocore does, which waits for a second at most: here it is seen what it waits for."""
    lines = [f"PUT /{BUCKET}/a HTTP/1.1", "Host: s3", "Content-Length: 4", "Expect: 100-continue"]
    lines.append("Authorization: AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request")
    said = {}
    for action in ("slow down", "delay"):
        with s3.failing(action), socket.create_connection(s3.proxy.server_address, timeout=5) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            said[action] = connection.recv(2**16)
            connection.sendall(b"some" if action == "delay" else b"")
            said[f"{action}, then"] = connection.recv(2**16)
    assert said["slow down"].startswith(b"HTTP/1.1 503 ") and b"SlowDown" in b"".join(list(said.values())[:2])
    assert said["delay"].startswith(b"HTTP/1.1 100 ") and said["delay, then"].startswith(b"HTTP/1.1 200 ")


# -- and what is gone -------------------------------------------------------------------------------------------


def test_while_it_is_unreachable_nobody_connects_and_then_all_is_there(s3, client):
    put(client)
    with s3.unreachable(), pytest.raises(BotoCoreError):
        get(client)
    assert get(client) == b"some"


def test_a_server_that_is_killed_comes_back_empty_at_the_same_port(s3, client):
    put(client)
    begin(client)
    port = s3.proxy.moto
    s3.kill()
    with pytest.raises(BotoCoreError):
        get(client)
    s3.start()
    assert s3.proxy.moto == port and s3.names() == [] and s3.unfinished() == []
    put(client)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes that their parent has gone")
def test_it_ends_with_those_who_started_it_however_they_end():
    program = """
        from s3 import S3
        server = S3()
        server.start()
        print(server.moto.pid, flush=True)
        input()
    """
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    server = int(process.stdout.readline())
    assert _runs(server)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not _runs(server))


def _runs(pid):
    """A zombie does not: nobody may be there to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- conditions of reading --------------------------------------------------------------------------------------


def test_a_range_of_an_object_that_was_replaced_is_refused_where_that_is_the_condition(s3, client):
    put(client)
    tag = head(client)["ETag"]
    assert get(client, Range="bytes=0-1", IfMatch=tag) == b"so"
    put(client, body=b"other")
    assert code_of(get, client, Range="bytes=0-1", IfMatch=tag) == "PreconditionFailed"


def test_what_is_archived_cannot_be_read(s3, client):
    put(client, StorageClass="DEEP_ARCHIVE")
    assert head(client)["StorageClass"] == "DEEP_ARCHIVE"
    assert code_of(get, client) == "InvalidObjectState"
