"""`ckptlog audit`: who did what, when, to which task."""

from __future__ import annotations

import json

import pytest

import ckptlog
from ckptlog.cli import audit as command


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    with ckptlog.CheckpointManager(path, actor="ada@laptop") as manager:
        first = manager.create_checkpoint(
            "report", "R", 1, total_steps=3, data={"password": "hunter22", "evil": "\x1b[2J"}
        )
        manager.complete_checkpoint(first)
        second = manager.create_checkpoint("report", "R", 3, total_steps=3, worker_id="w\u202e1")
        for _ in range(3):
            manager.fail_checkpoint(second, actor="bob")
            manager.restore_checkpoint(second)
        manager.create_checkpoint("other", "O", 1, namespace="side")
        manager.delete_task("report")
    return path


@pytest.fixture
def call(run, store):
    return lambda *words: run("--store", store, "audit", *words)


def kinds(done):
    return [(line["kind"], line.get("name", line.get("position"))) for line in done.lines]


def test_tables(call):
    done = call()
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "POSITION",
        "TIME",
        "ACTOR",
        "ACTION",
        "TASK",
        "CHECKPOINT",
        "STEP",
        "DETAIL",
    ]
    assert len([line for line in lines[:12] if " bob " in line and " failed " in line]) == 3
    assert "1 secret replaced" in lines[1]
    assert "checkpoints=2" in done.out
    assert lines[13].split() == [
        "LEVEL",
        "ANOMALY",
        "POSITION",
        "TIME",
        "ACTOR",
        "TASK",
        "CHECKPOINT",
        "WHAT",
    ]
    assert [line.split()[:3] for line in lines[14:18]] == [
        ["info", "secrets-replaced", "0"],
        ["warning", "step-gap", "2"],
        ["warning", "repeated-failures", "7"],
        ["warning", "repeated-restores", "8"],
    ]
    assert lines[-1].startswith("11 events of 11; 4 anomalies: repeated-failures 1, ")


def test_lines_of_json(call):
    for done in (call("--json"), call("--format", "jsonl")):
        assert (done.status, done.err) == (0, "")
        assert len(kinds(done)) == 11 + 4 + 1
        assert kinds(done)[:2] == [("event", 0), ("anomaly", "secrets-replaced")]
        summary = done.lines[-1]
        assert (summary["kind"], summary["events"], summary["read"]) == ("summary", 11, 11)
        assert sum(summary["anomalies"].values()) == 4


def test_cloud_events_are_those_of_the_log(call, store):
    from ckptlog.formats.cloud_event import cloud_event

    done = call("--format", "cloudevents", "--task", "report", "--json")
    assert done.status == 0
    with ckptlog.open(store) as opened:
        wanted = [
            cloud_event(one.entry, one.leaf, opened.id)
            for one in opened.audit(task="report", anomalies=False)
        ]
    assert done.lines == json.loads(json.dumps(wanted))
    assert len(wanted) == 10


@pytest.mark.parametrize(
    ("words", "positions"),
    [
        (("--actor", "bob"), [3, 5, 7]),
        (("--task", "other", "--task", "report"), list(range(11))),
        (("--type", "failed", "--type", "task.deleted"), [3, 5, 7, 10]),
        (("--type", "checkpoint.f*", "--type", "task.*"), [3, 5, 7, 10]),
        (("--worker", "w\u202e1", "--type", "created"), [2]),
        (("--namespace", "side"), [9]),
        (("--from", 9), [9, 10]),
        (("--from", 3, "--to", 4), [3, 4]),
        (("--to", 0), [0]),
        (("--since", "2000-01-01", "--to", 1), [0, 1]),
        (("--until", "2000-01-01"), []),
        (("--since", "1h", "--actor", "nobody"), []),
    ],
    ids=str,
)
def test_conditions(call, words, positions):
    done = call("--json", "--anomalies", "none", *words)
    assert done.status == 0
    assert [line["position"] for line in done.lines[:-1]] == positions
    assert done.lines[-1]["anomalies"] == {}


