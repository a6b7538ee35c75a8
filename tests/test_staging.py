"""Checkpoints in S3: what is pushed is what was written, whatever interrupts it; and comes back so."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from s3 import BUCKET
from s3_rules import in_base64
from staged import HPCFRAME, URL, checkpoint, killed, push_command, same_files, stage
from waiting import until

import hpcframe as hf
from hpcframe.checkpoint.crc32c import crc32c, of_zeros
from hpcframe.checkpoint.manifest import NAME, Extent
from hpcframe.checkpoint.verify import verify
from hpcframe.errors import InputError
from hpcframe.staging import pieces
from hpcframe.staging.location import Choice, StoredObject, candidates, checkpoints_in
from hpcframe.staging.options import MIB, Options
from hpcframe.staging.url import Location

pytest_plugins = ["s3_fixtures"]

PART = 5 * MIB  # the smallest that S3 takes


# -- pieces and names -------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), max_size=12), st.integers(0, 40), st.integers(1, 200)
)
def test_pieces_are_the_whole_file_and_have_its_checksums(gaps_and_lengths, tail, size):
    content, extents = bytearray(), []
    for gap, length in gaps_and_lengths:
        content += bytes(gap)
        data = bytes(np.random.default_rng(len(content)).integers(1, 255, length, np.uint8))
        extents.append(Extent(0, len(content), length, crc32c(data)))
        content += data
    content += bytes(tail)
    cut = pieces.cut_at_extents(len(content), reversed(extents), size)
    assert [piece.number for piece in cut] == list(range(1, len(cut) + 1))
    assert b"".join(content[piece.offset : piece.offset + piece.length] for piece in cut) == content
    assert all(piece.length >= size for piece in cut[:-1])
    for piece in cut:
        assert piece.checksum == crc32c(content[piece.offset : piece.offset + piece.length])
    assert pieces.checksum_of((piece.length, piece.checksum) for piece in cut) == crc32c(content)
    assert [extent for piece in cut for extent in piece.extents] == extents


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_a_file_without_checksums_is_cut_whole(length, size):
    cut = pieces.cut(length, size)
    assert len(cut) <= pieces.PIECES_AT_MOST + 1
    ends = [piece.offset + piece.length for piece in cut]
    assert [0, *ends[:-1]] == [piece.offset for piece in cut]
    assert ends[-1] == length


@given(st.integers(0, 5000))
def test_the_checksum_of_zeros(count):
    assert of_zeros(count) == crc32c(bytes(count))


def test_a_terabyte_has_no_more_parts_than_s3_takes():
    assert len(pieces.cut(10**12, 5 * MIB)) < 10_000


@pytest.mark.parametrize(
    "url", ["mine", "s3://", "s3://A/b", "s3://ab", "http://b/c", "s3://good..bad/x", "s3://bb//x"]
)
def test_what_is_no_url_of_s3_is_refused(url):
    with pytest.raises(InputError, match="expected s3://bucket/prefix"):
        Location.parse(url)


RUN, STEP = "3fa9c2d1e0b7", "step-0000100-0123abcd"
folders = st.sampled_from(["mine", "a", "checkpoints", "checkpoints-of-mine", "3fa9", RUN, STEP, NAME])
prefixes = st.lists(folders, max_size=4).map("/".join)


@given(prefixes, st.sampled_from(["", f"/checkpoints/{RUN}", f"/checkpoints/{RUN}/{STEP}"]))
def test_a_url_means_a_location_a_run_or_a_checkpoint(prefix, rest):
    assume(rest or f"checkpoints/{RUN}" not in prefix)  # that is a run, whoever named it so
    url = f"s3://{BUCKET}/{prefix}{rest}" if prefix else f"s3://{BUCKET}{rest}"
    choice = Choice.parse(url)
    assert choice.location == Location.parse(f"s3://{BUCKET}/{prefix}")
    assert choice.run == (RUN if rest else "")
    assert (choice.step, choice.identity) == ((100, "0123abcd") if STEP in rest else (None, ""))
    assert Choice.parse(f"{url}/") == choice
    assert STEP not in rest or Choice.parse(f"{url}/{NAME}") == choice
    assert choice.location.key(choice.beginning) == Location.parse(url).prefix


def listing(*entries):
    return [
        StoredObject(f"checkpoints/{run}/step-{step:07d}-{'0' * 8}/{name}", 1, datetime.fromtimestamp(when, UTC))
        for run, step, name, when in entries
    ]


def test_a_run_goes_on_from_the_one_that_came_last_and_only_from_what_is_complete():
    found = checkpoints_in(
        listing(
            ("old", 900, "state.h5", 1), ("old", 900, NAME, 2), ("new", 10, "state.h5", 3), ("new", 10, NAME, 4),
            ("new", 20, "state.h5", 5), ("new", 20, NAME, 6), ("new", 30, "state.h5", 7), ("other", 5, "x", 9),
        )
    )  # fmt: skip
    assert [(one.run, one.step) for one in candidates(found)] == [("new", 20), ("new", 10)]
    assert [one.step for one in candidates([one for one in found if one.run == "old"])] == [900]


# -- push and pull ----------------------------------------------------------------------------------------------


def push(folder, **options):
    """All that is to be pushed, in this process; what pushed it."""
    from hpcframe.staging.pushing import Pusher
    from hpcframe.staging.store import Store
    from hpcframe.staging.upload import Traffic

    chosen = Options(URL, part_size=PART, streams=2, **options)
    pusher = Pusher(folder / "checkpoints", chosen, Store(Location.parse(URL), chosen), Traffic(2))
    pusher.begin()
    for task in pusher.pending(finishing=True):
        pusher.push(task)
    return pusher


def test_what_is_pushed_comes_back_as_it_was(s3, large, tmp_path):
    path = checkpoint(tmp_path / "run", 7)
    pushed = push(tmp_path / "run").latest
    assert pushed is not None and s3.proxy.requests["part"] == 4
    assert stage("pull", URL, tmp_path / "new").returncode == 0
    back = tmp_path / "new" / "checkpoints" / path.name
    verify(back)
    assert same_files(path, back)
    assert s3.unfinished() == []
    s3.proxy.requests.clear()
    push(tmp_path / "run")
    assert not s3.proxy.requests["part"] and not s3.proxy.requests["put"], "it was there already"


def test_the_manifest_comes_last_and_nothing_complete_is_written_over(s3, tmp_path):
    from hpcframe.staging.store import Store

    path = checkpoint(tmp_path / "run", 7, size=16)
    with s3.failing("denied", method="PUT", path=NAME), pytest.raises(InputError, match=r"docs/staging\.md"):
        push(tmp_path / "run")
    assert s3.names() and not [key for key in s3.names() if key.endswith(NAME)]
    assert "not complete" in stage("ls", URL).stdout
    assert stage("pull", URL, tmp_path / "new").returncode == 2
    remote = push(tmp_path / "run").latest
    store = Store(Location.parse(URL), Options(URL))
    assert not store.put(f"{remote.name}/{NAME}", b"other", crc32c(b"other"), only_new=True)
    assert store.read_whole(f"{remote.name}/{NAME}") == (path / NAME).read_bytes()


def test_all_runs_of_a_location_are_verified(s3, tmp_path):
    for name in ("one", "two"):
        checkpoint(tmp_path / name, 7, size=16)
        push(tmp_path / name)
    assert stage("verify", URL).stdout.count(": ok") == 2
    assert stage("verify", f"{URL}/elsewhere").returncode == 2


def test_another_content_of_the_same_step_has_another_name(s3, tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    checkpoint(first, 7, size=16)
    checkpoint(second, 7, size=16, value=1.0)
    names = {push(first).latest.identity, push(second).latest.identity}
    assert len(names) == 2


@pytest.mark.parametrize("phase", ["begin", "part", "complete", "put"])
def test_a_push_that_is_killed_leaves_nothing_half_and_goes_on_where_it_was(s3, large, tmp_path, phase):
    path = checkpoint(tmp_path / "run", 7)
    push_small(tmp_path / "run", PART)
    shutil.copytree(tmp_path / "run", tmp_path / "reference")
    before = s3.proxy.requests[phase]
    with s3.failing("delay", method="PUT|POST", seconds=0.3):
        killed(push_command(tmp_path / "run"), lambda: s3.proxy.requests[phase] > before + (phase == "part"))
    complete = [key for key in s3.names() if key.endswith(NAME)]
    assert len(complete) <= 1
    s3.proxy.requests.clear()
    done = subprocess.run(push_command(tmp_path / "run"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if phase != "begin":
        assert s3.proxy.requests["begin"] == 0, "what was begun is gone on with"
    if phase in ("complete", "put"):
        assert s3.proxy.requests["part"] == 0, "what is there is not sent again"
    assert stage("verify", URL).returncode == 0
    assert stage("pull", URL, tmp_path / "new").returncode == 0
    assert same_files(path, tmp_path / "new" / "checkpoints" / path.name)


def push_small(folder, part):
    """Say that parts are small, as a run does."""
    (folder / "staging").mkdir(exist_ok=True)
    text = json.dumps({"url": URL, "part_size": part, "streams": 2})
    (folder / "staging" / "options.json").write_text(text)


def test_parts_that_arrived_are_not_sent_again(s3, large, tmp_path):
    checkpoint(tmp_path / "run", 7)
    with s3.failing("denied", method="PUT", path="partNumber=3"), pytest.raises(InputError):
        push(tmp_path / "run")
    assert len(s3.unfinished()) == 1
    sent = s3.proxy.sent
    push(tmp_path / "run")
    assert s3.proxy.sent - sent < 2 * PART + 2**20
    assert stage("verify", URL, "--quick").returncode == 0


@pytest.mark.parametrize("action", ["slow down", "internal", "drop", "corrupt"])
def test_what_may_work_later_is_tried_again(s3, large, tmp_path, action):
    checkpoint(tmp_path / "run", 7)
    with s3.failing(action, method="PUT", path="partNumber", count=2) as fault:
        push(tmp_path / "run")
    assert fault.count == 0
    assert stage("verify", URL).returncode == 0


def test_a_file_that_is_damaged_on_the_disk_does_not_get_to_s3(s3, large, tmp_path):
    good = checkpoint(tmp_path / "run", 7)
    push(tmp_path / "run")
    bad = checkpoint(tmp_path / "run", 8)
    with open(bad / "state.h5", "r+b") as file:
        file.seek(6 * MIB)
        byte = file.read(1)
        file.seek(6 * MIB)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(hf.HpcframeError, match="is not what was written; it was not sent"):
        push(tmp_path / "run")
    assert s3.unfinished() == []
    pulled = stage("pull", URL, tmp_path / "new")
    assert str(good.name) in pulled.stdout


def test_a_damaged_object_is_found_and_passed_over(s3, large, tmp_path):
    checkpoint(tmp_path / "run", 7)
    push(tmp_path / "run")
    checkpoint(tmp_path / "run", 8)
    remote = push(tmp_path / "run").latest
    key = f"mine/{remote.name}/state.h5"
    content = bytearray(s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    content[6 * MIB] ^= 1
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(content))
    for quick in ([], ["--quick"]):
        verified = stage("verify", URL, *quick)
        assert verified.returncode == 1 and "bad" in verified.stdout and "ok" in verified.stdout
    assert "step-0000007" in stage("pull", URL, tmp_path / "new").stdout


def test_what_arrives_damaged_is_read_again(s3, large, tmp_path):
    path = checkpoint(tmp_path / "run", 7)
    push(tmp_path / "run")
    with s3.failing("corrupt answer", method="GET", path="state.h5", count=1):
        assert stage("pull", URL, tmp_path / "new").returncode == 0
    assert same_files(path, tmp_path / "new" / "checkpoints" / path.name)
    with s3.failing("corrupt answer", method="GET", path="state.h5"):
        refused = stage("pull", URL, tmp_path / "other")
    assert refused.returncode == 1 and "its checksum differs" in refused.stderr
    assert not (tmp_path / "other" / "checkpoints" / path.name).exists()


@pytest.mark.parametrize(
    ("action", "says"),
    [("expired", "have expired"), ("denied", "docs/staging.md"), ("no bucket", "aws s3 mb")],
)
def test_what_somebody_has_to_change_is_said_with_the_remedy(s3, tmp_path, action, says):
    checkpoint(tmp_path / "run", 7, size=16)
    with s3.failing(action):
        refused = stage("push", tmp_path / "run", URL)
    assert refused.returncode == 2 and says in refused.stderr and "Traceback" not in refused.stderr
    assert stage("push", tmp_path / "run", URL).returncode == 0


def test_without_credentials_the_error_says_where_they_come_from(s3, tmp_path):
    checkpoint(tmp_path / "run", 7, size=16)
    environment = {k: v for k, v in os.environ.items() if k not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    refused = stage("push", tmp_path / "run", URL, env=environment)
    assert refused.returncode == 2 and "attach a role" in refused.stderr


def test_objects_are_stored_as_the_options_say(s3, large, tmp_path):
    checkpoint(tmp_path / "run", 7)
    remote = push(tmp_path / "run", storage_class="STANDARD_IA", tags={"Project": "a b"}, kms_key="mine").latest
    for name in (NAME, "state.h5"):  # one request, and parts
        where = {"Bucket": BUCKET, "Key": f"mine/{remote.name}/{name}"}
        found = s3.client.head_object(**where)
        assert found["StorageClass"] == "STANDARD_IA" and found["SSEKMSKeyId"].endswith("mine")
        assert s3.client.get_object_tagging(**where)["TagSet"] == [{"Key": "Project", "Value": "a b"}]


def test_no_more_bytes_a_second_than_allowed(monkeypatch):
    from hpcframe.staging import upload

    now = [100.0]
    monkeypatch.setattr(upload.time, "monotonic", lambda: now[0])
    pace, sent, begun = upload.Pace(1000.0), 0, now[0]
    for count in (500, 2000, 100, 700, 50):
        now[0] += pace.delay(count)
        assert sent <= 1000.0 * (now[0] - begun) + 1e-6
        sent += count
    assert upload.Pace(0.0).delay(10**9) == 0.0


def test_old_checkpoints_go_from_s3_and_the_newest_never(s3, tmp_path):
    for step in range(1, 7):
        checkpoint(tmp_path / "run", step, size=16)
        push(tmp_path / "run", keep=2, keep_every=3)
    assert sorted(steps_in_s3(s3)) == [3, 5, 6]


def steps_in_s3(s3):
    return [int(key.split("step-")[1][:7]) for key in s3.names() if key.endswith(NAME)]


# -- several nodes ----------------------------------------------------------------------------------------------


def uploader(folder, node, nodes, **options):
    job = {
        "checkpoints": str(folder / "checkpoints"), "token": "together", "node": node, "nodes": nodes,
        "options": {"url": URL, "part_size": PART, "streams": 1, **options},
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "hpcframe.staging.uploader"], stdin=subprocess.PIPE)
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    return process


def test_nodes_share_the_parts_of_one_object(s3, large, tmp_path):
    path = checkpoint(tmp_path / "run", 7)
    with s3.failing("delay", method="PUT", seconds=0.2):
        workers = [uploader(tmp_path / "run", node, 2) for node in (1, 0)]
        workers[1].stdin.close()
        assert workers[1].wait(60) == 0
        workers[0].stdin.close()
        assert workers[0].wait(60) == 0
    said = [json.loads((tmp_path / "run" / "staging" / f"uploader-{node}.json").read_text()) for node in (0, 1)]
    assert all(each["sent"] >= PART for each in said), "each sent some"
    assert sum(each["sent"] for each in said) < 1.1 * sum(file.stat().st_size for file in path.iterdir())
    assert stage("verify", URL).returncode == 0


def test_a_server_that_is_killed_and_loses_all_gets_all_again(s3, large, tmp_path):
    path = checkpoint(tmp_path / "run", 7)
    with s3.failing("delay", method="PUT", path="partNumber", seconds=0.3):
        worker = uploader(tmp_path / "run", 0, 1)
        until(lambda: s3.proxy.requests["part"] > 1)
        s3.kill()
        until(lambda: json.loads((tmp_path / "run/staging/uploader-0.json").read_text())["error"])
        s3.start()
    worker.stdin.close()
    assert worker.wait(60) == 0
    assert stage("pull", URL, tmp_path / "new").returncode == 0
    assert same_files(path, tmp_path / "new" / "checkpoints" / path.name)


def test_the_first_node_takes_over_from_one_that_died(s3, large, tmp_path, monkeypatch):
    from hpcframe.staging import upload

    checkpoint(tmp_path / "run", 7)
    monkeypatch.setattr(upload, "TAKE_OVER", 0.5)
    from hpcframe.staging.uploader import Job, Uploader

    job = Job(str(tmp_path / "run" / "checkpoints"), Options(URL, part_size=PART), "together", 0, 2)
    alone = Uploader(job)
    alone.finishing.set()
    assert alone.run()
    assert stage("verify", URL).returncode == 0


def test_a_client_is_not_used_in_a_child_process(s3):
    from hpcframe.staging.store import Store

    store = Store(Location.parse(URL))
    here = store.client
    child = os.fork()
    if not child:
        os._exit(0 if store.client is not here and not list(store.list()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.client is here


# -- what is left, and rules ------------------------------------------------------------------------------------


def test_what_interrupted_uploads_left_is_found_and_let_go_of(s3, large, tmp_path):
    checkpoint(tmp_path / "run", 7)
    with s3.failing("denied", method="POST", path="uploadId"), pytest.raises(InputError):
        push(tmp_path / "run")
    s3.client.put_object(Bucket=BUCKET, Key=f"mine/checkpoints/gone/step-0000001-{'0' * 8}/state.h5", Body=b"x")
    s3.client.create_multipart_upload(Bucket=BUCKET, Key="elsewhere/file")
    young = stage("gc", URL)
    assert young.returncode == 0 and "nothing older than 24 h" in young.stdout
    would = stage("gc", URL, "--older-than=0", "--dry-run")
    assert would.stdout.count("would let go of") == 2 and len(s3.unfinished()) == 2
    assert stage("gc", URL, "--older-than=0").returncode == 0
    assert s3.unfinished() == ["elsewhere/file"] and s3.names() == []


def test_the_rules_of_others_stay(s3):
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 9}}
    s3.client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [theirs]})
    printed = stage("lifecycle", URL, "--tier", "STANDARD_IA:30")
    assert json.loads(printed.stdout)["Rules"][0]["Transitions"] == [{"StorageClass": "STANDARD_IA", "Days": 30}]
    for days in ("3", "4"):
        applied = stage("lifecycle", URL, "--incomplete-days", days, "--output-days=90", "--apply")
        assert applied.returncode == 0, applied.stderr
    rules = s3.client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rules[0]["ID"] == "theirs" and len(rules) == 3
    assert rules[1]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 4}
    assert stage("lifecycle", URL, "--tier", "TAPE:3").returncode == 2


# -- the command -----------------------------------------------------------------------------------------------


def test_push_says_what_it_would_do_and_ctrl_c_leaves_what_was_sent(s3, large, tmp_path):
    checkpoint(tmp_path / "run", 7)
    push_small(tmp_path / "run", PART)
    would = stage("push", tmp_path / "run", "--dry-run")
    assert "would push step-0000007" in would.stdout and not s3.names()
    with s3.failing("delay", method="PUT", seconds=0.3):
        code = killed(
            [HPCFRAME, *push_command(tmp_path / "run")[2:]], lambda: s3.proxy.requests["part"] > 1, signal.SIGINT
        )
    assert code != 0 and len(s3.unfinished()) == 1
    assert stage("push", tmp_path / "run").returncode == 0
    assert stage("push", tmp_path / "run").stdout.startswith("all is in")


def test_a_folder_that_nothing_is_known_of_needs_a_url(s3, tmp_path):
    checkpoint(tmp_path / "run", 7, size=16)
    refused = stage("push", tmp_path / "run")
    assert refused.returncode == 2 and "give s3://BUCKET/PREFIX" in refused.stderr
    assert stage("wait", tmp_path / "run").returncode == 2


# -- prefixes that look like ours -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["checkpoints", "checkpoints/hillslope", "team/checkpoints/run1", f"checkpoints/{RUN}"]
)
def test_what_was_pushed_is_found_whatever_the_prefix_is_called(s3, tmp_path, prefix):
    url, path = f"s3://{BUCKET}/{prefix}", checkpoint(tmp_path / "run", 7, size=16)
    assert stage("push", tmp_path / "run", url).returncode == 0
    assert " 7 " in stage("ls", url).stdout
    assert stage("verify", url).stdout.count(": ok") == 1
    assert stage("pull", url, tmp_path / "new").returncode == 0
    assert same_files(path, tmp_path / "new" / "checkpoints" / path.name)
    (name,) = (name for name in s3.names() if name.endswith(NAME))
    for meant in (name, name.removesuffix(f"/{NAME}"), name.rpartition("/step-")[0]):
        assert stage("verify", f"s3://{BUCKET}/{meant}").stdout.count(": ok") == 1


@pytest.mark.parametrize("url", [f"{URL}/checkpoints/{RUN}", f"s3://{BUCKET}/checkpoints/mine"])
def test_only_leftovers_of_what_a_url_means_are_let_go_of(s3, url):
    names = [f"checkpoints/{run}/step-0000001-{'0' * 8}/state.h5" for run in (RUN, "0123456789ab")]
    for name in names:
        for prefix in ("", "mine/", "checkpoints/mine/"):
            s3.client.put_object(Bucket=BUCKET, Key=prefix + name, Body=b"x")
            s3.client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}{name}.more")
    before = {*s3.names(), *s3.unfinished()}
    assert stage("gc", url, "--older-than=0").returncode == 0
    gone = before - {*s3.names(), *s3.unfinished()}
    assert gone == {name for name in before if f"s3://{BUCKET}/{name}".startswith(f"{url}/")}


# -- what somebody goes on with is not left ---------------------------------------------------------------------


def aged(s3, name, parts_too):
    """Set the upload of an object back by two days, and what of it has arrived."""
    (upload,) = (each for each in s3.proxy.uploads.values() if each.key == name)
    for each in [upload, *(upload.parts.values() if parts_too else ())]:
        setattr(each, "begun" if each is upload else "when", datetime.now(UTC) - timedelta(days=2))


def test_a_checkpoint_that_is_completed_after_it_was_found_keeps_its_files(s3, tmp_path):
    from hpcframe.staging.cleaning import leftovers, remove
    from hpcframe.staging.store import Store

    checkpoint(tmp_path / "run", 7, size=16)
    with s3.failing("denied", method="PUT", path=NAME), pytest.raises(InputError):
        push(tmp_path / "run")
    store = Store(Location.parse(URL))
    found = leftovers(store, timedelta(0))
    assert len(found.checkpoints) == 1
    push(tmp_path / "run")
    assert remove(store, found).checkpoints == []
    assert stage("verify", URL).stdout.count(": ok") == 1


@pytest.mark.parametrize("sign", ["another file", "an upload", "nothing"])
def test_a_checkpoint_that_somebody_goes_on_with_is_kept(s3, sign):
    from hpcframe.staging.cleaning import leftovers, remove
    from hpcframe.staging.store import Store

    folder = f"mine/checkpoints/{RUN}/{STEP}"
    s3.client.put_object(Bucket=BUCKET, Key=f"{folder}/state.h5", Body=b"x")
    store = Store(Location.parse(URL))
    found = leftovers(store, timedelta(0))
    time.sleep(1.1)  # S3 counts in whole seconds
    if sign == "another file":
        s3.client.put_object(Bucket=BUCKET, Key=f"{folder}/state-1.h5", Body=b"x")
    elif sign == "an upload":
        s3.client.create_multipart_upload(Bucket=BUCKET, Key=f"{folder}/state-1.h5")
    gone = remove(store, found)
    assert len(gone.checkpoints) == (sign == "nothing")
    assert (f"{folder}/state.h5" in s3.names()) == (sign != "nothing")


def test_an_upload_that_takes_longer_than_a_day_is_not_let_go_of(s3, large, tmp_path):
    checkpoint(tmp_path / "run", 7)
    with s3.failing("denied", method="PUT", path="partNumber=3"), pytest.raises(InputError):
        push(tmp_path / "run")
    (name,) = s3.unfinished()
    aged(s3, name, parts_too=False)
    assert "nothing older than 24 h" in stage("gc", URL).stdout and s3.unfinished() == [name]
    aged(s3, name, parts_too=True)
    assert "let go of the upload" in stage("gc", URL).stdout and s3.unfinished() == []


def test_an_upload_that_gets_a_part_after_it_was_found_goes_on(s3, large, tmp_path):
    from hpcframe.staging.cleaning import leftovers, remove
    from hpcframe.staging.store import Store

    checkpoint(tmp_path / "run", 7)
    with s3.failing("denied", method="PUT", path="partNumber=[34]"), pytest.raises(InputError):
        push(tmp_path / "run")
    (name,) = s3.unfinished()
    aged(s3, name, parts_too=True)
    store = Store(Location.parse(URL))
    found = leftovers(store, timedelta(days=1))
    assert len(found.uploads) == 1
    with s3.failing("denied", method="PUT", path="partNumber=4"), pytest.raises(InputError):
        push(tmp_path / "run")
    assert remove(store, found).uploads == [] and s3.unfinished() == [name]


# -- the output comes back --------------------------------------------------------------------------------------

OUTPUTS = ("output/step-0000001.h5", "output/series.xdmf", "diagnostics.csv", "summary.json")


@pytest.fixture
def finished(s3, tmp_path):
    """The folder of a run, all of which is in S3."""
    checkpoint(tmp_path / "run", 7, size=16)
    (tmp_path / "run/output").mkdir()
    for number, name in enumerate(OUTPUTS):
        (tmp_path / "run" / name).write_bytes(np.random.default_rng(number).bytes(100_000))
    assert stage("push", tmp_path / "run", URL).returncode == 0
    return tmp_path / "run"


def pull_output_into(folder, *more):
    return stage("pull", URL, folder, "--output", *more)


def test_the_output_comes_back_and_nothing_else_that_is_there(s3, finished, tmp_path):
    outside = tmp_path / "escaped.h5"
    others = ("dem.h5", "nested/output/step-0000001.h5", "output/deep/a.h5", "output/notes.txt", "output/../../a.h5",
              f"/{outside}", "/diagnostics.csv", "checkpoints/summary.json")  # fmt: skip
    for name in others:
        s3.client.put_object(Bucket=BUCKET, Key=f"mine/{name}", Body=b"x")
    new = tmp_path / "new"
    assert pull_output_into(new).returncode == 0
    pulled = {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}
    assert {name for name in pulled if not name.startswith(("checkpoints/", "staging/"))} == set(OUTPUTS)
    assert all((new / name).read_bytes() == (finished / name).read_bytes() for name in OUTPUTS)
    assert not outside.exists() and not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("name", ["/tmp/hpcframe-escaped.h5", "output/../../hpcframe-escaped.h5"])
def test_a_name_that_leads_out_of_the_folder_is_refused(s3, tmp_path, name):
    from hpcframe.staging.download import pull_file
    from hpcframe.staging.store import Store

    s3.client.put_object(Bucket=BUCKET, Key=f"mine/{name}", Body=b"x")
    there = StoredObject(name, 1, datetime.now(UTC))
    with pytest.raises(InputError, match="leads out of"):
        pull_file(Store(Location.parse(URL)), there, tmp_path / "run", 2)


def test_files_that_are_there_stay_and_those_that_differ_are_named(s3, finished, tmp_path):
    new = tmp_path / "new"
    assert pull_output_into(new).returncode == 0
    mine = bytearray((new / "diagnostics.csv").read_bytes())
    mine[-1] ^= 1  # of the same size
    (new / "diagnostics.csv").write_bytes(mine)
    (new / "summary.json").write_text("{}")
    (new / "output/series.xdmf").unlink()
    before = s3.proxy.requests["get"]
    again = pull_output_into(new)
    assert again.returncode == 2 and "2 of 4 file(s) of the output were not pulled" in again.stderr
    for name in ("diagnostics.csv", "summary.json"):
        assert f"kept {new / name}, which is not {URL}/{name}: move it away" in again.stdout
    assert (new / "diagnostics.csv").read_bytes() == mine and (new / "summary.json").read_text() == "{}"
    assert (new / "output/series.xdmf").read_bytes() == (finished / "output/series.xdmf").read_bytes()
    assert s3.proxy.requests["get"] - before <= 4, "a checkpoint and one file"
    (new / "summary.json").unlink()
    (new / "diagnostics.csv").unlink()
    assert pull_output_into(new).returncode == 0


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_was_pulled_is_not_pushed_again_to_the_same_place(s3, finished, tmp_path, elsewhere):
    new = tmp_path / "new"
    assert pull_output_into(new).returncode == 0
    (new / "diagnostics.csv").write_text("it goes on")
    would = stage("push", new, f"{URL}/elsewhere" if elsewhere else URL, "--dry-run").stdout
    assert all((f"would push {name}" in would) == (elsewhere or name == "diagnostics.csv") for name in OUTPUTS)


def test_what_a_run_pushed_elsewhere_stays_on_record(s3, finished, tmp_path):
    assert pull_output_into(finished).returncode == 0
    assert stage("push", finished, f"{URL}/copy").returncode == 0
    assert pull_output_into(finished).returncode == 0
    assert stage("push", finished, f"{URL}/copy").stdout.startswith("all is in")


def test_output_that_arrives_damaged_is_read_again(s3, finished, tmp_path):
    with s3.failing("corrupt answer", method="GET", path="diagnostics.csv", count=1):
        assert pull_output_into(tmp_path / "new").returncode == 0
    assert (tmp_path / "new/diagnostics.csv").read_bytes() == (finished / "diagnostics.csv").read_bytes()
    with s3.failing("corrupt answer", method="GET", path="diagnostics.csv"):
        refused = pull_output_into(tmp_path / "other")
    assert refused.returncode == 1 and f"{URL}/diagnostics.csv arrives with another checksum" in refused.stderr
    assert not (tmp_path / "other/diagnostics.csv").exists()


@pytest.fixture
def halfway(s3, monkeypatch):
    """Replaces an object each time that a part of it was read; how often is counted down."""
    from hpcframe.staging.store import Store

    read, left = Store.read, {"times": 0}

    def reading(store, name, offset, into, *more):
        read(store, name, offset, into, *more)
        if left["times"]:
            left["times"] -= 1
            content = np.random.default_rng(left["times"]).bytes(1_500_000 + left["times"])
            put(s3, store.location.key(name), content)

    monkeypatch.setattr(Store, "read", reading)
    return left


def put(s3, key, content):
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=content, ChecksumCRC32C=in_base64(crc32c(content)))


def test_a_file_that_is_replaced_while_it_is_read_is_begun_anew(s3, halfway, tmp_path, monkeypatch):
    from hpcframe.staging import download
    from hpcframe.staging.store import Store

    monkeypatch.setattr(download, "READ_SIZE", 10**6)
    put(s3, "mine/diagnostics.csv", bytes(2_500_000))
    halfway["times"] = 2
    store = Store(Location.parse(URL))
    (each,) = download.output_in(store)
    download.pull_file(store, each, tmp_path, streams=1)
    there = s3.client.get_object(Bucket=BUCKET, Key="mine/diagnostics.csv")["Body"].read()
    assert (tmp_path / "diagnostics.csv").read_bytes() == there and not halfway["times"]
    halfway["times"] = 1000
    with pytest.raises(hf.HpcframeError, match=r"diagnostics\.csv.*it was replaced or removed while it was read"):
        download.pull_file(store, each, tmp_path / "other", streams=1)
    assert list((tmp_path / "other").iterdir()) == []


def test_initial_values_are_not_mixed_of_two_objects(s3, monkeypatch):
    from hpcframe.staging import remote_file

    monkeypatch.setattr(remote_file, "BLOCK", 1000)
    put(s3, "data/dem.npy", bytes(3000))
    file = remote_file.RemoteFile(f"s3://{BUCKET}/data/dem.npy")
    assert file.read(500) == bytes(500)
    put(s3, "data/dem.npy", b"x" * 3000)
    assert file.read(500) == bytes(500)
    with pytest.raises(hf.HpcframeError, match=r"dem\.npy.*it was replaced or removed while it was read"):
        file.read(10)


def test_output_that_is_archived_is_named_and_the_rest_comes(s3, finished, tmp_path):
    name = "output/step-0000001.h5"
    s3.client.put_object(Bucket=BUCKET, Key=f"mine/{name}", Body=b"x", StorageClass="DEEP_ARCHIVE")
    pulled = pull_output_into(tmp_path / "new")
    assert pulled.returncode == 2 and "1 of 4 file(s)" in pulled.stderr
    assert "restore-object" in pulled.stdout and not (tmp_path / "new" / name).exists()
    assert (tmp_path / "new/diagnostics.csv").exists()


# -- storage that no restart can read ---------------------------------------------------------------------------


def test_checkpoints_never_move_where_they_cannot_be_read_at_once(s3):
    tiers = {"STANDARD_IA": 30, "GLACIER_IR": 60, "GLACIER": 90, "DEEP_ARCHIVE": 180}
    chosen = [f"--tier={kind}:{days}" for kind, days in tiers.items()]
    applied = stage("lifecycle", URL, *chosen, "--apply")
    assert applied.returncode == 0, applied.stderr
    rules = s3.client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    moved = {
        rule["Filter"]["Prefix"]: {each["StorageClass"]: each["Days"] for each in rule["Transitions"]} for rule in rules
    }
    assert moved == {
        "mine/": {"STANDARD_IA": 30, "GLACIER_IR": 60},
        "mine/output/": {"GLACIER": 90, "DEEP_ARCHIVE": 180},
    }
    assert stage("lifecycle", URL, "--apply").returncode == 0
    (rule,) = s3.client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert "Transitions" not in rule and rule["Filter"]["Prefix"] == "mine/"
