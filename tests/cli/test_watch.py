"""watch and consumers: what is printed, run, posted, remembered; and the exit statuses."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import ckptlog
from ckptlog.formats import webhook as webhook_format
from tests.architecture.tree import ROOT
from tests.watch.receiver import Receiver

SECRET = bytes(range(32))
SECRET_TEXT = "whsec_" + base64.b64encode(SECRET).decode()


@pytest.fixture
def call(run, filled):
    return lambda *words: run("--store", filled.path, *words)


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """Return a function that puts secrets where the program looks; the words that say so."""

    def put(how, *texts):
        if how == "environment":
            monkeypatch.setenv("CKPTLOG_WEBHOOK_SECRET", "\n".join(texts))
            return []
        (tmp_path / "secrets").write_text("\n\n".join(texts) + "\n")
        return ["--secret-file", tmp_path / "secrets"]

    return put


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.stop()


def events_of(filled):
    with ckptlog.open(filled.path) as store:
        return list(store.events())


def positions(done):
    return [line["data"]["position"] for line in done.lines]


# --- printing --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_prints_one_cloud_event_a_line(call, filled, words):
    done = call("watch", "--once", *words)
    assert (done.status, done.err) == (0, "")
    wanted = events_of(filled)
    assert [line["type"] for line in done.lines] == [entry.event.type for entry in wanted]
    assert positions(done) == [entry.position for entry in wanted]
    assert {line["specversion"] for line in done.lines} == {"1.0"}


def test_filters(call, filled):
    done = call("watch", "--once", "--type", "failed", "--type", "restored", "--task", "job")
    wanted = [
        entry.position
        for entry in events_of(filled)
        if entry.event.type in {"checkpoint.failed", "checkpoint.restored"}
        and entry.event.subject.task == "job"
    ]
    assert positions(done) == wanted
    assert wanted
    only = call("watch", "--once", "--checkpoint", filled.failed, "--state", "failed")
    assert len(only.lines) == 1


def test_begins_where_it_is_told_and_ends_after_so_many(call, filled):
    last = events_of(filled)[-1].position
    assert positions(call("watch", "--once", "--start", last)) == [last]
    assert positions(call("watch", "--once", "--start", "end")) == []
    assert positions(call("watch", "--limit", 2)) == [0, 1]
    assert positions(call("watch", "--once", "--start", "2100-01-01")) == []
    assert len(call("watch", "--once", "--start", "1h").lines) == last + 1
    assert len(call("watch", "--idle", "0", "--poll", "0.01", "--no-watcher").lines) == last + 1


def test_a_named_consumer_goes_on_where_it_ended(call, filled):
    last = events_of(filled)[-1].position
    assert positions(call("watch", "--consumer", "me", "--limit", 3)) == [0, 1, 2]
    assert positions(call("watch", "--consumer", "me", "--limit", 2)) == [3, 4]
    assert positions(call("watch", "--consumer", "me", "--once")) == list(range(5, last + 1))
    assert call("watch", "--consumer", "me", "--once").out == ""
    again = call("watch", "--consumer", "me", "--once", "--reset", "--start", last)
    assert positions(again) == [last]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--start", "yesterday-ish"], 2),
        (["--start", "999999"], 2),
        (["--idle", "soon"], 2),
        (["--limit", "0"], 2),
        (["--exec", "true", "--webhook", "http://h/"], 2),
        (["--webhook", "ftp://h/"], 2),
        (["--retries", "3"], 2),
        (["--dead-letters", "x"], 2),
        (["--exec", "true", "--secret-file", "x"], 2),
        (["--exec", " "], 2),
        (["--webhook", "http://h/", "--secret-file", "missing"], 6),
        (["--consumer", " a"], 2),
        (["--poll", "0"], 2),
        (["--type", "checkpoint.craeted"], 2),
        (["--type", "chekpoint.*"], 2),
    ],
)
def test_wrong_words(call, words, status):
    done = call("watch", "--once", "--json", *words)
    assert (done.status, done.out) == (status, "")
    assert done.error["code"]


def test_a_slip_in_a_type_is_told_what_was_meant(call):
    done = call("watch", "--type", "created", "--type", "checkpoint.craeted")
    assert (done.status, done.out) == (2, "")
    assert "Did you mean 'checkpoint.created'?" in done.err


def test_a_pattern_of_types(call, filled):
    done = call("watch", "--once", "--type", "checkpoint.*")
    wanted = [one.position for one in events_of(filled) if one.event.type != "task.deleted"]
    assert positions(done) == wanted


def test_a_reader_of_a_read_only_store(run, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ckptlog.repository.layout.refuse_read_only",
        lambda root: (_ for _ in ()).throw(ckptlog.ReadOnlyError("no")),
    )
    assert run("--store", filled.path, "watch", "--once").status == 0
    refused = run("--store", filled.path, "watch", "--once", "--consumer", "me")
    assert refused.status == 6
    assert "--cursors" in refused.err
    words = ["--once", "--consumer", "me", "--cursors", tmp_path / "mine"]
    assert run("--store", filled.path, "watch", *words).lines
    assert run("--store", filled.path, "watch", *words).out == ""
    listed = run("--store", filled.path, "consumers", "list", "--cursors", tmp_path / "mine")
    assert "me" in listed.out
    before = run("--store", filled.path, "consumers", "--cursors", tmp_path / "mine", "list")
    assert before.out == listed.out


# --- commands --------------------------------------------------------------------------------


def test_runs_a_command_for_each_event(call, filled, tmp_path):
    out = tmp_path / "out"
    done = call("watch", "--once", "--consumer", "me", "--exec", f"cat >> {out}")
    assert (done.status, done.out) == (0, "")
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["data"]["position"] for one in found] == [e.position for e in events_of(filled)]
    assert call("watch", "--once", "--consumer", "me", "--exec", "false").status == 0


def test_a_command_that_fails_keeps_its_event(call, tmp_path):
    words = ["watch", "--once", "--consumer", "me", "--retries", "0"]
    fails = 'test "$CKPTLOG_EVENT_POSITION" -lt 2'
    done = call(*words, "--json", "--exec", fails)
    assert done.status == 6
    assert [line["outcome"] for line in done.lines] == ["delivered", "delivered"]
    assert done.error["code"] == "delivery.failed"
    again = call(*words, "--json", "--exec", f"cat > {tmp_path / 'event'}", "--limit", 1)
    assert [line["position"] for line in again.lines] == [2]


def test_dead_letters_let_the_others_go_on_and_the_status_is_not_0(call, filled, tmp_path):
    letters = tmp_path / "dead.jsonl"
    done = call(
        "watch", "--once", "--consumer", "me", "--retries", "0", "--json",
        "--dead-letters", letters, "--exec", 'test "$CKPTLOG_EVENT_POSITION" != 1',
    )  # fmt: skip
    assert done.status == 1
    assert [line["outcome"] for line in done.lines[:3]] == ["delivered", "dead", "delivered"]
    assert len(done.lines) == len(events_of(filled))
    assert done.error["code"] == "cli.partial"
    (letter,) = [json.loads(line) for line in letters.read_text().splitlines()]
    assert letter["event"]["data"]["position"] == 1
    assert "status 1" in letter["reason"]


# --- webhooks --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["file", "environment"])
def test_posts_signed_events(call, filled, receiver, secrets, how):
    words = secrets(how, SECRET_TEXT, base64.b64encode(bytes(24)).decode())
    done = call("watch", "--once", "--webhook", receiver.url, *words)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert len(receiver.got) == len(events_of(filled))
    for _, headers, body in receiver.got:
        stamp = int(headers["webhook-timestamp"])
        wanted = webhook_format.sign([SECRET], headers["webhook-id"], stamp, body)
        first, second = headers["webhook-signature"].split()
        assert first == wanted != second


def test_without_a_secret_it_says_so(call, receiver):
    done = call("watch", "--once", "--limit", 1, "--webhook", receiver.url)
    assert done.status == 0
    assert "not signed" in done.err
    bad = call("watch", "--once", "--webhook", receiver.url, "--secret-file", os.devnull)
    assert bad.status == 2
    assert "base64" in bad.err


def test_a_receiver_that_is_gone_ends_it(call, receiver):
    receiver.plan = [204, 410]
    done = call("watch", "--once", "--consumer", "me", "--webhook", receiver.url)
    assert done.status == 6
    assert "wants no more events" in done.err
    again = call("watch", "--limit", 1, "--consumer", "me", "--webhook", receiver.url, "--json")
    assert [line["position"] for line in again.lines] == [1]


# --- a process of its own --------------------------------------------------------------------


def start(*words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "ckptlog", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_it_with_everything_printed_acknowledged(filled, number, status):
    count = len(events_of(filled))
    process = start("--store", filled.path, "watch", "--consumer", "me")
    lines = [process.stdout.readline() for _ in range(count)]
    assert [json.loads(line)["data"]["position"] for line in lines] == list(range(count))
    with ckptlog.CheckpointManager(filled.path) as manager:
        manager.create_checkpoint("job", "A job", 9)
    assert json.loads(process.stdout.readline())["data"]["position"] == count
    time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in err
    with ckptlog.open(filled.path) as store:
        (consumer,) = store.consumers()
    assert (consumer.position, consumer.holder) == (count + 1, "")


def test_a_reader_that_goes_away_ends_it(filled):
    process = start("--store", filled.path, "watch", "--consumer", "me")
    process.stdout.readline()
    process.stdout.close()
    with ckptlog.CheckpointManager(filled.path) as manager:
        for step in range(3):
            manager.create_checkpoint("job", "A job", step + 1)
            time.sleep(0.05)
    assert process.wait(60) == 141
    process.stderr.close()


def test_a_second_one_of_a_name_is_refused_with_the_process(filled, call):
    process = start("--store", filled.path, "watch", "--consumer", "me")
    process.stdout.readline()
    done = call("watch", "--once", "--consumer", "me", "--json")
    assert done.status == 6
    assert done.error["code"] == "consumer.busy"
    assert str(process.pid) in done.error["message"]
    listed = call("consumers", "list", "--json").lines
    assert str(process.pid) in listed[0]["holder"]
    assert call("consumers", "remove", "me").status == 6
    process.terminate()
    process.communicate(timeout=60)


# --- consumers -------------------------------------------------------------------------------


def test_consumers(call, filled):
    for words in (["consumers"], ["consumers", "list"]):
        done = call(*words)
        assert (done.status, done.out, done.err) == (0, "", "no named consumer\n")
    count = len(events_of(filled))
    call("watch", "--consumer", "me", "--limit", 2)
    (line,) = call("consumers", "list", "--json").lines
    assert (line["name"], line["position"], line["lag"]) == ("me", 2, count - 2)
    assert (line["holder"], line["fault"]) == ("", "")
    assert call("consumers", "--json").lines == [line]
    table = call("consumers").out.splitlines()
    assert table[0].split()[:3] == ["CONSUMER", "POSITION", "LAG"]
    assert table[1].split()[:3] == ["me", "2", str(count - 2)]
    assert call("consumers", "reset", "me").out == "me begins at position 0.\n"
    moved = call("consumers", "reset", "me", "--start", "end", "--json")
    assert moved.document == {"consumer": "me", "position": count}
    assert call("consumers", "remove", "me", "--json").document["removed"] is True
    assert call("consumers", "remove", "me").status == 3
    assert call("consumers", "reset", "me", "--start", "nowhere").status == 2


def test_a_damaged_cursor_is_told_and_can_be_reset(call, filled):
    call("watch", "--consumer", "me", "--limit", 2)
    path = filled.path / "consumers" / "me.cursor"
    path.write_bytes(path.read_bytes()[:100])
    done = call("watch", "--once", "--consumer", "me", "--json")
    assert (done.status, done.out, done.error["code"]) == (5, "", "consumer.damaged")
    assert "ckptlog consumers reset" in done.error["hint"]
    assert "consumer.damaged" in call("consumers", "list").out
    assert call("consumers", "reset", "me", "--start", "1").status == 0
    assert positions(call("watch", "--consumer", "me", "--limit", 1)) == [1]


def test_a_store_that_was_set_back_is_told(call, run, filled, tmp_path):
    import shutil

    backup = tmp_path / "backup"
    shutil.copytree(filled.path, backup)
    with ckptlog.CheckpointManager(filled.path) as manager:
        manager.create_checkpoint("job", "A job", 9)
    call("watch", "--once", "--consumer", "me")
    shutil.copytree(filled.path / "consumers", backup / "consumers", dirs_exist_ok=True)
    with ckptlog.CheckpointManager(backup) as manager:
        manager.create_checkpoint("job", "Another job", 9)
    done = run("--store", backup, "watch", "--once", "--consumer", "me", "--json")
    assert (done.status, done.out, done.error["code"]) == (4, "", "log.other_timeline")
