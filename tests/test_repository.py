"""FSx linked to S3: requests are validated by the service's own model; `lfs` is a program that keeps states."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st
from s3 import BUCKET

from hpcframe.errors import HpcframeError, InputError
from hpcframe.staging import archive, repository
from hpcframe.staging.comparing import differs
from hpcframe.staging.repository import Association, FileSystem

pytest_plugins = ["s3_fixtures"]

ID, TASK = "fs-0123456789abcdef0", "task-0123456789abcdef0"


@pytest.fixture
def fsx():
    """A client that answers only what was agreed on, and only to requests that FSx would take."""
    client = boto3.client("fsx", region_name="us-east-2", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client
        stubber.assert_no_pending_responses()


def mounts(folder: Path, source: str) -> Path:
    table = folder / "mounts"
    table.write_text(f"/dev/root / ext4 rw 0 0\n{source} {folder}/fsx lustre rw 0 0\n")
    (folder / "fsx").mkdir(exist_ok=True)
    return table


def test_the_file_system_is_found_by_the_id_in_its_name(fsx, tmp_path):
    table = mounts(tmp_path, f"{ID}.fsx.us-east-2.amazonaws.com@tcp:/abcdef")
    assert repository.file_system_of(fsx, tmp_path / "fsx/run", mounts=table) == FileSystem(ID, tmp_path / "fsx")


def test_or_by_the_name_of_its_mount(fsx, tmp_path):
    table = mounts(tmp_path, "10.0.0.7@tcp:/abcdef")
    systems = [
        {"FileSystemId": "fs-00000000", "LustreConfiguration": {"MountName": "other"}},
        {"FileSystemId": ID, "LustreConfiguration": {"MountName": "abcdef"}},
    ]
    fsx.stubber.add_response("describe_file_systems", {"FileSystems": systems}, {})
    assert repository.file_system_of(fsx, tmp_path / "fsx/run", mounts=table).id == ID
    fsx.stubber.add_response("describe_file_systems", {"FileSystems": []}, {})
    with pytest.raises(InputError, match="give --file-system"):
        repository.file_system_of(fsx, tmp_path / "fsx/run", mounts=table)


def test_elsewhere_there_is_another_way(fsx, tmp_path):
    with pytest.raises(InputError, match="hpcframe stage push"):
        repository.file_system_of(fsx, tmp_path, mounts=mounts(tmp_path, "x@tcp:/y"))


names = st.text("abc", min_size=1, max_size=3)
folders = st.lists(names, max_size=3).map(lambda parts: PurePosixPath("/", *parts))


@given(st.lists(folders, unique=True, max_size=5), folders, names)
def test_a_file_belongs_to_the_nearest_link_above_it(linked, folder, name):
    path = folder / name
    pairs = [Association(each, f"s3://bucket/{number}/") for number, each in enumerate(linked)]
    above = [each for each in pairs if path.is_relative_to(each.folder)]
    if not above:
        with pytest.raises(InputError, match="create-data-repository-association"):
            repository.covering(pairs, path, FileSystem(ID, Path("/fsx")))
        return
    found = repository.covering(pairs, path, FileSystem(ID, Path("/fsx")))
    assert all(found.folder.is_relative_to(each.folder) for each in above)
    assert found.url_of(path) == "/".join([found.url.rstrip("/"), *path.relative_to(found.folder).parts])


def test_links_to_s3_are_listed(fsx):
    expected = {"Filters": [{"Name": "file-system-id", "Values": [ID]}]}
    pages = [{"FileSystemPath": "/data", "DataRepositoryPath": "s3://bucket/run"}]
    pages += [{"FileSystemPath": "/nfs", "DataRepositoryPath": "nfs://host/export"}]
    answers = [{"Associations": [pages[0]], "NextToken": "more"}, {"Associations": [pages[1]]}]
    for answer, request in zip(answers, [expected, {**expected, "NextToken": "more"}], strict=True):
        fsx.stubber.add_response("describe_data_repository_associations", answer, request)
    found = repository.associations(fsx, FileSystem(ID, Path("/fsx")))
    assert found == [Association(PurePosixPath("/data"), "s3://bucket/run")]


def task(state, **more):
    return {"TaskId": TASK, "Lifecycle": state, "Type": "EXPORT_TO_REPOSITORY",
            "CreationTime": datetime(2026, 1, 1, tzinfo=UTC), **more}  # fmt: skip


def test_a_task_is_begun_once_and_waited_for(fsx):
    expected = {"Type": "EXPORT_TO_REPOSITORY", "FileSystemId": ID, "Paths": ["data/run"],
                "Report": {"Enabled": False}, "ClientRequestToken": "once"}  # fmt: skip
    fsx.stubber.add_response("create_data_repository_task", {"DataRepositoryTask": task("PENDING")}, expected)
    assert repository.start(fsx, "EXPORT_TO_REPOSITORY", FileSystem(ID, Path("/fsx")), ["data/run"], "once") == TASK
    counts = [{}, {"TotalCount": 9, "SucceededCount": 4}, {"TotalCount": 9, "SucceededCount": 9, "FailedCount": 0}]
    for state, status in zip(["PENDING", "EXECUTING", "SUCCEEDED"], counts, strict=True):
        answer = {"DataRepositoryTasks": [task(state, Status=status)]}
        fsx.stubber.add_response("describe_data_repository_tasks", answer, {"TaskIds": [TASK]})
    shown = []
    ended = repository.wait(fsx, TASK, shown.append, pause=lambda: None)
    assert [(each.state, each.done) for each in shown] == [("PENDING", 0), ("EXECUTING", 4), ("SUCCEEDED", 9)]
    assert ended.total == 9


@pytest.mark.parametrize(
    "end",
    [
        task("FAILED", FailureDetails={"Message": "no access"}),
        task("SUCCEEDED", Status={"FailedCount": 2, "TotalCount": 3}),
        task("CANCELED"),
    ],
)
def test_a_task_that_did_not_do_all_is_an_error(fsx, end):
    fsx.stubber.add_response("describe_data_repository_tasks", {"DataRepositoryTasks": [end]}, {"TaskIds": [TASK]})
    with pytest.raises(HpcframeError, match=r"no access|2 of 3 files|CANCELED"):
        repository.wait(fsx, TASK, lambda _: None, pause=lambda: None)


@pytest.mark.parametrize(
    ("code", "says"),
    [("DataRepositoryTaskExecuting", "another task is at work"), ("AccessDeniedException", r"docs/staging\.md")],
)
def test_a_task_that_cannot_begin_says_what_to_do(fsx, code, says):
    fsx.stubber.add_client_error("create_data_repository_task", code, "told so")
    with pytest.raises(InputError, match=says):
        repository.start(fsx, "IMPORT_METADATA_FROM_REPOSITORY", FileSystem(ID, Path("/fsx")), ["s3://b/x"], "t")


def test_more_paths_than_a_task_takes_are_refused(fsx):
    with pytest.raises(InputError, match="give the folder"):
        repository.start(fsx, "EXPORT_TO_REPOSITORY", FileSystem(ID, Path("/fsx")), ["x"] * 101, "t")


# -- release ----------------------------------------------------------------------------------------------------

LFS = """#!/bin/sh
# Keeps the state of a file beside it, as Lustre keeps it within.
case $1 in
hsm_state) echo "$2: (0x0000000d) $(cat "$2.state"), archive_id:1" ;;
hsm_release) [ -e "$2.stuck" ] || echo "released exists archived" >"$2.state" ;;
esac
"""


@pytest.fixture
def exported(s3, tmp_path, monkeypatch):
    """A file, and its object."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "lfs"
    program.write_text(LFS)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(10_000))
    s3.client.put_object(Bucket=BUCKET, Key="run/data.bin", Body=path.read_bytes())
    return path


