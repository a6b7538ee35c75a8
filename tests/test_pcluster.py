"""Configurations of clusters against AWS ParallelCluster itself: its schema, its validators, its update policies.

Needs the command in an environment of its own: HPCFRAME_PCLUSTER names it, as scripts/test does once it has run
scripts/install-pcluster. AWS is moto's server on this machine.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from account import BUCKET, Account
from clusters import CHANGED, CONFIGURATIONS, answers, lustre, queue, resource

from hpcframe import cli
from hpcframe.launch.catalogue import SHIPPED, _read
from hpcframe.launch.cluster import pcluster
from hpcframe.launch.cluster.changes import Effect, changes, policy
from hpcframe.launch.cluster.document import load
from hpcframe.launch.cluster.rendering import render

pytestmark = pytest.mark.skipif(
    not os.environ.get(pcluster.PROGRAM),
    reason=f"{pcluster.PROGRAM} names no pcluster: scripts/install-pcluster makes one",
)
KNOWN = _read(SHIPPED)
# moto's RunInstances takes no launch template with ephemeral devices.
NOT_HERE = ["type:HeadNodeLaunchTemplateValidator", "type:ComputeResourceLaunchTemplateValidator"]


@pytest.fixture(scope="module")
def program():
    return pcluster.needed()


@pytest.fixture(scope="module")
def accounts(program):
    """An account that has the images of this version."""
    with Account(".".join(map(str, pcluster.version(program)))) as account:
        yield account


@pytest.fixture
def account(accounts, monkeypatch):
    accounts.use(monkeypatch)
    return accounts


@pytest.fixture
def hpcframe(monkeypatch, capsys):
    def run(*arguments: object) -> tuple[str, str, int]:
        monkeypatch.setattr("sys.argv", ["hpcframe", "cluster", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return out, err, ended.value.code or 0

    return run


def private_subnet(account, region, zone):
    """One in a zone that has the type, without public addresses."""
    ec2 = account.client("ec2", region)
    found = next(each for each in ec2.describe_subnets()["Subnets"] if each["AvailabilityZoneId"] == zone)
    ec2.modify_subnet_attribute(SubnetId=found["SubnetId"], MapPublicIpOnLaunch={"Value": False})
    return found["SubnetId"]


def written(account, folder, name, change=lambda body: None):
    """A rendered configuration in a file, in a subnet that is there, after a change."""
    made = answers(name)
    zone = KNOWN.get(made.instances[0]).zones[made.region][0]
    subnet = private_subnet(account, made.region, zone)
    body = yaml.safe_load(render(answers(name, head_subnet=subnet, compute_subnet=subnet), KNOWN))
    change(body)
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    return path


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_rendered_passes_schema_and_validators(name, account, hpcframe, tmp_path):
    path = written(account, tmp_path, name)
    out, err, code = hpcframe("validate", path, *(f"--suppress={each}" for each in NOT_HERE))
    assert code == 0, out + err
    assert re.search(r"^PASS  schema ", out, re.M)
    assert not re.search(r"^SKIP  validators", out, re.M), out
    assert not re.search(r"^FAIL", out, re.M)
    offered = re.search(r"^(\w+)  offered ", out, re.M)
    assert offered and offered[1] == "PASS"  # EC2 was asked for the zone


BROKEN = {  # what a change breaks, and which part of ParallelCluster says so
    "a misspelt key": (lambda b: resource(b).update(MaxCuont=3), "schema"),
    "a wrong type": (lambda b: resource(b).update(MaxCount="many"), "schema"),
    "a key in the wrong place": (lambda b: b.update(SlurmQueues=[]), "schema"),
    "a denied setting of Slurm": (
        lambda b: b["Scheduling"]["SlurmSettings"]["CustomSlurmSettings"].append({"TaskPlugin": "none"}),
        "CustomSlurmSettingsValidator",
    ),
    "a subnet that is not there": (
        lambda b: b["HeadNode"]["Networking"].update(SubnetId="subnet-0123456789abcdef0"),
        "SubnetsValidator|validators",
    ),
    "a name that is too long": (lambda b: queue(b).update(Name="q" * 40), "NameValidator"),
    "a policy that is not there": (
        lambda b: b["HeadNode"]["Iam"]["AdditionalIamPolicies"].append({"Policy": "arn:aws:iam::aws:policy/Nonsense"}),
        "AdditionalIamPolicyValidator",
    ),
    "a type that is none": (lambda b: resource(b).update(InstanceType="hpc99.large"), "validators"),
    "two file systems in one folder": (
        lambda b: b["SharedStorage"].append({**b["SharedStorage"][0], "Name": "more"}),
        "DuplicateMountDirValidator",
    ),
    "a bucket that is not there": (
        lambda b: lustre(b)["DataRepositoryAssociations"][0].update(DataRepositoryPath="s3://hpcframe-none/fsx"),
        "S3BucketUriValidator",
    ),
    "more nodes at least than at most": (
        lambda b: resource(b).update(MinCount=9, MaxCount=2),
        "ComputeResourceSizeValidator",
    ),
    "two queues of one name": (
        lambda b: b["Scheduling"]["SlurmQueues"].append(dict(queue(b))),
        "DuplicateNameValidator",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_refused_by_the_right_part(case, account, program, tmp_path):
    change, expected = BROKEN[case]
    path = written(account, tmp_path, "hpc8a", change)
    wrong = pcluster.schema_errors(program, path)
    if wrong:
        names = {"schema"}
    else:
        messages = pcluster.validate(program, "check", path, "us-east-2", NOT_HERE)
        names = {each.kind for each in messages if each.level == "ERROR"}
    assert any(re.fullmatch(expected, name) for name in names), (names, wrong)


def test_our_rules_refuse_what_the_validators_do_not(account, hpcframe, tmp_path):
    """A type that the zone of the subnet does not offer: ParallelCluster finds out when nodes do not start."""
    subnet = private_subnet(account, "us-east-2", "use2-az1")

    def move(body):
        body["HeadNode"]["Networking"]["SubnetId"] = subnet
        queue(body)["Networking"]["SubnetIds"] = [subnet]

    path = written(account, tmp_path, "hpc8a", move)
    out, _, code = hpcframe("validate", path, *(f"--suppress={each}" for each in NOT_HERE))
    assert code == 1
    assert re.findall(r"^FAIL  (\w+)", out, re.M) == ["offered"], out


def test_what_a_change_asks_for_is_what_the_schema_says(program):
    """For every value of the schema that hpcframe may meet."""
    dump = Path(__file__).parent / "update_policies.py"
    done = subprocess.run([program.parent / "python", dump], capture_output=True, text=True, check=True)
    effects = {
        "IGNORED": Effect.LIVE,
        "SUPPORTED": Effect.LIVE,
        "SUPPORTED_UNLESS_ADC": Effect.LIVE,
        "QUEUE_UPDATE_STRATEGY": Effect.DRAIN,
        "RESIZE_UPDATE_STRATEGY_ON_REMOVE": Effect.DRAIN,
        "MANAGED_PLACEMENT_GROUP": Effect.DRAIN,
        "MANAGED_FSX": Effect.DRAIN,
        "COMPUTE_FLEET_STOP": Effect.STOP,
        "COMPUTE_FLEET_STOP_ON_REMOVE": Effect.STOP,
        "COMPUTE_AND_LOGIN_NODES_STOP": Effect.STOP,
        "SHARED_STORAGE_UPDATE_POLICY": Effect.STOP,
        "READ_ONLY_RESOURCE_BUCKET": Effect.REPLACE,
        "UNSUPPORTED": Effect.REPLACE,
    }
    policies = json.loads(done.stdout)
    assert len(policies) > 150
    differ = {
        path: (name, policy(path).name)
        for path, name in policies.items()
        if min(policy(path), Effect.REPLACE) != effects[name]  # whether data is lost, the schema does not say
    }
    assert differ == {}


@pytest.mark.parametrize("case", CHANGED)
def test_what_goes_while_nodes_run_is_what_pcluster_lets_go(case, program, tmp_path):
    """Its own comparison, of a cluster whose nodes run. That a file system is exchanged it lets go: data is lost by it,
    or out of sight, so that is refused here."""
    change, effect = CHANGED[case]
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    body = yaml.safe_load(render(answers("Spot mix"), KNOWN))
    before.write_text(yaml.safe_dump(body))
    change(body)
    after.write_text(yaml.safe_dump(body))
    compare = Path(__file__).parent / "update_checks.py"
    done = subprocess.run([program.parent / "python", compare, before, after], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if effect is not Effect.DATA:
        assert json.loads(done.stdout) == (effect <= Effect.END), done.stderr
    assert changes(load(before), load(after))[0].effect is effect


def test_create_says_what_it_costs_and_a_dry_run_makes_nothing(account, hpcframe, tmp_path):
    path = written(account, tmp_path, "hpc8a")
    before = account.client("cloudformation").list_stacks()["StackSummaries"]
    out, err, code = hpcframe("create", "demo", path, "--dry-run", *(f"--suppress={each}" for each in NOT_HERE))
    assert code == 0, out + err
    assert re.search(r"^8 x hpc8a.96xlarge, queue mpi +0.00 +63.36", out, re.M)
    assert "Owner=me" in out and out.endswith("dry run: nothing was made\n")
    assert account.client("cloudformation").list_stacks()["StackSummaries"] == before


def test_a_network_is_made_and_rendered_from(account, hpcframe, tmp_path):
    asked = ("network", "net", "--region", "us-east-2", "--zone", "use2-az2", "--owner", "me")
    out, err, code = hpcframe(*asked, "--dry-run")
    assert code == 0 and "0.050 USD an hour" in out and out.endswith("nothing was made\n"), err
    out, err, code = hpcframe(*asked, "--yes")
    assert code == 0, err
    subnet = re.search(r"^ComputeSubnet (subnet-\w+)$", out, re.M)[1]
    (found,) = account.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"]
    assert found["AvailabilityZoneId"] == "use2-az2" and not found["MapPublicIpOnLaunch"]
    assert {"Key": "Owner", "Value": "me"} in found["Tags"]
    path = tmp_path / "cluster.yaml"
    render_it = ("render", "--region", "us-east-2", "--bucket", BUCKET, "--owner", "me", "--instance", "hpc8a.96xlarge")
    assert hpcframe(*render_it, "--network", "net", "-o", path)[2] == 0
    assert load(path).queues[0].subnets == (subnet,)
    _, err, code = hpcframe(*render_it, "--network", "none")
    assert code != 0 and "none" in err
    _, err, code = hpcframe(*asked[:-3], "use2-az9", "--owner", "me")
    assert code == 2 and "use2-az1, use2-az2, use2-az3" in err