def test_one_checkpoint(call):
    first = call("--json", "--to", 0).lines[0]["checkpoint"]
    assert [line["position"] for line in call("--json", "--checkpoint", first).lines[:-1]] == [
        0,
        0,
        1,
    ]


def test_anomalies_alone_and_none(call):
    done = call("--json", "--anomalies", "only")
    assert {line["kind"] for line in done.lines} == {"anomaly", "summary"}
    done = call("--anomalies", "only", "--anomaly", "step-gap")
    assert done.out.splitlines()[0].startswith("LEVEL")
    assert "1 anomaly: step-gap 1." in done.out
    done = call("--anomalies", "none")
    assert "LEVEL" not in done.out
    assert done.out.splitlines()[-1] == "11 events of 11."


def test_check(call):
    done = call("--check", "--anomalies", "only")
    assert (done.status, "3 anomalies" in done.err, "cli.audit" in done.err) == (1, True, True)
    done = call("--json", "--check", "info", "--anomalies", "none")
    assert (done.status, done.error["code"]) == (1, "cli.audit")
    assert done.error["context"] == {"anomalies": 4}
    assert {line["kind"] for line in done.lines} == {"event", "summary"}
    assert call("--check", "--format", "cloudevents").status == 1
    assert call("--check", "--anomaly", "secrets-replaced").status == 0
    assert call("--check", "info", "--anomaly", "secrets-replaced").status == 1
    assert call("--check", "--task", "other").status == 0


def test_thresholds_and_now(call):
    strict = ("--json", "--anomalies", "only", "--threshold", "failures_min=1")
    assert [line.get("position") for line in call(*strict, "--anomaly", "repeated-failures").lines][
        :1
    ] == [3]
    ahead = call("--json", "--now", "2020-01-01", "--anomaly", "clock-ahead").lines[-1]
    assert ahead["anomalies"] == {"clock-ahead": 1}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--anomaly", "step"), "step-gap"),
        (("--threshold", "failures_min"), "failures_min"),
        (("--threshold", "patience=1"), "stuck_after_s"),
        (("--threshold", "failures_min=few"), "failures_min"),
        (("--threshold", "failures_min=0"), "from 1 on"),
        (("--threshold", "stuck_after_s=nan"), "stuck_after_s"),
        (("--type", "checkpoint.craeted"), "Did you mean 'checkpoint.created'?"),
        (("--type", "deletd.*"), "The types are: "),
    ],
    ids=str,
)
def test_what_cannot_be_meant(call, words, hint):
    done = call("--json", *words)
    assert (done.status, done.out, done.error["code"]) == (2, "", "argument.invalid")
    assert hint in done.error["message"] + done.error["hint"]


def test_what_is_stored_does_not_reach_the_terminal_raw(call, store):
    with ckptlog.CheckpointManager(store, actor="m\u202eallory") as manager:
        manager.create_checkpoint("t\u202easks", "T", 1)
    done = call()
    assert "\u202e" not in done.out
    assert "m\\u202eallory" in done.out


def test_long_logs_come_in_pages(call, monkeypatch):
    monkeypatch.setattr(command, "_PAGE_ROWS", 4)
    monkeypatch.setattr(command, "_SHOWN_MAX", 2)
    done = call()
    assert done.out.count("POSITION") == 3 + 1
    assert done.err == "showing 2 of 4 anomalies (--json shows all)\n"


def test_the_bounds_on_memory_are_told(call):
    done = call("--threshold", "tracked_max=1")
    assert "anomalies may be missing" in done.err
    assert "tasks 1" in done.err
    assert call("--json", "--threshold", "tracked_max=1").lines[-1]["forgotten"]


def test_an_empty_store(run, tmp_path):
    with ckptlog.open(tmp_path / "s", create=True):
        pass
    done = run("--store", tmp_path / "s", "audit", "--check")
    assert (done.status, done.out) == (0, "0 events of 0; 0 anomalies.\n")


def test_damage(call, store):
    from tests.cli.test_reading_commands import damage

    damage(store, near=b"task.deleted")
    done = call("--json")
    assert (done.status, done.error["code"]) == (5, "log.corrupt")
    assert done.lines[0]["position"] == 0
