"""Clusters are created, updated and deleted: what is said and asked before, what is proven before data may go.

`pcluster` is a program that answers as the real one does and writes down what it was asked, as no cluster can be made
here; FSx is botocore's client, which checks requests against the service's model; S3 is moto's server.
"""

import json
import stat
import sys
from pathlib import Path

import boto3
import pytest
from botocore.stub import ANY, Stubber
from clusters import answers
from s3 import BUCKET
from staged import checkpoint

from hpcframe import aws, cli, cli_cluster_life
from hpcframe.checkpoint.manifest import NAME
from hpcframe.launch.catalogue import SHIPPED, _read
from hpcframe.launch.cluster import life, validation
from hpcframe.launch.cluster.rendering import render
from hpcframe.launch.cluster.rule import Context
from hpcframe.staging import exported, repository

pytest_plugins = ["s3_fixtures"]

KNOWN = _read(SHIPPED)
FILES = "fs-0123456789abcdef0"
TASK = "task-0123456789abcdef0"
PCLUSTER = """#!{python}
import json, sys
from pathlib import Path
folder = Path({folder!r})
with open(folder / "asked", "a") as log:
    print(" ".join(sys.argv[1:]), file=log)
dry = "-dry" * ("--dryrun" in sys.argv)
work = folder / "describe-cluster"
known = json.loads(work.read_text()) if work.exists() else {{}}
if sys.argv[1] == "create-cluster" and "clusterConfiguration" in known:
    answer = json.dumps({{"message": "Bad Request: Cluster demo already exists."}})
else:
    answer = (folder / (sys.argv[1] + dry)).read_text()
if sys.argv[1] == "delete-cluster":
    work.write_text(json.dumps({{"message": "Cluster 'demo' does not exist"}}))
if sys.argv[1] == "update-compute-fleet":
    work.write_text(json.dumps(known | {{"computeFleetStatus": "STOPPED"}}))
print(answer)
"""


