"""On Lustre the files of a checkpoint are spread over storage targets. `lfs` is a program that writes down how it is
called."""

import sys
from pathlib import Path

import pytest

from hpcframe.checkpoint.striping import plan_stripes, stripe

MIB, GIB = 2**20, 2**30
TARGETS = b"OBDS:\n" + b"".join(b"%d: fsx-OST%04x_UUID ACTIVE\n" % (index, index) for index in range(8))
LFS = """#!{python}
import sys
with open({calls!r}, "a") as calls:
    print(*sys.argv[1:], sep="\\t", file=calls)
{body}
"""


class Lustre:
    """A folder that is taken to be on Lustre, and an `lfs` that answers as it is told."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "the scratch" / "checkpoints"
        self.folder.mkdir(parents=True)
        self.programs = root / "bin"
        self.programs.mkdir()
        self.calls = root / "calls"
        self.mounts = root / "mounts"
        self.mount("ext4", Path("/"))
        self.mount("lustre", self.folder.parent)
        self.answer(TARGETS)

    def mount(self, kind: str, place: Path) -> None:
        """Mount it over what is there, in the words of the kernel, which writes a space as \\040."""
        with open(self.mounts, "a") as table:
            table.write(f"somewhere {str(place).replace(' ', chr(92) + '040')} {kind} rw 0 0\n")

    def answer(self, targets: bytes = TARGETS, body: str = "") -> None:
        """What `lfs osts` prints; `body`: Python that comes before it."""
        text = f"{body}\nif sys.argv[1] == 'osts':\n    sys.stdout.buffer.write({targets!r})"
        program = self.programs / "lfs"
        program.write_text(LFS.format(python=sys.executable, calls=str(self.calls), body=text))
        program.chmod(0o755)

    def stripe(self, size: int, *options: int) -> str:
        return stripe(self.folder, size, *options, mounts=self.mounts)

    @property
    def set(self) -> list[str]:
        """The arguments of the one `lfs setstripe`, without the folder, which comes last."""
        calls = [line.split("\t") for line in self.calls.read_text().splitlines()]
        (arguments,) = [call[1:] for call in calls if call[0] == "setstripe"]
        assert arguments.pop() == str(self.folder)
        return arguments


@pytest.fixture
def lustre(tmp_path, monkeypatch):
    made = Lustre(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs))
    return made


def test_a_large_file_goes_over_all_targets(lustre):
    said = lustre.stripe(500 * GIB)
    assert lustre.set == ["-c", "-1", "-S", str(16 * MIB)]
    assert "all storage target(s) of 8, stripes of 16 MiB, for files of up to 537 GB" in said
    assert str(lustre.folder) in said
    assert "\n" not in said


def test_a_small_file_goes_to_one(lustre):
    lustre.stripe(3 * MIB)
    assert lustre.set == ["-c", "1", "-S", str(16 * MIB)]


def test_the_user_can_say(lustre):
    said = lustre.stripe(500 * GIB, 4, 64 * MIB)
    assert lustre.set == ["-c", "4", "-S", str(64 * MIB)]
    assert "4 storage target(s) of 8, stripes of 64 MiB, as asked" in said


def test_a_target_that_is_off_is_not_counted(lustre):
    lustre.answer(b"OBDS:\n0: fsx-OST0000_UUID ACTIVE\n1: fsx-OST0001_UUID INACTIVE\n2: fsx-OST0002_UUID ACTIVE\n")
    assert "of 2," in lustre.stripe(GIB)


def test_without_lfs_nothing_happens(lustre, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert lustre.stripe(GIB) == ""


def test_elsewhere_nothing_happens(lustre):
    lustre.mount("nfs4", lustre.folder.parent)
    assert lustre.stripe(GIB) == ""
    assert not lustre.calls.exists()


def test_what_is_mounted_within_lustre_is_not_lustre(lustre):
    lustre.mount("tmpfs", lustre.folder)
    assert lustre.stripe(GIB) == ""


def test_this_machine_is_asked_where_no_table_is_given(tmp_path, lustre):
    """Its temporary folder is on no Lustre, and an `lfs` alone changes nothing."""
    assert stripe(tmp_path, GIB) == ""


@pytest.mark.parametrize("targets", [b"", b"no such device\n", b"\xff\x00 ACTIVE"])
def test_a_wrong_answer_leaves_the_number_of_targets_open(lustre, targets):
    lustre.answer(targets)
    said = lustre.stripe(500 * GIB)
    assert lustre.set == ["-c", "-1", "-S", str(16 * MIB)]
    assert "of an unknown number (`lfs osts` names none)" in said


def test_a_failure_is_told_with_what_lfs_said(lustre):
    lustre.answer(body="if sys.argv[1] == 'setstripe':\n    sys.exit('error: Permission denied')")
    said = lustre.stripe(500 * GIB)
    assert "keeps the striping it had" in said
    assert "`lfs setstripe` failed: error: Permission denied" in said


def test_an_lfs_that_does_not_answer_is_given_up(lustre, monkeypatch):
    monkeypatch.setattr("hpcframe.lustre.PATIENCE", 0.5)
    lustre.answer(body="import time\ntime.sleep(60)")
    said = lustre.stripe(500 * GIB)
    assert "`lfs osts` did not answer" in said
    assert "`lfs setstripe` did not answer" in said


def test_an_lfs_that_cannot_be_started_is_told(lustre):
    (lustre.programs / "lfs").write_text("#!/nowhere/python\n")
    assert "lfs cannot be started" in lustre.stripe(500 * GIB)


@pytest.mark.parametrize(
    ("size", "servers", "count"),
    [
        (0, 8, 1),
        (GIB, 8, 1),
        (GIB + 1, 8, 2),
        (5 * GIB, 8, 5),
        (8 * GIB, 8, -1),
        (500 * GIB, 8, -1),
        (500 * GIB, 0, -1),
        (1, 0, 1),
        (1, 1, 1),
    ],
)
def test_the_number_of_targets_follows_from_size_and_servers(size, servers, count):
    assert plan_stripes(size, servers, 0, 0) == (count, 16 * MIB)


def test_a_stripe_is_rounded_up_to_what_lustre_takes():
    assert plan_stripes(GIB, 8, 0, 1_000_000)[1] == 2**20
    assert plan_stripes(GIB, 8, -1, 1) == (-1, 2**16)
