"""FSx linked to S3: requests are validated by the service's own model; `lfs` is a program that keeps states.

boto3 is asked as the program asks it: what its client cannot do fails here, too.
"""

import os
import re
import stat
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st
from s3 import BUCKET
from staged import checkpoint

from hpcframe import aws, cli, lustre
from hpcframe.checkpoint.manifest import NAME
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
    client.meta.events.register("provide-client-params.fsx", lambda params, model, **_: fits(model.input_shape, params))
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client
        stubber.assert_no_pending_responses()


def fits(shape, value) -> None:
    """Whether FSx would take a value: what botocore leaves to it are choices, patterns and lengths."""
    if shape.type_name == "structure":
        assert set(value) <= set(shape.members), value
        for name, each in value.items():
            fits(shape.members[name], each)
        return
    limits = shape.metadata
    if shape.type_name in ("list", "string"):
        assert limits.get("min", 0) <= len(value) <= limits.get("max", len(value)), (shape.name, value)
    if shape.type_name == "string":
        assert value in (shape.enum or [value]), (shape.name, value)
        assert re.search(limits.get("pattern", ""), value), (shape.name, value)
    if shape.type_name == "list":
        for each in value:
            fits(shape.member, each)


@pytest.mark.parametrize(
    "wrong",
    [
        {"Type": "EXPORT"}, {"FileSystemId": "fs-xyz"}, {"Paths": ["x"] * 101}, {"Paths": ["a\nb"]},
        {"ClientRequestToken": "x" * 64}, {"Report": {"Enabled": True, "Path": "s3://b", "Scope": "ALL"}},
    ],
)  # fmt: skip
def test_the_client_of_these_tests_refuses_what_fsx_would(fsx, wrong):
    right = {"Type": "EXPORT_TO_REPOSITORY", "FileSystemId": ID, "Report": {"Enabled": False}}
    with pytest.raises(AssertionError):
        fsx.create_data_repository_task(**right | wrong)


def test_the_remedy_for_a_region_that_is_not_known_helps(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="set AWS_REGION"):
        aws.client("fsx")
    monkeypatch.setenv("AWS_REGION", "us-east-2")
    assert aws.client("fsx").meta.region_name == "us-east-2"


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


def test_an_id_that_is_given_needs_no_answer_of_fsx(fsx, tmp_path):
    table = mounts(tmp_path, "10.0.0.7@tcp:10.0.0.8@tcp:/abcdef")
    assert repository.file_system_of(fsx, tmp_path / "fsx/run", ID, table).id == ID
    for wrong in ("xfs-0123456789abcdef0", "abcdef", f"{ID}/data"):
        with pytest.raises(InputError, match="expected an id"):
            repository.file_system_of(fsx, tmp_path / "fsx/run", wrong, table)


def test_an_id_of_another_file_system_is_refused(fsx, tmp_path):
    """Its link would name objects that have nothing to do with these files."""
    table = mounts(tmp_path, f"{ID}.fsx.us-east-2.amazonaws.com@tcp:/abcdef")
    with pytest.raises(InputError, match=f"is on {ID}, not on fs-99999999"):
        repository.file_system_of(fsx, tmp_path / "fsx/run", "fs-99999999", table)


def test_paths_begin_at_the_root_of_the_file_system_whatever_of_it_is_mounted(fsx, tmp_path):
    for below, expected in (("", "/run/x"), ("/data", "/data/run/x"), ("/data/mine", "/data/mine/run/x")):
        table = mounts(tmp_path, f"{ID}.fsx.us-east-2.amazonaws.com@tcp:/abcdef{below}")
        path = tmp_path / "fsx/run/x"
        assert repository.file_system_of(fsx, path, mounts=table).relative(path) == PurePosixPath(expected)
    with pytest.raises(InputError, match=f"is not on {ID}"):
        repository.file_system_of(fsx, path, mounts=table).relative(tmp_path)