class Program:
    """A scripted pcluster.

    Attributes:
        asked: command lines, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        self.path = folder / "bin" / "pcluster"
        self.path.write_text(PCLUSTER.format(python=sys.executable, folder=str(folder)))
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        (folder / "bin" / "python").write_text("#!/bin/sh\necho '[]'\n")  # the schema takes everything
        (folder / "bin" / "python").chmod(0o755)
        self.answers("version", {"version": "3.16.1"})
        self.answers("create-cluster-dry", {"message": "Request would have succeeded, but DryRun flag is set."})
        self.answers("create-cluster", {"cluster": {"clusterStatus": "CREATE_IN_PROGRESS"}})
        self.answers("describe-cluster-instances", {"instances": []})
        self.answers("update-compute-fleet", {"status": "STOP_REQUESTED"})
        self.answers("update-cluster-dry", {"message": "Request would have succeeded, but DryRun flag is set."})
        self.answers("update-cluster", {"cluster": {"clusterStatus": "UPDATE_IN_PROGRESS"}})
        self.answers("delete-cluster", {"cluster": {"clusterStatus": "DELETE_IN_PROGRESS"}})

    def answers(self, command: str, answer: object) -> None:
        (self.folder / command).write_text(json.dumps(answer))

    def is_at_work(self, configuration: str, status: str = "CREATE_COMPLETE") -> None:
        path = self.folder / "at-work.yaml"
        path.write_text(configuration)
        configuration = {"url": path.as_uri()}
        known = {"clusterConfiguration": configuration, "clusterStatus": status, "computeFleetStatus": "RUNNING"}
        self.answers("describe-cluster", known)

    @property
    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def program(tmp_path, monkeypatch):
    found = Program(tmp_path / "program")
    monkeypatch.setenv("HPCFRAME_PCLUSTER", str(found.path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return found


@pytest.fixture
def account(monkeypatch):
    """One that answers, and says that the subnet is where hpc8a is offered."""
    where = {answers("hpc8a").compute_subnet: "use2-az2"}
    monkeypatch.setattr(validation, "ask", lambda *_: validation.Asked(Context(KNOWN, where)))


@pytest.fixture
def fsx():
    client = boto3.client("fsx", region_name="us-east-2", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client


@pytest.fixture
def hpcframe(monkeypatch, capsys):
    monkeypatch.setattr(life, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(cli_cluster_life, "LOOK_EVERY", 0.0)

    def run(*arguments: object, says: str = "", meanwhile=lambda: None) -> tuple[str, str, int]:
        monkeypatch.setattr("sys.argv", ["hpcframe", "cluster", *map(str, arguments)])
        monkeypatch.setattr("typer.confirm", lambda _: (meanwhile(), says == "y")[1])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return out, err, ended.value.code or 0

    return run


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "cluster.yaml"
    found.write_text(render(answers("hpc8a", bucket=BUCKET), KNOWN))
    return found


# -- created --------------------------------------------------------------------------------------------------------


def test_nothing_is_made_until_it_is_said_what_and_agreed(program, account, s3, hpcframe, path):
    out, err, code = hpcframe("create", "demo", path, "--no-wait")
    assert code == 2 and "nothing was done" in err
    assert "63.36" in out and "Owner=me" in out
    asked = (program.folder / "asked").read_text()
    assert "--dryrun true" in asked and asked.count("create-cluster") == 1  # it validated
    assert s3.names() == []


def test_the_script_of_nodes_is_there_before_the_cluster(program, account, s3, hpcframe, path):
    program.answers("describe-cluster", {"clusterStatus": "CREATE_COMPLETE", "headNode": {"instanceId": "i-0abc"}})
    out, err, code = hpcframe("create", "demo", path, says="y")
    assert code == 0, out + err
    assert s3.names() == ["hpcframe/node-configured"]
    body = s3.client.get_object(Bucket=BUCKET, Key="hpcframe/node-configured")["Body"].read()
    assert body == (Path(__file__).parent.parent / "scripts" / "node-configured").read_bytes()
    assert program.asked[-3:] == ["create-cluster", "describe-cluster", "describe-cluster"]
    assert "CREATE_COMPLETE" in out and "aws ssm start-session --region us-east-2 --target i-0abc" in out


def test_a_bucket_that_is_not_there_is_said_before_the_cluster_begins(program, account, s3, hpcframe, path):
    path.write_text(path.read_text().replace(f"s3://{BUCKET}/hpcframe", "s3://none-of-mine/hpcframe"))
    _, err, code = hpcframe("create", "demo", path, "--yes")
    assert code == 2 and "NoSuchBucket" in err and "aws s3 mb" in err
    assert program.asked.count("create-cluster") == 1  # it validated only


def test_an_invalid_one_is_not_made(program, account, s3, hpcframe, path):
    path.write_text(path.read_text().replace("CapacityType: ONDEMAND", "CapacityType: SPOT"))
    out, err, code = hpcframe("create", "demo", path, "--yes")
    assert code == 2 and "FAIL  Spot" in out and "nothing was made" in err
    assert s3.names() == []


def test_a_validator_that_refuses_is_shown_with_its_name(program, account, hpcframe, path):
    error = {"level": "ERROR", "type": "SomethingValidator", "message": "that is wrong"}
    program.answers("create-cluster-dry", {"configurationValidationErrors": [error], "message": "Invalid"})
    out, _, code = hpcframe("create", "demo", path, "--yes")
    assert code == 2 and "FAIL  SomethingValidator" in out and "that is wrong" in out


def test_a_slow_version_is_refused(program, account, hpcframe, path):
    program.answers("version", {"version": "3.13.2"})
    out, _, code = hpcframe("create", "demo", path, "--yes")
    assert code == 2 and "version 3.13.2 slows tightly coupled jobs down" in out and "scripts/install-pcluster" in out


def test_without_the_command_the_remedy_is_named(program, hpcframe, path, monkeypatch):
    monkeypatch.delenv("HPCFRAME_PCLUSTER")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    _, err, code = hpcframe("create", "demo", path)
    assert code == 2 and "run scripts/install-pcluster" in err


def test_each_state_is_said_once_and_a_failure_says_how_to_look(program):
    states = iter(["CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_FAILED"])
    said = []

    def pause():
        program.answers("describe-cluster", {"clusterStatus": next(states)})

    pause()
    with pytest.raises(life.HpcframeError, match=r"demo is CREATE_FAILED.*get-cluster-stack-events"):
        life.wait(program.path, "demo", "us-east-2", "CREATE_COMPLETE", said.append, pause)
    assert [line.split()[1] for line in said] == ["CREATE_IN_PROGRESS", "CREATE_FAILED"]


def test_ctrl_c_leaves_it_to_aws(program):
    def interrupted():
        raise KeyboardInterrupt

    program.answers("describe-cluster", {"clusterStatus": "CREATE_IN_PROGRESS"})
    with pytest.raises(
        life.HpcframeError, match="demo goes on, only this command has ended: pcluster describe-cluster"
    ):
        life.wait(program.path, "demo", "us-east-2", "CREATE_COMPLETE", print, interrupted)


# -- updated --------------------------------------------------------------------------------------------------------


def test_an_update_says_what_it_asks_for(program, account, s3, hpcframe, path):
    program.is_at_work(path.read_text())
    path.write_text(path.read_text().replace("MaxCount: 8", "MaxCount: 16"))
    out, err, code = hpcframe("update", "demo", path, "--yes", "--no-wait")
    assert code == 0, out + err
    assert out.startswith("live: jobs go on\n") and "MaxCount: 8 -> 16" in out and "126.72" in out
    assert program.asked[-1] == "update-cluster" and "create-cluster" not in program.asked


def test_an_update_that_pcluster_refuses_is_not_begun(program, account, s3, hpcframe, path):
    program.is_at_work(path.read_text())
    wrong = [{"parameter": "Scheduling", "message": "stop the fleet"}]
    program.answers("update-cluster-dry", {"message": "Update failure", "updateValidationErrors": wrong})
    path.write_text(path.read_text().replace("MaxCount: 8", "MaxCount: 16"))
    out, _, code = hpcframe("update", "demo", path, "--yes")
    assert code == 2 and "FAIL  update" in out and "Scheduling: stop the fleet" in out
    assert program.asked.count("update-cluster") == 1 and s3.names() == []


def test_what_is_suppressed_is_so_in_the_update_itself(program, account, s3, hpcframe, path):
    program.is_at_work(path.read_text())
    path.write_text(path.read_text().replace("MaxCount: 8", "MaxCount: 16"))
    assert hpcframe("update", "demo", path, "--yes", "--no-wait", "--suppress", "type:KeyPairValidator")[2] == 0
    asked = [line for line in (program.folder / "asked").read_text().splitlines() if line.startswith("update-cluster")]
    assert len(asked) == 2 and all("--suppress-validators type:KeyPairValidator" in line for line in asked)


def test_an_update_that_would_replace_data_is_refused(program, account, hpcframe, path):
    program.is_at_work(path.read_text())
    path.write_text(path.read_text().replace("StorageCapacity: 4800", "StorageCapacity: 9600"))
    out, err, code = hpcframe("update", "demo", path, "--yes")
    assert code == 2 and "replaces data" in out and "nothing was changed" in err
    assert "update-cluster" not in program.asked


# -- deleted --------------------------------------------------------------------------------------------------------


def file_system(**more):
    tag = {"Key": "parallelcluster:cluster-name", "Value": "demo"}
    return {"FileSystemId": FILES, "FileSystemType": "LUSTRE", "StorageCapacity": 4800, "Tags": [tag], **more}


def link(folder="/", **more):
    return {
        "FileSystemId": FILES, "FileSystemPath": folder, "DataRepositoryPath": f"s3://{BUCKET}/fsx",
        "Lifecycle": "AVAILABLE", **more,
    }  # fmt: skip


def task(state, failed=0):
    status = {"TotalCount": 9, "SucceededCount": 9 - failed, "FailedCount": failed}
    return {
        "TaskId": TASK, "Lifecycle": state, "Type": "EXPORT_TO_REPOSITORY", "CreationTime": 0, "FileSystemId": FILES,
        "Status": status,
    }  # fmt: skip


def expect(fsx, *, links=(), tasks=(), paths=None):
    """What FSx is asked, in this order."""
    others = file_system(FileSystemId="fs-0000000000000000f", Tags=[{"Key": "Name", "Value": "other"}])
    fsx.stubber.add_response("describe_file_systems", {"FileSystems": [others, file_system()]}, {})
    fsx.stubber.add_response("describe_data_repository_associations", {"Associations": list(links)}, {"Filters": ANY})
    if tasks:
        what = {"Paths": paths} if paths else {}
        request = {
            "Type": "EXPORT_TO_REPOSITORY", "FileSystemId": FILES, **what, "Report": {"Enabled": False},
            "ClientRequestToken": ANY,
        }  # fmt: skip
        fsx.stubber.add_response("create_data_repository_task", {"DataRepositoryTask": task("PENDING")}, request)
    for each in tasks:
        fsx.stubber.add_response("describe_data_repository_tasks", {"DataRepositoryTasks": [each]}, {"TaskIds": [TASK]})


@pytest.fixture
def ec2():
    client = boto3.client("ec2", region_name="us-east-2", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stubber:
        client.stubber = stubber
        yield client


@pytest.fixture
def deleted(program, fsx, ec2, s3, hpcframe, path, monkeypatch):
    """`hpcframe cluster delete demo`, of a cluster at work."""
    client, stubbed = aws.client, {"fsx": fsx, "ec2": ec2}
    monkeypatch.setattr(aws, "client", lambda service, *more, **_: stubbed.get(service) or client(service, *more))
    monkeypatch.setattr(repository, "LOOK_EVERY", 0.0)
    program.is_at_work(path.read_text())

    def run(*more, **options):
        waits = [] if "delete" in more else ["--no-wait"]
        return hpcframe("delete", "demo", "--region", "us-east-2", *waits, *more, **options)

    return run


@pytest.fixture
def exported_run(s3, large, tmp_path):
    """A run with a checkpoint as FSx has exported it: names in S3 are those of the file system."""
    folder = tmp_path / "runs" / "heat"
    found = checkpoint(folder, 7)
    for file in found.iterdir():
        key = f"fsx/runs/heat/checkpoints/{found.name}/{file.name}"
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    s3.client.put_object(Bucket=BUCKET, Key="fsx/runs/heat/summary.json", Body=b"{}")
    return f"fsx/runs/heat/checkpoints/{found.name}"


def test_it_goes_once_all_is_exported_and_read(program, fsx, deleted, exported_run):
    expect(fsx, links=[link()], tasks=[task("EXECUTING"), task("SUCCEEDED")])
    out, err, code = deleted("--yes")
    assert code == 0, out + err
    assert "9 file(s) exported" in out and "1 checkpoint(s) read, and found right" in out
    assert f"{FILES} stays, for" in out and "with it /home" in out
    assert program.asked[-1] == "delete-cluster"
    stopped = program.asked.index("update-compute-fleet")
    assert program.asked[stopped + 1 : -1] == ["describe-cluster", "describe-cluster-instances"]  # waited for
    fsx.stubber.assert_no_pending_responses()


def test_folders_that_are_linked_are_exported_and_no_others(program, fsx, deleted, exported_run):
    expect(fsx, links=[link("/data")], tasks=[task("SUCCEEDED")], paths=["data"])
    assert deleted("--yes")[2] == 0
    fsx.stubber.assert_no_pending_responses()


def test_the_file_system_goes_only_where_that_is_asked_for_and_with_what_holds_the_network(
    program, fsx, ec2, deleted, exported_run
):
    expect(fsx, links=[link()], tasks=[task("SUCCEEDED")])
    deletion = {"FileSystemId": FILES, "LustreConfiguration": {"SkipFinalBackup": True}}
    fsx.stubber.add_response("delete_file_system", {}, deletion)
    fsx.stubber.add_response("describe_file_systems", {"FileSystems": [file_system(Lifecycle="DELETING")]})
    fsx.stubber.add_client_error("describe_file_systems", "FileSystemNotFound", "gone", http_status_code=400)
    group = {"SecurityGroups": [{"GroupId": "sg-0123456789abcdef0"}]}
    by_tag = [{"Name": "tag:parallelcluster:cluster-name", "Values": ["demo"]}]
    ec2.stubber.add_response("describe_security_groups", group, {"Filters": by_tag})
    ec2.stubber.add_response("delete_security_group", {}, {"GroupId": "sg-0123456789abcdef0"})
    out, err, code = deleted("--yes", "--file-systems", "delete")
    assert code == 0, err
    assert f"{FILES} is being deleted" in out and "1 security group(s)" in out
    for each in (fsx, ec2):
        each.stubber.assert_no_pending_responses()


def test_a_file_system_that_cannot_be_deleted_is_said_and_not_waited_for(program, fsx, deleted, exported_run):
    expect(fsx, links=[link()], tasks=[task("SUCCEEDED")])
    fsx.stubber.add_response("delete_file_system", {})
    fsx.stubber.add_response("describe_file_systems", {"FileSystems": [file_system(Lifecycle="FAILED")]})
    out, err, code = deleted("--yes", "--file-systems", "delete")
    assert code == 1 and f"{FILES} could not be deleted" in err and "describe-file-systems" in err
    assert f"ended before that: aws fsx delete-file-system --region us-east-2 --file-system-id {FILES}" in out


def test_a_job_that_began_before_the_answer_keeps_the_cluster(program, fsx, deleted):
    expect(fsx, links=[link()])
    running = {"instances": [{"instanceId": "i-1"}]}
    _, err, code = deleted(says="y", meanwhile=lambda: program.answers("describe-cluster-instances", running))
    assert code == 2 and "1 node(s) of demo run" in err and "update-compute-fleet" not in program.asked


def test_a_cluster_that_never_came_up_can_be_deleted(program, fsx, deleted, path):
    program.is_at_work(path.read_text(), status="CREATE_FAILED")
    expect(fsx, links=[link()], tasks=[task("SUCCEEDED")])
    assert deleted("--yes")[2] == 0
    assert "update-compute-fleet" not in program.asked and program.asked[-1] == "delete-cluster"


def test_other_storage_that_would_go_keeps_the_cluster(program, fsx, deleted, path):
    more = "  - Name: more\n    StorageType: Efs\n    MountDir: /more\n    EfsSettings:\n      Encrypted: true\n"
    text = path.read_text()
    program.is_at_work(text.replace("SharedStorage:\n", f"SharedStorage:\n{more}"))
    expect(fsx, links=[link()])
    _, err, code = deleted("--yes")
    assert code == 2 and "more (Efs, /more) would be deleted with the cluster" in err and "Retain" in err
    kept = more + "      DeletionPolicy: Retain\n"
    program.is_at_work(text.replace("SharedStorage:\n", f"SharedStorage:\n{kept}"))
    expect(fsx, links=[link()], tasks=[task("SUCCEEDED")])
    assert deleted("--yes")[2] == 0


def test_what_goes_with_the_cluster_and_is_linked_in_part_only_keeps_it(program, fsx, deleted, path):
    program.is_at_work(path.read_text().replace("DeletionPolicy: Retain  # it", "DeletionPolicy: Delete  # it"))
    expect(fsx, links=[link("/data")])
    _, err, code = deleted("--yes")
    assert code == 2 and "only in part linked to S3, and would be deleted" in err


def test_a_checkpoint_that_is_damaged_in_s3_keeps_the_cluster(program, fsx, deleted, exported_run, s3):
    name = next(name for name in s3.names(exported_run) if not name.endswith(NAME))
    body = bytearray(s3.client.get_object(Bucket=BUCKET, Key=name)["Body"].read())
    body[-1] ^= 1
    body[len(body) // 2] ^= 1
    s3.client.put_object(Bucket=BUCKET, Key=name, Body=bytes(body))
    expect(fsx, links=[link()], tasks=[task("SUCCEEDED")])
    _, err, code = deleted("--yes", "--file-systems", "delete")
    assert code == 1 and "is not what was written" in err and "The cluster stays" in err
    assert "START_REQUESTED" in err and "delete-cluster" not in program.asked


def test_a_checkpoint_of_which_a_file_is_missing_keeps_the_cluster(program, fsx, deleted, exported_run, s3):
    name = next(name for name in s3.names(exported_run) if not name.endswith(NAME))
    s3.client.delete_object(Bucket=BUCKET, Key=name)
    expect(fsx, links=[link()], tasks=[task("SUCCEEDED")])
    _, err, code = deleted("--yes")
    assert code == 1 and "is not there" in err and "delete-cluster" not in program.asked


@pytest.mark.parametrize("end", [task("FAILED"), task("SUCCEEDED", failed=1), task("CANCELED")])
def test_an_export_that_did_not_do_all_keeps_the_cluster(program, fsx, deleted, end):
    expect(fsx, links=[link()], tasks=[end])
    _, err, code = deleted("--yes")
    assert code == 1 and TASK in err and "The cluster stays" in err
    assert "delete-cluster" not in program.asked


def test_what_is_linked_to_nothing_and_would_go_with_it_keeps_the_cluster(program, fsx, deleted, path):
    program.is_at_work(path.read_text().replace("DeletionPolicy: Retain  # it", "DeletionPolicy: Delete  # it"))
    expect(fsx)
    _, err, code = deleted("--yes")
    assert code == 2 and "not linked to S3, and would be deleted" in err and "create-data-repository-association" in err
    assert "update-compute-fleet" not in program.asked


def test_what_is_linked_to_nothing_and_stays_is_said(program, fsx, deleted):
    expect(fsx)
    out, err, code = deleted("--yes")
    assert code == 0, err
    assert "linked to no bucket" in out and f"{FILES} stays" in out and program.asked[-1] == "delete-cluster"


def test_a_link_that_does_not_work_keeps_the_cluster(program, fsx, deleted):
    expect(fsx, links=[link(Lifecycle="MISCONFIGURED", FailureDetails={"Message": "no permission"})])
    _, err, code = deleted("--yes")
    assert code == 2 and "MISCONFIGURED no permission" in err and "update-compute-fleet" not in program.asked


def test_nodes_that_run_keep_the_cluster(program, fsx, deleted):
    program.answers("describe-cluster-instances", {"instances": [{"instanceId": "i-1"}, {"instanceId": "i-2"}]})
    _, err, code = deleted("--yes")
    assert code == 2 and "2 node(s) of demo run" in err and "hpcframe cancel JOB --checkpoint" in err


def test_a_dry_run_and_a_no_do_nothing(program, fsx, deleted):
    for more in (["--dry-run"], []):
        expect(fsx, links=[link()])
        out, _, code = deleted(*more)
        assert f"{FILES}, 4800 GiB: export / to s3://{BUCKET}/fsx" in out
        assert code == (0 if more else 2)
    assert not {"update-compute-fleet", "delete-cluster"} & set(program.asked)


def test_only_folders_of_checkpoints_with_a_manifest_count():
    from datetime import UTC, datetime

    from hpcframe.staging.location import StoredObject

    names = [
        "runs/a/checkpoints/step-0000010/MANIFEST.json", "runs/a/checkpoints/step-0000010/state.h5",
        "runs/a/checkpoints/step-0000020/state.h5", "runs/a/output/step-0000010.h5", "MANIFEST.json",
    ]  # fmt: skip
    found = exported.exported(StoredObject(name, 5, datetime.now(UTC)) for name in names)
    assert [(one.folder, one.step, sorted(one.sizes)) for one in found] == [
        ("runs/a/checkpoints/step-0000010", 10, ["MANIFEST.json", "state.h5"])
    ]
