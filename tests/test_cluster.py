"""Configurations of clusters: what is rendered, what the rules refuse, what a change asks for, what it costs.

Nothing here asks AWS; test_pcluster has the validators of ParallelCluster itself.
"""

import copy
import datetime
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from clusters import CHANGED, CONFIGURATIONS, answers, lustre, queue, resource
from hypothesis import given
from hypothesis import strategies as st

from hpcframe import cli
from hpcframe.errors import InputError
from hpcframe.launch.catalogue import SHIPPED, _read
from hpcframe.launch.cluster import cost, regions, sizing
from hpcframe.launch.cluster.changes import Effect, changes
from hpcframe.launch.cluster.document import Configuration, parse
from hpcframe.launch.cluster.quotas import needed
from hpcframe.launch.cluster.rendering import render
from hpcframe.launch.cluster.rule import Context
from hpcframe.launch.cluster.rules import RULES, check

KNOWN = _read(SHIPPED)
HERE = Path("cluster.yaml")


def configuration(name="hpc8a", **more):
    return parse(render(answers(name, **more), KNOWN), HERE)


def context(config, zone=None):
    """Where the zone that the first type is offered in is that of all subnets."""
    kind = KNOWN.get(config.resources[0].types[0])
    zone = zone or kind.zones[config.region][0]
    return Context(KNOWN, {subnet: zone for queue in config.queues for subnet in queue.subnets})