def test_elsewhere_there_is_another_way(fsx, tmp_path):
    with pytest.raises(InputError, match="hpcframe stage push"):
        repository.file_system_of(fsx, tmp_path, mounts=mounts(tmp_path, "x@tcp:/y"))


names = st.text("abc", min_size=1, max_size=3)
folders = st.lists(names, max_size=3).map(lambda parts: PurePosixPath("/", *parts))


@given(st.lists(folders, max_size=4), folders, names, st.sets(st.integers(0, 3)))
def test_a_file_belongs_to_the_nearest_link_above_it(elsewhere, folder, name, depths):
    path = folder / name
    above = [each for depth, each in enumerate(reversed(path.parents)) if depth in depths]
    linked = sorted({*elsewhere, *above}, key=lambda each: each.parts[::-1])
    pairs = [Association(each, f"s3://bucket/{number}/") for number, each in enumerate(linked)]
    above = [each for each in pairs if path.is_relative_to(each.folder)]
    if not above:
        with pytest.raises(InputError, match="create-data-repository-association"):
            repository.covering(pairs, path, FileSystem(ID, Path("/fsx")))
        return
    found = repository.covering(pairs, path, FileSystem(ID, Path("/fsx")))
    assert all(found.folder.is_relative_to(each.folder) for each in above)
    below = path.relative_to(found.folder).parts
    assert found.url_of(path) == found.url.rstrip("/") + "".join(f"/{part}" for part in below)


@given(st.lists(names, min_size=1, max_size=4), st.integers(0, 4), st.sampled_from(["s3://b", "s3://b/", "s3://b/p/"]))
def test_the_rest_of_a_path_is_that_of_its_object(parts, depth, url):
    path = PurePosixPath("/", *parts)
    folder = PurePosixPath("/", *parts[:depth])
    assert Association(folder, url).url_of(path) == "/".join([url.rstrip("/"), *parts[depth:]])


def test_links_to_s3_are_listed_page_by_page(fsx):
    pages = [
        [
            {"FileSystemPath": "/data", "DataRepositoryPath": "s3://bucket/run", "Lifecycle": "AVAILABLE"},
            {"FileSystemPath": "/nfs", "DataRepositoryPath": "nfs://host/export"},
        ],
        [{"FileSystemPath": "/other/", "DataRepositoryPath": "s3://bucket/other/", "Lifecycle": "MISCONFIGURED",
          "FailureDetails": {"Message": "no such bucket"}}],
    ]  # fmt: skip
    expected = {"Filters": [{"Name": "file-system-id", "Values": [ID]}]}
    name = "describe_data_repository_associations"
    fsx.stubber.add_response(name, {"Associations": pages[0], "NextToken": "bW9yZQ=="}, expected)
    fsx.stubber.add_response(name, {"Associations": pages[1]}, {**expected, "NextToken": "bW9yZQ=="})
    data, other = repository.associations(fsx, FileSystem(ID, Path("/fsx")))
    assert data == Association(PurePosixPath("/data"), "s3://bucket/run")
    assert other == Association(PurePosixPath("/other"), "s3://bucket/other/", "MISCONFIGURED", "no such bucket")


@pytest.mark.parametrize("state", ["CREATING", "MISCONFIGURED", "DELETING", "FAILED"])
def test_a_link_that_does_not_work_is_refused(state):
    link = Association(PurePosixPath("/data"), "s3://bucket/run", state, "no such bucket")
    with pytest.raises(InputError, match=f"/data .* is {state}: no such bucket; wait until it is AVAILABLE"):
        repository.covering([link], PurePosixPath("/data/x"), FileSystem(ID, Path("/fsx")))


def test_what_is_linked_is_named_where_a_path_is_not():
    with pytest.raises(InputError, match=r"nothing links /home of .* \(linked are /data, /other\); link one: aws fsx"):
        linked = [Association(PurePosixPath(each), "s3://bucket") for each in ("/data", "/other")]
        repository.covering(linked, PurePosixPath("/home"), FileSystem(ID, Path("/fsx")))


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


