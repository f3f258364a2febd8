"""`ckptlog bisect`: since when something is true, by an expression or by a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ckptlog


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    with ckptlog.CheckpointManager(path, actor="ada@laptop") as manager:
        manager.create_checkpoint(
            "report", "R", 1, data={"words": 0, "evil": "\x1b[2J"}, checkpoint_id="r\u202e1"
        )
        for number in range(1, 20):
            manager.update_checkpoint("r\u202e1", data={"words": 10 * number})
    return path


@pytest.fixture
def call(run, store):
    return lambda *words: run("--store", store, "bisect", *words)


ALONG = ("--task", "report")


def test_by_an_expression(call):
    done = call(*ALONG, "--expression", "data.words > 120")
    assert done.status == 0
    assert done.out.startswith("True since event 13.")
    assert "false before  12" in done.out
    assert "Assumed: what is once true stays true." in done.out
    assert "\u202e" not in done.out
    told = [line for line in done.err.splitlines() if line.startswith("after ")]
    assert ("after 13: true" in told, "after 12: false" in told) == (True, True)


def test_as_json(call):
    done = call("--checkpoint", "r\u202e1", "--expression", "data.words > 120", "--json")
    assert (done.status, done.err) == (0, "")
    found = done.document
    assert (found["position"], found["previous"], found["search"]) == (13, 12, "binary")
    assert found["checkpoint_id"] == "r\u202e1"


@pytest.mark.parametrize("linear", [(), ("--linear",)])
def test_by_a_command(call, linear):
    script = "import json, sys; sys.exit(json.load(sys.stdin)['data']['words'] <= 120)"
    done = call(*ALONG, "--json", *linear, "--", sys.executable, "-c", script)
    assert done.status == 0
    assert done.document["position"] == 13


def test_a_command_is_told_where_it_is(call, tmp_path):
    seen = tmp_path / "seen"
    script = f'echo "$CKPTLOG_POSITION $CKPTLOG_CHECKPOINT $CKPTLOG_TASK" >> {seen}; exit 1'
    assert call(*ALONG, "--json", "--from", 3, "--to", 3, "--", "sh", "-c", script).status == 3
    assert seen.read_text(encoding="utf-8") == "3 r\u202e1 report\n"


def test_a_command_that_cannot_tell(call):
    script = '[ "$CKPTLOG_POSITION" = 7 ] && exit 125; [ "$CKPTLOG_POSITION" -gt 7 ]'
    done = call(*ALONG, "--json", "--", "sh", "-c", script)
    assert (done.status, done.document["position"], done.document["previous"]) == (0, 8, 6)
    assert done.document["doubtful"] == [7]
    done = call(*ALONG, "--", "sh", "-c", script)
    assert "may be one of these: 7." in done.out
    assert "after 7: unknown" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sh", "-c", "echo broken >&2; exit 7"), "status 7 and said: broken"),
        (("sh", "-c", "kill -9 $$"), "signal 9"),
        (("no-such-program",), "cannot be run"),
        (("a\0b",), "cannot be run"),
        (("sh", "-c", "exit 2"), "status 2"),
        (("sh", "-c", "exit 126"), "status 126"),
    ],
    ids=str,
)
def test_a_command_that_does_not_work_is_no_answer(call, words, said):
    done = call(*ALONG, "--json", "--", *words)
    assert (done.status, done.out, done.error["code"]) == (2, "", "argument.invalid")
    assert said in done.error["message"]


def test_a_command_that_takes_too_long_ends_with_all_it_has_started(call, tmp_path):
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; wait"
    done = call(*ALONG, "--timeout", 1, "--", "sh", "-c", script)
    assert (done.status, "longer than 1 s" in done.err) == (2, True)
    child = int(pid.read_text())
    deadline = time.monotonic() + 20
    while _is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_interrupted_search_ends_its_command(store, tmp_path):
    started = tmp_path / "started"
    words = ["--store", str(store), "bisect", *ALONG, "--", "sh", "-c"]
    # When it has read everything, the search is waiting for it.
    tell = f"echo $$ > {started}.tmp; mv {started}.tmp {started}"
    words.append(f"cat > /dev/null; {tell}; exec sleep 60")
    with subprocess.Popen(
        [sys.executable, "-m", "ckptlog", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 30
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert not _is_running(int(started.read_text()))


def test_an_interruption_while_a_command_starts_ends_it(call, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    # A shell's background job is started deaf to it.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert call(*ALONG, "--", "sleep", "60").status == 130
    finally:
        signal.signal(signal.SIGINT, former)
    assert len(started) == 1
    assert not Path(f"/proc/{started[0]}").exists()  # killed, and waited for


def test_a_command_that_does_not_read(call):
    assert call(*ALONG, "--", "true").status == 0


def test_it_is_not_found(call):
    done = call(*ALONG, "--expression", "data.words > 1000")
    assert (done.status, "[cli.bisect]" in done.err) == (3, True)
    assert "--linear asks about every event." in done.err
    done = call(*ALONG, "--json", "--linear", "--expression", "data.wrods > 1000")
    assert (done.status, done.error["code"]) == (3, "cli.bisect")
    assert done.document["unseen_paths"] == ["data.wrods"]
    assert done.document["asked"] == 20
    done = call(*ALONG, "--expression", "data.wrods > 1000")
    assert "no checkpoint that was asked about has data.wrods" in done.err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--expression", "true"), 2),
        ((*ALONG, "--checkpoint", "x", "--expression", "true"), 2),
        (ALONG, 2),
        ((*ALONG, "--expression", "true", "--", "true"), 2),
        ((*ALONG, "--expression", "words > 3"), 2),
        (("--task", "nobody", "--expression", "true"), 3),
        (("--checkpoint", "nobody", "--", "true"), 3),
        ((*ALONG, "--timeout", "0", "--", "true"), 2),
    ],
    ids=str,
)
def test_what_cannot_be_meant(call, words, status):
    done = call("--json", *words)
    assert (done.status, done.out) == (status, "")
    assert done.error["code"]


def test_options_of_the_command_are_its_own(call):
    done = call(*ALONG, "--", "test", "--json")
    assert done.status == 0
    assert done.out.startswith("True since event 0.")


def test_nothing_is_changed(call, store):
    with ckptlog.open(store) as opened:
        before = opened.position
    call(*ALONG, "--", "true")
    with ckptlog.open(store) as opened:
        assert opened.position == before
    assert os.path.exists(store)