@pytest.fixture
def hpcframe(monkeypatch, capsys, tmp_path):
    """The command without AWS and without pcluster; what it printed, and its exit code."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("HPCFRAME_PCLUSTER", raising=False)

    def run(*arguments: object) -> tuple[str, str, int]:
        monkeypatch.setattr("sys.argv", ["hpcframe", "cluster", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return out, err, ended.value.code or 0

    return run


RENDER = ("render", "--region", "us-east-2", "--bucket", "hpcframe-data", "--owner", "me", "--instance")

# -- rendered -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_rule_has_anything_against_what_is_rendered(name):
    config = configuration(name)
    failed = [(title, found) for title, found in check(config, context(config)) if found.status == "FAIL"]
    assert failed == []


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_value_has_a_comment(name):
    text = render(answers(name), KNOWN)
    bare = [line for line in text.splitlines() if re.search(r"^ *(- )?[\w]+: [^#]+$|^ *- [^#:]+$", line)]
    assert bare == []
    assert max(map(len, text.splitlines())) <= 120


def test_what_was_answered_is_there():
    config = configuration("Spot mix", project="ocean", until="2031-05-01")
    mpi, spot = config.queues
    assert (mpi.spot, spot.spot) == (False, True)
    assert mpi.resources[0].placement == {"Enabled": True} and mpi.resources[0].efa
    assert len(spot.resources[0].types) == 3 and spot.resources[0].most == 16
    assert (
        mpi.section["CustomSlurmSettings"]["PriorityJobFactor"]
        > spot.section["CustomSlurmSettings"]["PriorityJobFactor"]
    )
    assert config.tags == {
        "Project": "ocean", "Team": "research", "Environment": "dev", "Owner": "me", "TimeToLive": "2031-05-01",
    }  # fmt: skip
    lustre = config.storage[0]["FsxLustreSettings"]
    assert lustre["DeploymentType"] == "PERSISTENT_2" and lustre["DeletionPolicy"] == "Retain"
    assert lustre["DataRepositoryAssociations"][0]["DataRepositoryPath"] == "s3://hpcframe-data/fsx"


def test_a_government_region_has_names_of_its_own_partition():
    config = configuration("hpc6a", region="us-gov-west-1")
    assert "arn:aws-us-gov:iam" in str(config.body)
    assert [found.status for title, found in check(config, Context(KNOWN)) if title == "partition"] == ["PASS"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"region": "us-east-22"}, "--region us-east-22: not a region; did you mean 'us-east-2'"),
        ({"bucket": "s3://mine"}, "--bucket s3://mine"),
        ({"instances": ("hpc8a.96xlrage",)}, "did you mean 'hpc8a.96xlarge'"),
        ({"instances": ("hpc8a",)}, "hpc8a: not in the catalogue; it comes as hpc8a.96xlarge"),
        ({"instances": ()}, "name at least one type"),
        ({"region": "us-east-1"}, "--region us-east-1: hpc8a.96xlarge is not offered there; it is in ap-northeast-1"),
        ({"spot": ("hpc7a.96xlarge",)}, "--spot hpc7a.96xlarge: AWS has no Spot of it"),
        ({"instances": ("hpc8a.96xlarge", "hpc7g.16xlarge")}, "processors of one kind"),
        ({"spot": ("c7a.48xlarge", "c7i.48xlarge")}, "equally many cores"),
        ({"files": sizing.FileSystem(1000, 250)}, "--fsx 1000:250: expected 1200 GiB or a multiple of 2400"),
        ({"owner": "me; rm"}, "the tag Owner"),
        ({"until": "soon"}, "--until soon: expected a day"),
    ],
)
def test_an_answer_that_makes_no_cluster_is_refused(more, message):
    with pytest.raises(InputError, match=re.escape(message)):
        render(replace(answers("hpc8a"), **more), KNOWN)


def test_the_command_prints_it_or_writes_a_file_but_never_over_one(hpcframe, tmp_path):
    out, err, code = hpcframe(*RENDER, "hpc8a.96xlarge", "--nodes", 3)
    assert code == 0, err
    assert parse(out, HERE).resources[0].most == 3
    path = tmp_path / "cluster.yaml"
    assert hpcframe(*RENDER, "hpc8a.96xlarge", "-o", path)[2] == 0
    path.write_text("mine")
    _, err, code = hpcframe(*RENDER, "hpc8a.96xlarge", "-o", path)
    assert code == 2 and "there already" in err and path.read_text() == "mine"


def test_the_file_system_fits_the_checkpoints_of_a_simulation(hpcframe, tmp_path):
    path = tmp_path / "sim.toml"
    grid = "[grid]\nshape = [4096, 4096, 2048]\n"
    path.write_text(f'[simulation]\nmodel = "heat"\n{grid}[checkpoint]\nevery_seconds = 600\nkeep = 5\n')
    out, err, code = hpcframe(*RENDER, "hpc8a.96xlarge", "--for", path)
    assert code == 0, err
    settings = parse(out, HERE).storage[0]["FsxLustreSettings"]
    size = 4096 * 4096 * 2048 * 8
    assert f"checkpoints of {size / 1e9:.3g} GB every 600 s, 5 kept" in err
    assert settings["StorageCapacity"] * 2**30 >= 6 * size
    assert settings["StorageCapacity"] / 1024 * settings["PerUnitStorageThroughput"] * 1e6 * 30 >= size


@given(st.floats(1e6, 1e14), st.floats(1, 1e5), st.integers(1, 20))
def test_the_cheapest_file_system_is_enough_and_no_other_one_is_cheaper(size, interval, kept):
    found = sizing.cheapest(size, interval, kept)
    assert sizing.is_capacity(found.capacity)

    def enough(one):
        holds = one.capacity * 2**30 * sizing.FULL >= size * (kept + 1) * (1 - 1e-9)
        return holds and one.rate * 1e6 * interval * sizing.WRITING >= size * (1 - 1e-9)

    assert enough(found)
    smaller = [found.capacity - sizing.STEP, found.capacity // 2]
    for capacity in smaller:
        for speed in sizing.PRICES:
            other = sizing.FileSystem(capacity, speed)
            assert (
                not sizing.is_capacity(capacity) or not enough(other) or other.dollars_a_month >= found.dollars_a_month
            )


# -- refused --------------------------------------------------------------------------------------------------------


def broken(name, change):
    """A rendered configuration after a change of what it is parsed to."""
    config = configuration(name)
    body = copy.deepcopy(dict(config.body))
    change(body)
    return Configuration(HERE, body)


ONE_THREAD = {"DisableSimultaneousMultithreading": True}


def more_types(section):
    section["Instances"].append({"InstanceType": "c7i.48xlarge"})
    section.update(ONE_THREAD)


BROKEN = {
    "placeholder": (
        "hpc8a",
        lambda b: b["HeadNode"]["Networking"].update(SubnetId="subnet-OF-THE-HEAD-NODE"),
        "filled in",
    ),
    "other partition": ("hpc8a", lambda b: b.update(Region="cn-north-1"), "partition"),
    "no region": ("hpc8a", lambda b: b.update(Region="us-east"), "partition"),
    "not in the region": ("hpc8a", lambda b: b.update(Region="us-east-1"), "offered"),
    "EFA where there is none": ("hpc8a", lambda b: resource(b).update(InstanceType="m7i.2xlarge", **ONE_THREAD), "EFA"),
    "EFA off": ("hpc8a", lambda b: resource(b).update(Efa={"Enabled": False}), "EFA"),
    "two subnets": ("hpc8a", lambda b: queue(b)["Networking"]["SubnetIds"].append("subnet-2"), "EFA"),
    "not placed": ("hpc8a", lambda b: queue(b)["Networking"].pop("PlacementGroup"), "EFA"),
    "Spot of hpc": ("hpc8a", lambda b: queue(b).update(CapacityType="SPOT"), "Spot"),
    "two threads": ("r7iz", lambda b: resource(b).pop("DisableSimultaneousMultithreading"), "SMT"),
    "mixed processors": ("hpc8a", lambda b: b["HeadNode"].update(InstanceType="m7g.2xlarge"), "alike"),
    "mixed cores": ("Spot mix", lambda b: more_types(resource(b, 1)), "alike"),
    "shared nodes": ("hpc8a", lambda b: queue(b).update(JobExclusiveAllocation=False), "exclusive"),
    "memory with Spot": (
        "Spot mix",
        lambda b: b["Scheduling"]["SlurmSettings"].update(EnableMemoryBasedScheduling=True),
        "memory",
    ),
    "idle nodes": ("hpc8a", lambda b: resource(b).update(MinCount=2), "idle"),
    "jobs that are ended": (
        "hpc8a",
        lambda b: b["Scheduling"]["SlurmSettings"].update(QueueUpdateStrategy="TERMINATE"),
        "updates",
    ),
    "never given back": ("hpc8a", lambda b: b["Scheduling"]["SlurmSettings"].update(ScaledownIdletime=600), "idle"),
    "no Lustre": ("hpc8a", lambda b: b.pop("SharedStorage"), "files"),
    "a size that is none": ("hpc8a", lambda b: lustre(b).update(StorageCapacity=3000), "files"),
    "a speed that is none": ("hpc8a", lambda b: lustre(b).update(PerUnitStorageThroughput=300), "files"),
    "scratch": ("hpc8a", lambda b: lustre(b).update(DeploymentType="SCRATCH_2"), "files"),
    "deleted with the cluster": ("hpc8a", lambda b: lustre(b).update(DeletionPolicy="Delete"), "files"),
    "not linked": ("hpc8a", lambda b: lustre(b).pop("DataRepositoryAssociations"), "files"),
    "automatic export": (
        "hpc8a",
        lambda b: lustre(b)["DataRepositoryAssociations"][0].update(AutoExportPolicy=["NEW"]),
        "files",
    ),
    "root not encrypted": (
        "hpc8a",
        lambda b: b["HeadNode"]["LocalStorage"]["RootVolume"].update(Encrypted=False),
        "encrypted",
    ),
    "SSH key": ("hpc8a", lambda b: b["HeadNode"].update(Ssh={"KeyName": "mine"}), "private"),
    "public address": ("hpc8a", lambda b: queue(b)["Networking"].update(AssignPublicIp=True), "private"),
    "IMDSv1": ("hpc8a", lambda b: b.pop("Imds"), "private"),
    "all buckets": ("hpc8a", lambda b: b["HeadNode"]["Iam"]["S3Access"][0].update(BucketName="*"), "buckets"),
    "nobody's": ("hpc8a", lambda b: b.pop("Tags"), "tags"),
    "over": ("hpc8a", lambda b: b["Tags"][-1].update(Value="2020-01-01"), "tags"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_right_rule_refuses_and_names_a_remedy(case):
    name, change, rule = BROKEN[case]
    config = broken(name, change)
    zones = {} if config.region != "us-east-2" else dict(context(config).zones)
    failed = [(title, found) for title, found in check(config, Context(KNOWN, zones)) if found.status == "FAIL"]
    assert {title for title, _ in failed} == {rule}
    assert all(found.found and found.remedy for _, found in failed)


def test_every_rule_refuses_something():
    always_told = {"cores", "quotas"}  # the one advises only, the other has a test of its own
    assert {rule for _, _, rule in BROKEN.values()} == set(RULES) - always_told


def test_a_type_that_the_zone_does_not_offer_is_refused_with_one_that_does():
    config = configuration("hpc8a")
    (found,) = [found for title, found in check(config, context(config, zone="use2-az1")) if title == "offered"]
    assert found.status == "FAIL" and "hpc8a.96xlarge is not offered in use2-az1" in found.found
    assert found.remedy == "use a subnet in use2-az2"


def test_a_zone_that_is_not_known_is_said_and_how_to_look():
    config = configuration("hpc8a")
    (found,) = [found for title, found in check(config, Context(KNOWN)) if title == "offered"]
    assert found.status == "SKIP" and "use2-az2 only" in found.found and "aws ec2 describe-subnets" in found.remedy


def test_a_zone_of_another_region_is_refused():
    config = configuration("hpc8a")
    found = dict(check(config, context(config, zone="euw1-az1")))
    assert found["partition"].status == "FAIL" and "not in us-east-2" in found["partition"].found


def test_a_subnet_that_is_not_there_is_refused():
    config = configuration("hpc8a")
    (found,) = [found for title, found in check(config, context(config, zone=None)) if title == "offered"]
    assert found.status == "PASS"
    nowhere = Context(KNOWN, {config.queues[0].subnets[0]: ""})
    failed = [(title, found) for title, found in check(config, nowhere) if found.status == "FAIL"]
    assert [title for title, _ in failed] == ["offered"] and "is not there in us-east-2" in failed[0][1].found


def test_quotas_count_all_nodes_at_once_and_what_is_too_little_is_asked_for():
    config = configuration("Spot mix")
    wanted = {quota.code: count for quota, count in needed(config, KNOWN).items()}
    assert wanted == {"L-F7808C92": 8 * 192, "L-34B43A08": 16 * 192, "L-1216C47A": 8}
    limits = {"L-F7808C92": 768.0, "L-34B43A08": 5000.0, "L-1216C47A": 8.0}
    found = [each for title, each in check(config, replace(context(config), quotas=limits)) if title == "quotas"]
    assert [each.status for each in found] == ["FAIL"]
    assert "1536 vCPUs" in found[0].found and "--quota-code L-F7808C92 --desired-value 1536" in found[0].remedy


def test_a_type_with_idle_cores_is_advised_against_and_not_refused():
    config = configuration("hpc8a", instances=("hpc7a.12xlarge",))
    (found,) = [found for title, found in check(config, context(config)) if title == "cores"]
    assert found.status == "PASS" and "hpc7a.96xlarge with --ranks-per-node 24" in found.remedy


def test_validate_says_what_it_could_not_check(hpcframe, tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(render(answers("hpc8a"), KNOWN))
    out, err, code = hpcframe("validate", path, "--offline", "--zone", "use2-az2")
    assert code == 0, out + err
    assert re.search(r"^SKIP  pcluster .*\n +scripts/install-pcluster$", out, re.M)
    assert re.search(r"^in all +\d", out, re.M)
    path.write_text(path.read_text().replace("CapacityType: ONDEMAND", "CapacityType: SPOT"))
    out, _, code = hpcframe("validate", path, "--offline", "--zone", "use2-az2")
    assert code == 1 and re.search(r"^FAIL  Spot .*AWS has no Spot of hpc8a", out, re.M)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not YAML"), ("- a", "expected a configuration")])
def test_a_file_that_is_no_configuration_is_refused(hpcframe, tmp_path, text, message):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    _, err, code = hpcframe("validate", path, "--offline")
    assert code == 2 and message in err and str(path) in err


def test_a_file_that_is_not_there_is_refused(hpcframe, tmp_path):
    _, err, code = hpcframe("validate", tmp_path / "none.yaml")
    assert code == 2 and "hpcframe cluster render" in err


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.data())
def test_no_configuration_makes_a_rule_stumble(data):
    """Whatever value is somewhere, it is ParallelCluster's schema that says so: the rules end with findings."""
    body = copy.deepcopy(dict(configuration("Spot mix").body))
    section = body
    while True:
        keys = list(section) if isinstance(section, dict) else list(range(len(section)))
        key = data.draw(st.sampled_from(keys))
        inner = section[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            section[key] = data.draw(scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(), scalars))
            break
        section = inner
    config = Configuration(HERE, body)
    assert all(found.status in ("PASS", "SKIP", "FAIL") for _, found in check(config, Context(KNOWN)))
    cost.table(cost.items_of(config, KNOWN))