def test_all_is_exported_and_failures_are_listed_where_asked(fsx):
    listing = {"Enabled": True, "Path": "s3://b/x", "Format": "REPORT_CSV_20191124", "Scope": "FAILED_FILES_ONLY"}
    expected = {"Type": "EXPORT_TO_REPOSITORY", "FileSystemId": ID, "Report": listing, "ClientRequestToken": "once"}
    fsx.stubber.add_response("create_data_repository_task", {"DataRepositoryTask": task("PENDING")}, expected)
    repository.start(fsx, "EXPORT_TO_REPOSITORY", FileSystem(ID, Path("/fsx")), [], "once", "s3://b/x")
    end = task("FAILED", Report=listing, FailureDetails={"Message": "some files failed"})
    fsx.stubber.add_response("describe_data_repository_tasks", {"DataRepositoryTasks": [end]}, {"TaskIds": [TASK]})
    with pytest.raises(HpcframeError, match=rf"some files failed; s3://b/x/{TASK}/failures\.csv lists the files"):
        repository.wait(fsx, TASK, lambda _: None, pause=lambda: None)


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
    with pytest.raises(
        HpcframeError, match=r"no access; --report|of 3 file\(s\) done, 2 failed|CANCELED, .*canceled it"
    ):
        repository.wait(fsx, TASK, lambda _: None, pause=lambda: None)


class Unreachable:
    """A client that is cut off for some requests, and then answers."""

    def __init__(self, cut_off: int, *answers) -> None:
        self.answers = [*[None] * cut_off, *answers]

    def describe_data_repository_tasks(self, **_):
        answer = self.answers.pop(0)
        if answer is None:
            raise ConnectTimeoutError(endpoint_url="https://fsx")
        return {"DataRepositoryTasks": answer}


def test_an_outage_does_not_end_the_wait():
    client = Unreachable(repository.LOOKS_IN_VAIN - 2, [], [task("SUCCEEDED")])  # nor that it is not known at once
    assert repository.wait(client, TASK, lambda _: None, pause=lambda: None).state == "SUCCEEDED"
    with pytest.raises(HpcframeError, match=f"{TASK} goes on in FSx: aws fsx describe-data-repository-tasks"):
        repository.wait(Unreachable(repository.LOOKS_IN_VAIN), TASK, lambda _: None, pause=lambda: None)


def test_what_asking_again_does_not_mend_ends_it_at_once(fsx):
    fsx.stubber.add_client_error("describe_data_repository_tasks", "ExpiredToken", "told so")
    with pytest.raises(InputError, match=rf"credentials have expired.*{TASK} goes on in FSx"):
        repository.wait(fsx, TASK, lambda _: None, pause=lambda: None)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", r"docs/staging\.md"),
        ("FileSystemNotFound", "correct --file-system"),
        ("UnsupportedOperation", r"docs/fsx\.md"),
    ],
)
def test_a_task_that_cannot_begin_says_what_to_do(fsx, code, says):
    fsx.stubber.add_client_error("create_data_repository_task", code, "told so")
    with pytest.raises(InputError, match=says):
        repository.start(fsx, "IMPORT_METADATA_FROM_REPOSITORY", FileSystem(ID, Path("/fsx")), ["s3://b/x"], "t")


@pytest.mark.parametrize("known", [True, False])
def test_the_task_that_is_at_work_is_named(fsx, known):
    fsx.stubber.add_client_error("create_data_repository_task", "DataRepositoryTaskExecuting", "told so")
    filters = [
        {"Name": "file-system-id", "Values": [ID]},
        {"Name": "task-lifecycle", "Values": ["PENDING", "EXECUTING"]},
    ]
    if known:
        other = task("EXECUTING", Status={"TotalCount": 9, "SucceededCount": 4, "FailedCount": 0})
        answer = {"DataRepositoryTasks": [other]}
        fsx.stubber.add_response("describe_data_repository_tasks", answer, {"Filters": filters})
    else:
        fsx.stubber.add_client_error("describe_data_repository_tasks", "AccessDeniedException", "told so")
    says = rf"{TASK} \(EXPORT_TO_REPOSITORY, EXECUTING, 4 of 9 .*--task-ids {TASK}" if known else "another task is at"
    with pytest.raises(InputError, match=says):
        repository.start(fsx, "EXPORT_TO_REPOSITORY", FileSystem(ID, Path("/fsx")), ["x"], "t")


