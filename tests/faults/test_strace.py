"""Real system calls that fail, and a real kill at each of them, by strace's fault injection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.log.sample import create_log, fill, open_log, published_ids

pytestmark = pytest.mark.strace

PROJECT = Path(__file__).parents[2]
CHANGES = "pwrite64,fdatasync,fsync,ftruncate,flock,rename"
APPENDS = 4
# Every other append begins a new segment.
SEGMENT_BYTES = 9_000
RECORD_BYTES = 1_000


def writer(root: Path, name: str = "w", count: int = APPENDS) -> list[str]:
    script = str(PROJECT / "tests" / "faults" / "log_writer.py")
    sizes = [str(SEGMENT_BYTES), str(RECORD_BYTES)]
    return [sys.executable, script, str(root), name, str(count), *sizes]


def plain() -> dict[str, str]:
    """Return an environment in which the writer's system calls are all its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return {**kept, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: list[str], *inject: str) -> str:
    """Run a command, under strace where faults are named; return what it said."""
    if inject:
        faults = [word for fault in inject for word in ("-e", f"inject={fault}")]
        command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={CHANGES}", *faults,
                   *command]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=plain(), timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    return done.stdout


class Told:
    """What a writer said: which commits are certain, in doubt, or certainly not there."""

    def __init__(self, text: str) -> None:
        self.acknowledged: list[str] = []
        self.doubtful: list[list[str]] = []
        self.refused: list[str] = []
        tried: list[str] = []
        for line in text.splitlines():
            word, *ids = line.split()
            if word == "try":
                tried = ids
                continue
            if word == "ack":
                self.acknowledged += tried
            elif word == "unknown":
                self.doubt(tried)
            elif word == "refused":
                self.refused += tried
            tried = []
        self.doubt(tried)
        self.is_closed = text.endswith("closed\n")
        self.text = text

    def doubt(self, ids: list[str]) -> None:
        if ids:
            self.doubtful += [ids[:1], ids[1:]]

    def check(self, seen: list[str]) -> None:
        mine = [name for name in seen if name in self.text]
        for names in self.doubtful:
            assert [name for name in names if name in mine] in ([], names), "in part"
        doubtful = {name for names in self.doubtful for name in names}
        assert [name for name in mine if name not in doubtful] == self.acknowledged
        assert not set(self.refused) & set(mine)


def check_log(root: Path, *told: Told) -> None:
    """Before and after recovery; then it goes on."""
    reader = open_log(root, read_only=True)
    shown = published_ids(reader)
    reader.close()
    log = open_log(root, segment_bytes=SEGMENT_BYTES)
    fill(log, ["after"])
    seen = published_ids(log)
    log.close()
    assert seen[: len(shown)] == shown
    assert seen[-1] == "after"
    for one in told:
        one.check(seen)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    log = create_log(root, segment_bytes=SEGMENT_BYTES)
    fill(log, ["before"])
    log.close()
    return root


def sweep(ram: Path, fault: str, numbers: range) -> list[Told]:
    """Run one writer for each n, with the fault at the n-th call; return what each said."""
    told = []
    for number in numbers:
        root = ram / str(number)
        create_log(root, segment_bytes=SEGMENT_BYTES).close()
        told.append(Told(run(writer(root), f"{fault}:when={number}")))
        check_log(root, told[-1])
    return told


def test_without_faults_all_is_acknowledged(root):
    told = Told(run(writer(root)))
    assert told.is_closed
    assert len(told.acknowledged) == 3 * APPENDS
    check_log(root, told)


@pytest.mark.parametrize("name", ["fdatasync", "pwrite64"])
def test_an_input_output_error_once(ram, name):
    told = sweep(ram, f"{name}:error=EIO", range(2, 9, 2))
    assert any(one.doubtful for one in told)
    assert all(one.is_closed and one.acknowledged for one in told)


def test_an_input_output_error_from_some_sync_on(ram):
    (told,) = sweep(ram, "fdatasync:error=EIO", range(3, 4))
    assert told.is_closed
    root = ram / "lasting"
    create_log(root, segment_bytes=SEGMENT_BYTES).close()
    told = Told(run(writer(root), "fdatasync,fsync:error=EIO:when=2+"))
    assert len(told.acknowledged) == 3
    check_log(root, told)


def test_a_sync_error_beside_a_second_writer_that_waits(root):
    """The other one's sync succeeds; it must not show what it never wrote itself."""
    other = subprocess.Popen(
        writer(root, "other", 25),
        stdout=subprocess.PIPE,
        text=True,
        env=plain(),
    )
    told = Told(run(writer(root, "mine", 8), "fdatasync:error=EIO:when=2+3"))
    text, _ = other.communicate(timeout=120)
    assert told.doubtful
    assert Told(text).is_closed
    check_log(root, told, Told(text))


def test_a_full_disk(ram):
    told = sweep(ram, "pwrite64:error=ENOSPC", range(1, 8, 2))
    assert any(one.refused for one in told)
    assert all(one.is_closed and one.acknowledged for one in told)


def test_a_disk_that_stays_full(root):
    told = Told(run(writer(root), "pwrite64:error=ENOSPC:when=4+"))
    assert told.acknowledged
    assert told.refused
    check_log(root, told)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("pwrite64", range(1, 8, 2)), ("fdatasync", range(1, 6, 2)), ("fsync", range(1, 2))],
)
def test_a_kill_at_some_system_calls(ram, name, numbers):
    told = sweep(ram, f"{name}:signal=SIGKILL", numbers)
    assert not any(one.is_closed for one in told)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CHANGES.split(","))
def test_a_kill_at_every_system_call(ram, name):
    told = sweep(ram, f"{name}:signal=SIGKILL", range(1, 26))
    assert told[0].is_closed == (name == "rename")
    assert told[-1].is_closed


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fdatasync", "pwrite64", "fsync", "ftruncate"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_error_at_every_call(ram, name, error):
    assert sweep(ram, f"{name}:error={error}", range(1, 16))