# -- changed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CHANGED)
def test_a_change_is_classified(case):
    change, effect = CHANGED[case]
    found = changes(configuration("Spot mix"), broken("Spot mix", change))
    assert found and found[0].effect is effect


def test_no_change_is_none_and_comments_are_none():
    config = configuration("hpc8a")
    assert changes(config, parse(yaml.safe_dump(dict(config.body)), HERE)) == []


def test_a_file_system_that_would_be_deleted_is_data():
    def drop(body):
        lustre(body)["DeletionPolicy"] = "Delete"

    before = broken("hpc8a", drop)
    after = broken("hpc8a", lambda body: body.pop("SharedStorage"))
    assert changes(before, after)[0].effect is Effect.DATA


def test_diff_says_what_each_change_asks_for(hpcframe, tmp_path):
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    text = render(answers("hpc8a"), KNOWN)
    before.write_text(text)
    after.write_text(
        text.replace("MaxCount: 8", "MaxCount: 16").replace("ScaledownIdletime: 10", "ScaledownIdletime: 20")
    )
    out, _, code = hpcframe("diff", before, after)
    assert code == 0
    assert re.search(
        r"^the fleet must be stopped.*\n  Scheduling/SlurmSettings/ScaledownIdletime: 10 -> 20\nlive.*\n"
        r"  Scheduling/SlurmQueues\[mpi\]/ComputeResources\[hpc8a-96x\]/MaxCount: 8 -> 16$",
        out,
        re.M,
    )
    after.write_text(text.replace("Region: us-east-2", "Region: us-east-1"))
    out, _, code = hpcframe("diff", before, after)
    assert code == 1 and "make a second cluster" in out
    assert hpcframe("diff", before, before)[0] == "no difference\n"