def test_more_paths_than_a_task_takes_are_refused(fsx):
    with pytest.raises(InputError, match="give the folder"):
        repository.start(fsx, "EXPORT_TO_REPOSITORY", FileSystem(ID, Path("/fsx")), ["x"] * 101, "t")


# -- release ----------------------------------------------------------------------------------------------------

LFS = """#!/bin/sh
# Keeps the states of files in a folder, and writes down what it released.
state=$LFS_STATES/$(basename "$2")
[ -e "$state.broken" ] && { echo "lfs: cannot open $2: Permission denied" >&2; exit 1; }
case $1 in
hsm_state) echo "$2: (0x0000000d) $(cat "$state"), archive_id:1" ;;
hsm_release)
    [ -e "$state.stuck" ] || echo "released exists archived" >"$state"
    echo "$2" >>"$LFS_STATES/calls"
    ;;
esac
"""


@pytest.fixture
def states(tmp_path, monkeypatch):
    """The folder of the states that `lfs` tells."""
    programs, folder = tmp_path / "bin", tmp_path / "states"
    programs.mkdir()
    folder.mkdir()
    program = programs / "lfs"
    program.write_text(LFS)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LFS_STATES", str(folder))
    return folder


@pytest.fixture
def exported(s3, states, tmp_path):
    """A file, and its object."""
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(10_000))
    s3.client.put_object(Bucket=BUCKET, Key="run/data.bin", Body=path.read_bytes())
    return path


URL = f"s3://{BUCKET}/run/data.bin"


def state(path, words):
    Path(os.environ["LFS_STATES"], path.name).write_text(words)


def test_a_file_is_released_once_its_object_is_proven(exported):
    state(exported, "exists archived")
    assert archive.release(exported, URL, differs) == ""
    assert archive.state_of(exported).released


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "no complete copy"),
        ("exists", "no complete copy"),
        ("exists dirty archived", "changed"),
        ("exists archived lost_from_hsm", "lost"),
        ("exists archived never_release", "hsm_clear"),
    ],
)
def test_what_lustre_has_no_copy_of_is_kept(exported, states, words, why):
    state(exported, words)
    assert why in archive.release(exported, URL, differs)
    assert not (states / "calls").exists()


def test_a_file_that_changes_while_it_is_compared_is_kept(exported, states):
    state(exported, "exists archived")

    def changing(path, url):
        state(path, "exists dirty archived")
        return differs(path, url)

    assert "while it was compared" in archive.release(exported, URL, changing)
    assert not (states / "calls").exists()


def test_words_in_the_name_of_a_file_are_no_state(states, tmp_path):
    path = tmp_path / "exists archived released"
    path.touch()
    state(path, "")
    found = archive.state_of(path)
    assert not (found.exists or found.archived or found.released)


def test_what_lfs_says_is_told_with_the_file(exported, states):
    (states / f"{exported.name}.broken").touch()
    with pytest.raises(HpcframeError, match=r"data\.bin: `lfs hsm_state` failed: .*Permission denied; try it"):
        archive.release(exported, URL, differs)


def test_what_is_released_already_is_not_read_again(exported):
    """It would all come back."""
    state(exported, "released exists archived")
    assert archive.release(exported, URL, lambda *_: pytest.fail("it was compared")) == ""


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
    Path(os.environ["LFS_STATES"], f"{exported.name}.stuck").touch()
    with pytest.raises(HpcframeError, match="did not release"):
        archive.release(exported, URL, differs)


# -- the commands -----------------------------------------------------------------------------------------------