URL = f"s3://{BUCKET}/run/data.bin"


def state(path, words):
    path.with_name(path.name + ".state").write_text(words)


def test_a_file_is_released_once_its_object_is_proven(exported):
    state(exported, "exists archived")
    assert archive.release(exported, URL, differs) == ""
    assert archive.state_of(exported).released


@pytest.mark.parametrize(
    ("words", "why"), [("", "no complete copy"), ("exists", "no complete copy"), ("exists dirty archived", "changed")]
)
def test_what_lustre_has_no_copy_of_is_kept(exported, words, why):
    state(exported, words)
    assert why in archive.release(exported, URL, differs)
    assert not archive.state_of(exported).released


def test_what_s3_does_not_hold_is_kept_whatever_lustre_says(exported, s3):
    state(exported, "exists archived")
    content = bytearray(exported.read_bytes())
    content[5000] ^= 1
    s3.client.put_object(Bucket=BUCKET, Key="run/data.bin", Body=bytes(content))
    assert "are not those of the file" in archive.release(exported, URL, differs)
    s3.client.put_object(Bucket=BUCKET, Key="run/data.bin", Body=b"short")
    assert "has 5 bytes" in archive.release(exported, URL, differs)
    s3.client.delete_object(Bucket=BUCKET, Key="run/data.bin")
    assert "is not there" in archive.release(exported, URL, differs)
    assert not archive.state_of(exported).released


def test_a_file_that_lustre_does_not_release_is_an_error(exported):
    state(exported, "exists archived")
    exported.with_name(exported.name + ".stuck").touch()
    with pytest.raises(HpcframeError, match="did not release"):
        archive.release(exported, URL, differs)