# -- paid for -------------------------------------------------------------------------------------------------------


def test_the_cost_is_the_sum_of_what_is_there():
    config = configuration("hpc8a")
    items = {item.what: item for item in cost.items_of(config, KNOWN)}
    nodes = next(item for what, item in items.items() if what.startswith("8 x hpc8a"))
    assert (nodes.idle, nodes.most) == (0.0, 8 * 7.92)
    files = next(item for what, item in items.items() if what.startswith("FSx"))
    assert files.idle == pytest.approx(4800 * 0.21 / 730) and files.idle == files.most
    last = cost.table(list(items.values())).splitlines()[-1].split()
    assert float(last[-1]) == pytest.approx(sum(item.most for item in items.values()), abs=0.01)


def test_a_price_that_is_not_known_is_said():
    config = broken("hpc8a", lambda body: resource(body).update(InstanceType="zz9.large"))
    assert "the price of zz9.large is not known" in cost.table(cost.items_of(config, KNOWN))


@pytest.mark.parametrize("region", sorted(KNOWN.regions()))
def test_the_ids_of_zones_begin_with_that_of_their_region(region):
    prefix = regions.zone_prefix(region)
    zones = [zone for kind in KNOWN.types for zone in kind.zones.get(region, [])]
    assert zones and all(zone.startswith(prefix) for zone in zones)


def test_a_time_to_live_is_a_month_if_nothing_is_said():
    until = datetime.date.fromisoformat(configuration("hpc8a").tags["TimeToLive"])
    assert 29 <= (until - datetime.date.today()).days <= 30