@pytest.fixture
def linked(fsx, s3, tmp_path, monkeypatch):
    """A folder on Lustre, /data of which is linked to a bucket, for commands of this process."""
    table = mounts(tmp_path, f"{ID}.fsx.us-east-2.amazonaws.com@tcp:/abcdef")
    client = aws.client
    monkeypatch.setattr(aws, "client", lambda service, *more: fsx if service == "fsx" else client(service, *more))
    monkeypatch.setattr(repository, "mount_of", lambda path, _: lustre.mount_of(path, table))
    monkeypatch.setattr(repository, "LOOK_EVERY", 0.0)
    link = {"FileSystemPath": "/data", "DataRepositoryPath": f"s3://{BUCKET}/run", "Lifecycle": "AVAILABLE"}
    fsx.stubber.add_response("describe_data_repository_associations", {"Associations": [link]})
    folder = tmp_path / "fsx/data"
    folder.mkdir()
    return folder


@pytest.fixture
def hpcframe(monkeypatch, capsys):
    """`hpcframe stage ...` in this process: its exit code, and what it said."""

    def call(*arguments) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["hpcframe", "stage", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return call


def begins(fsx, kind: str, path: str) -> None:
    expected = {"Type": kind, "FileSystemId": ID, "Paths": [path], "Report": {"Enabled": False},
                "ClientRequestToken": ANY}  # fmt: skip
    fsx.stubber.add_response("create_data_repository_task", {"DataRepositoryTask": task("PENDING")}, expected)


def test_export_waits_for_its_task(fsx, linked, hpcframe):
    begins(fsx, "EXPORT_TO_REPOSITORY", "data")
    for lifecycle, done in (("EXECUTING", 0), ("EXECUTING", 2), ("SUCCEEDED", 3)):
        answer = {"DataRepositoryTasks": [task(lifecycle, Status={"TotalCount": 3, "SucceededCount": done})]}
        fsx.stubber.add_response("describe_data_repository_tasks", answer, {"TaskIds": [TASK]})
    code, said = hpcframe("export", linked)
    assert code == 0, said
    assert f"{linked} to s3://{BUCKET}/run" in said and "done: 3 of 3 file(s)" in said


def test_export_of_a_task_that_fails_ends_with_an_error(fsx, linked, hpcframe):
    begins(fsx, "EXPORT_TO_REPOSITORY", "data")
    end = task("FAILED", FailureDetails={"Message": "bucket is gone"})
    fsx.stubber.add_response("describe_data_repository_tasks", {"DataRepositoryTasks": [end]}, {"TaskIds": [TASK]})
    code, said = hpcframe("export", linked)
    assert code == 1 and "hpcframe: " in said and "bucket is gone" in said


def test_import_takes_a_place_in_s3_and_need_not_wait(fsx, linked, hpcframe):
    begins(fsx, "IMPORT_METADATA_FROM_REPOSITORY", f"s3://{BUCKET}/run/dem")
    code, said = hpcframe("import", linked / "dem", "--no-wait")
    assert code == 0 and f"it goes on in FSx: aws fsx describe-data-repository-tasks --task-ids {TASK}" in said


def test_a_task_goes_on_when_its_command_is_interrupted(fsx, linked, hpcframe, monkeypatch):
    begins(fsx, "EXPORT_TO_REPOSITORY", "data")
    answer = {"DataRepositoryTasks": [task("EXECUTING")]}
    fsx.stubber.add_response("describe_data_repository_tasks", answer, {"TaskIds": [TASK]})

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(repository.time, "sleep", interrupted)
    code, said = hpcframe("export", linked)
    assert code == 1 and f"{TASK} goes on in FSx, only this command has ended" in said


def test_a_dry_run_begins_nothing(fsx, linked, hpcframe):
    code, said = hpcframe("export", linked, "--dry-run")
    assert code == 0 and f"would begin a task of {ID}" in said


@pytest.mark.parametrize("command", ["export", "release"])
def test_a_path_that_is_not_there_is_refused(fsx, hpcframe, command):
    code, said = hpcframe(command, "/fsx/data/mispelt")
    assert code == 2 and "is not there" in said


def stored(s3, folder: Path) -> None:
    """What an export leaves: objects, and the states of their files."""
    for path in (each for each in folder.rglob("*") if each.is_file()):
        s3.client.put_object(Bucket=BUCKET, Key=f"run/{path.relative_to(folder)}", Body=path.read_bytes())
        state(path, "exists archived")


def test_release_gives_back_what_is_proven_and_keeps_the_rest(fsx, linked, hpcframe, states, s3):
    for name in ("a", "b", "c"):
        (linked / name).write_bytes(name.encode() * 1000)
    stored(s3, linked)
    state(linked / "b", "exists dirty archived")
    s3.client.put_object(Bucket=BUCKET, Key="run/c", Body=b"c" * 999 + b"x")
    code, said = hpcframe("release", linked)
    assert code == 1 and "2 of 3 file(s) were kept" in said
    assert f"{linked / 'a'}: released" in said and f"{linked / 'b'}: kept: it changed" in said
    assert (states / "calls").read_text().split() == [str(linked / "a")]


def test_a_checkpoint_is_released_by_its_manifest_which_comes_last(fsx, linked, hpcframe, states, s3):
    made = checkpoint(linked, 1, size=16)
    stored(s3, linked)
    (made / "elsewhere").symlink_to("/etc/hostname")
    code, said = hpcframe("release", made)
    assert code == 0, said
    released = (states / "calls").read_text().splitlines()
    assert sorted(released) == sorted(str(each) for each in made.rglob("*") if not each.is_symlink())
    assert released[-1] == str(made / NAME)


def test_a_damaged_object_of_a_checkpoint_is_found_by_its_manifest(fsx, linked, hpcframe, states, s3):
    """Where the file is as damaged: comparing the two would find nothing."""
    made = checkpoint(linked, 1, size=16)
    (data,) = (each for each in made.iterdir() if each.suffix == ".h5")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    stored(s3, linked)
    code, said = hpcframe("release", made)
    assert code == 1 and f"{data}: kept: bytes " in said
    assert str(data) not in (states / "calls").read_text()


def test_a_dry_run_of_release_tells_states_and_reads_nothing(fsx, linked, hpcframe, states, s3):
    for name, words in (("a", "exists archived"), ("b", "exists dirty archived"), ("c", "released exists archived")):
        (linked / name).touch()
        state(linked / name, words)
    code, said = hpcframe("release", linked, "--dry-run")
    assert code == 0
    assert f"a: would be compared with s3://{BUCKET}/run/a" in said
    assert "b: would be kept: it changed" in said and "c: is released" in said
    assert not (states / "calls").exists()


# -- one file that cannot be released ----------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["broken", "stuck", "denied"])
def test_an_error_of_one_file_is_named_and_the_others_are_released(fsx, linked, hpcframe, states, s3, trouble):
    for name in ("a", "b", "c"):
        (linked / name).write_bytes(name.encode() * 1000)
    stored(s3, linked)
    (states / f"a.{trouble}").touch()
    with s3.failing("denied", path="run/a") if trouble == "denied" else nullcontext():
        code, said = hpcframe("release", linked)
    assert code == 1 and "1 of 3 file(s) were kept" in said
    why = {"broken": "Permission denied", "stuck": "did not release it", "denied": "AccessDenied"}[trouble]
    assert re.search(rf"{linked / 'a'}: kept: .*{why}", said)
    assert all(f"{linked / name}: released" in said for name in "bc")


def test_a_dry_run_goes_on_after_an_error(fsx, linked, hpcframe, states, s3):
    for name in ("a", "b"):
        (linked / name).touch()
        state(linked / name, "exists archived")
    (states / "a.broken").touch()
    code, said = hpcframe("release", linked, "--dry-run")
    assert code == 0 and "a: kept: " in said and "b: would be compared with" in said
