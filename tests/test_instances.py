"""The catalogue of instance types, its refresh from AWS, and which type suits a simulation."""

import json
import math
from itertools import pairwise

import boto3
import pytest
from account import Account
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from hpcframe import cli
from hpcframe.aws import client
from hpcframe.errors import HpcframeError, InputError
from hpcframe.launch import catalogue as catalogues
from hpcframe.launch.catalogue import InstanceType, Memory, catalogue, own, written
from hpcframe.launch.ranking import Work, predict, rank
from hpcframe.launch.refresh import price, refreshed

NAMED = ["hpc8a", "hpc7a", "hpc6a", "hpc6id", "hpc7g", "c7gn", "c8gn", "c6gn", "r7iz", "x2idn", "p5", "g6e"]


@pytest.fixture
def known(monkeypatch, tmp_path):
    """What came with hpcframe, whatever the user of this machine has refreshed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return catalogue()


@pytest.fixture
def hpcframe(monkeypatch, capsys):
    """The command; what it printed, and its exit code."""

    def run(*arguments: object) -> tuple[str, str, int]:
        monkeypatch.setattr("sys.argv", ["hpcframe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return out, err, ended.value.code or 0

    return run


# -- the table ------------------------------------------------------------------------------------------------------


def test_every_family_is_there_with_what_a_decision_needs(known):
    assert set(NAMED) <= {kind.family for kind in known.types}
    for kind in known.types:
        assert kind.cores > 0 and kind.gib > 0 and kind.gbps > 0 and kind.zones, kind.name
        assert kind.price and kind.priced, f"{kind.name} has a price, and says from where"
        if kind.family in NAMED:
            assert kind.memory and kind.memory.triad > 0 and kind.memory.source, kind.name
            assert kind.efa, kind.name


def test_no_hpc_type_may_be_had_as_spot_and_others_may(known):
    assert not [kind.name for kind in known.types if kind.spot and kind.name.startswith("hpc")]
    assert known.get("c7a.48xlarge").spot


def test_a_misspelt_type_is_refused_with_the_right_name(known):
    with pytest.raises(InputError, match=r"did you mean 'hpc8a\.96xlarge'"):
        known.get("hpc8a.96xlrage")
    with pytest.raises(InputError, match=r"--refresh zz9\.large"):
        known.get("zz9.large")


def test_a_price_of_another_region_says_so(known):
    assert known.get("hpc8a.96xlarge").price_in("us-east-2") == (7.92, "us-east-2")
    assert known.get("hpc8a.96xlarge").price_in("eu-north-1") == (7.92, "us-east-2")


# -- the refresh ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account():
    with Account() as account:
        yield account


def test_ec2_says_of_every_type_what_the_table_does(known, account, monkeypatch):
    """moto has what DescribeInstanceTypes and DescribeInstanceTypeOfferings of AWS say."""
    account.use(monkeypatch)
    regions = sorted(known.regions())
    types, _, troubles = refreshed(known, regions, ["c6i.32xlarge"], without_prices)
    found = {kind.name: kind for kind in types}
    assert found.pop("c6i.32xlarge").threads_a_core == 2
    assert list(found.values()) == known.types
    assert len(troubles) == len(found) + 1  # the price list could not be asked, and prices stay as they were


def without_prices(service, region):
    found = client(service, region=region)
    if service == "pricing":  # moto has none
        stubber = Stubber(found)
        stubber.add_client_error("get_products", "AccessDeniedException", "no")
        stubber.activate()
    return found


def test_a_type_that_no_region_has_is_refused(known, account, monkeypatch):
    account.use(monkeypatch)
    with pytest.raises(InputError, match=r"zz9.large: not offered in us-east-2"):
        refreshed(known, ["us-east-2"], ["zz9.large"], without_prices)


def test_the_price_is_that_on_demand_of_the_price_list():
    pricing = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    rate = {"unit": "Hrs", "pricePerUnit": {"USD": "7.9200000000"}}
    free = {"unit": "Hrs", "pricePerUnit": {"USD": "0.0000000000"}}
    product = {"terms": {"OnDemand": {"A": {"priceDimensions": {"A.1": rate, "A.2": free}}}, "Reserved": {}}}
    fields = {
        "instanceType": "hpc8a.96xlarge", "regionCode": "us-east-2", "operatingSystem": "Linux", "tenancy": "Shared",
        "preInstalledSw": "NA", "capacitystatus": "Used",
    }  # fmt: skip
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in fields.items()]
    with Stubber(pricing) as stubber:
        stubber.add_response(
            "get_products", {"PriceList": [json.dumps(product)]}, {"ServiceCode": "AmazonEC2", "Filters": filters}
        )
        stubber.add_response("get_products", {"PriceList": []})
        assert price(pricing, "hpc8a.96xlarge", "us-east-2") == 7.92
        assert price(pricing, "hpc8a.96xlarge", "us-east-2") is None


def test_a_refreshed_table_is_used_instead_and_a_broken_one_names_the_remedy(known, hpcframe, account, monkeypatch):
    account.use(monkeypatch)
    out, _, code = hpcframe("instances", "--refresh", "--dry-run")
    assert code == 0 and str(own()) in out and not own().exists()
    own().parent.mkdir(parents=True)
    own().write_bytes(written(known.types[:1], "2027-01-01", "a test"))
    catalogues._read.cache_clear()
    assert [kind.name for kind in catalogue().types] == ["hpc8a.96xlarge"]
    own().write_text("{")
    catalogues._read.cache_clear()
    with pytest.raises(HpcframeError, match="remove it to use the catalogue that came with hpcframe"):
        catalogue()


# -- which one ------------------------------------------------------------------------------------------------------

kinds = st.builds(
    InstanceType,
    name=st.just("x1.large"),
    architecture=st.just("x86_64"),
    cores=st.integers(1, 200),
    threads_a_core=st.just(1),
    gib=st.floats(1, 2000),
    gbps=st.floats(1, 3200),
    efa=st.just(1),
    spot=st.just(False),
    memory=st.builds(Memory, triad=st.floats(10, 2000), source=st.just("a test")),
    price=st.dictionaries(st.just("us-east-2"), st.floats(0.1, 100), min_size=1),
)
works = st.builds(
    Work,
    memory=st.integers(1, 10**13),
    moved=st.integers(1, 10**13),
    sent=st.floats(0, 1e10).map(lambda total: lambda nodes: total / nodes),
    steps=st.integers(1, 10**6),
)


@given(works, kinds)
def test_as_few_nodes_as_hold_the_fields_and_more_are_never_slower(work, kind):
    few = predict(work, kind, "us-east-2")
    assert few.nodes * 0.9 * kind.gib * 2**30 >= work.memory > (few.nodes - 1) * 0.9 * kind.gib * 2**30
    if few.nodes > 1:  # one node sends nothing
        assert predict(work, kind, "us-east-2", few.nodes + 1).step <= few.step
    if few.nodes > 1:
        with pytest.raises(InputError, match=f"{few.nodes} nodes at least"):
            predict(work, kind, "us-east-2", few.nodes - 1)


@given(works, st.lists(kinds, max_size=5))
def test_the_order_is_by_what_was_asked(work, some):
    for by, of in (("cost", lambda one: one.dollars), ("time", lambda one: one.seconds)):
        found, _ = rank(work, some, "us-east-2", by=by)
        assert all(of(a) <= of(b) * (1 + 1e-9) for a, b in pairwise(found))


def test_time_and_cost_are_those_of_memory_and_network(known):
    """By hand: 1e12 B a step over 2 x 700 GB/s are 0.714 s; 1e10 B over 0.8 x 300 Gbps are 0.333 s."""
    work = Work(memory=10**12, moved=10**12, sent=lambda nodes: 1e10, steps=3600)
    one = predict(work, known.get("hpc7a.96xlarge"), "us-east-2")
    assert (one.nodes, one.ranks, one.limited) == (2, 384, "memory")
    assert math.isclose(one.step, 1 / 1.4) and math.isclose(one.dollars, one.step * 2 * 7.20)
    slow = predict(Work(10**12, 10**9, lambda nodes: 1e10, 1), known.get("hpc7a.96xlarge"), "us-east-2")
    assert slow.limited == "network" and math.isclose(slow.step, 1e10 / (0.8 * 300e9 / 8))


def test_only_what_was_measured_bounds_a_time(known):
    assert known.get("hpc7a.96xlarge").memory.is_measured
    assert not known.get("c7a.48xlarge").memory.is_measured


def test_a_simulation_gets_a_table_with_the_cheapest_first(hpcframe, known, tmp_path):
    path = tmp_path / "sim.toml"
    path.write_text('[simulation]\nmodel = "heat"\n[grid]\nshape = [2048, 2048, 2048]\n[time]\nsteps = 1000\n')
    out, err, code = hpcframe("instances", "--for", path, "--region", "us-east-2")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.startswith(tuple(NAMED))]
    costs = [float(row[-1].rstrip("*")) for row in rows]
    assert len(rows) > 5 and costs == sorted(costs)
    assert "hpc7g" not in out  # not offered there
    by_time, _, _ = hpcframe("instances", "--for", path, "--by", "time", "--nodes", 4)
    assert by_time.splitlines()[2].startswith("hpc8a.96xlarge")


def test_a_region_of_which_nothing_is_known_names_the_remedy(hpcframe, known, tmp_path):
    path = tmp_path / "sim.toml"
    path.write_text('[simulation]\nmodel = "heat"\n')
    _, err, code = hpcframe("instances", "--for", path, "--region", "mars-east-1")
    assert code == 2 and "--refresh --region mars-east-1" in err


def test_the_table_of_all_says_what_there_is(hpcframe, known):
    out, _, code = hpcframe("instances", "hpc8a.96xlarge", "c7a.48xlarge", "hpc7g.16xlarge")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split() == ["hpc8a.96xlarge", "192", "768", "1000", "300", "2", "-", "7.92", "no", "use2-az2"]
    assert lines[3].split()[-3:] == ["1.68*", "no", "-"]
