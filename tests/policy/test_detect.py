"""Each anomaly in a log that has it, and none in a log that almost has it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ckptlog.errors import ArgumentError
from ckptlog.policy import anomaly
from ckptlog.policy.anomaly import LEVELS, Thresholds
from ckptlog.policy.detect import Detector
from tests.architecture.tree import ROOT
from tests.policy.story import BEGIN, Story

MEBIBYTE = 1024 * 1024


@pytest.fixture
def story():
    return Story()


def found(story, *, now=None, **thresholds):
    """Return (name, position) of what a detector tells of a story."""
    detector = Detector(now or story.time, Thresholds(**thresholds))
    told = [one for entry in story.entries for one in detector.apply(entry)]
    told += detector.finish()
    return [(one.name, one.at.position) for one in told]


def test_a_quiet_log_has_none(story):
    for step in range(1, 30):
        story.say("created", f"cp{step}", step=step, total=30, size=1000)
        story.say("updated", f"cp{step}", step=step, total=30, size=2000)
        story.say("completed", f"cp{step}", step=step, total=30, size=2000)
    story.say("cleanup.finished", task="")
    assert found(story) == []


# --- the clock ------------------------------------------------------------------------------------


def test_clock_backwards(story):
    story.say("created", "a")
    story.wait(-2.000_001)
    story.say("created", "b")
    story.wait(-1)
    story.say("created", "c")  # the same time as before
    story.wait(-4)
    story.say("created", "d")
    assert found(story, now=BEGIN + timedelta(days=1)) == [
        ("clock-backwards", 1),
        ("clock-backwards", 3),
    ]


def test_almost_clock_backwards(story):
    story.say("created", "a")
    story.wait(-2)  # one second back: the tolerance
    story.say("created", "b")
    assert found(story, now=BEGIN + timedelta(days=1)) == []
    assert found(story, now=BEGIN + timedelta(days=1), clock_tolerance_s=0.999_999) == [
        ("clock-backwards", 1)
    ]


def test_a_time_that_is_none_is_not_judged(story):
    for time in ("yesterday", "", "9", "9999-99-99T00:00:00.000000Z"):
        story.say("created", f"cp {time}")
        story.entries[-1] = _at_time(story.entries[-1], time)
    story.say("updated", "no zone")
    story.entries[-1] = _at_time(story.entries[-1], "2026-01-02T03:00:00")
    story.say("deleted", "cp 9")
    story.entries[-1] = _at_time(story.entries[-1], "z")
    later = BEGIN + timedelta(days=9)
    names = {name for name, _ in found(story, now=later, deletes_min=1)}
    assert names == {"clock-ahead", "stuck-active"}  # text compares as text; no zone is UTC


def _at_time(entry, time):
    import msgspec

    event = msgspec.structs.replace(entry.event, time=time)
    return msgspec.structs.replace(entry, event=event)


def test_clock_ahead_once_for_neighbours(story):
    story.say("created", "a")
    story.wait(59.999_999 + 1)
    story.say("created", "b")  # 61.999999 s
    story.say("created", "c")
    story.wait(-60)
    story.say("created", "d")
    story.wait(100)
    story.say("created", "e")
    now = BEGIN + timedelta(seconds=1)
    ahead = [position for name, position in found(story, now=now) if name == "clock-ahead"]
    assert ahead == [1, 4]


def test_almost_clock_ahead(story):
    story.say("created", "a")
    assert found(story, now=BEGIN - timedelta(seconds=59)) == []
    assert found(story, now=BEGIN - timedelta(seconds=59, microseconds=1)) == [("clock-ahead", 0)]


# --- steps ----------------------------------------------------------------------------------------


def test_step_gap(story):
    story.say("created", "a", step=1)
    story.say("created", "b", step=3)
    story.say("updated", "b", step=6)
    story.say("created", "c", task="other", step=2)
    assert found(story) == [("step-gap", 1), ("step-gap", 2), ("step-gap", 3)]


def test_what_is_missing_is_named(story):
    detector = Detector(BEGIN + timedelta(days=1))
    told = [detector.apply(story.say("created", f"a{step}", step=step)) for step in (2, 4, 9)]
    assert [one.message for (one,) in told] == [
        "Step 2 follows nothing: 1 missing.",
        "Step 4 follows 2: 3 missing.",
        "Step 9 follows 4: 5 to 8 missing.",
    ]
    assert told[2][0].facts == {"missing_from": 5, "missing_to": 8}


def test_step_gap_after_the_task_was_deleted(story):
    for step in (1, 2, 3):
        story.say("created", f"a{step}", step=step)
    story.say("task.deleted", facts={"checkpoints": 3})
    story.say("created", "b", step=4)
    assert found(story) == [("step-gap", 4)]


def test_almost_step_gap(story):
    for step in (1, 2, 3, 1, 2, 4, 2, 5):  # back, and on from the greatest
        story.say("created", f"a{len(story.entries)}", step=step)
    story.say("deleted", "a0", step=1)
    story.say("import.finished", task="t")
    assert found(story) == []


def test_step_beyond_total(story):
    story.say("created", "a", step=1, total=1)
    story.say("created", "b", step=2, total=1)
    story.say("updated", "b", step=2, total=1)
    story.say("updated", "b", step=2, total=2)
    story.say("created", "c", step=3, total=2)
    assert found(story) == [("step-beyond-total", 1), ("step-beyond-total", 4)]


def test_almost_step_beyond_total(story):
    story.say("created", "a", step=1, total=1)
    story.say("created", "b", step=2)  # the total is not known
    assert found(story) == []


# --- open checkpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("updated", "active"), ("restored", "restored")])
def test_stuck(story, kind, name):
    story.say("created", "a")
    story.say(kind, "a")
    story.say("created", "b", step=2)
    at = story.entries[1].event.time
    assert at.endswith("03:00:02.000000Z")
    now = BEGIN + timedelta(days=1, seconds=2)
    assert found(story, now=now) == []
    assert found(story, now=now + timedelta(microseconds=1)) == [(f"stuck-{name}", 1)]


@pytest.mark.parametrize("end", ["completed", "failed", "deleted", "task.deleted"])
def test_almost_stuck(story, end):
    story.say("created", "a")
    story.say("updated", "a")
    story.say(end, "a")
    assert found(story, now=BEGIN + timedelta(days=30)) == []


def test_stuck_ones_in_the_order_of_their_last_events(story):
    for name in "abc":
        story.say("created", name)
        story.say("updated", name)
    story.say("updated", "a")
    assert found(story, now=BEGIN + timedelta(days=30)) == [
        ("stuck-active", 3),
        ("stuck-active", 5),
        ("stuck-active", 6),
    ]


# --- failures and restores ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [("failed", "repeated-failures"), ("restored", "repeated-restores")]
)
def test_repeated(story, kind, name):
    story.say("created", "a")
    for _ in range(5):
        story.say(kind, "a")
    story.say("completed", "a")
    for _ in range(3):
        story.say(kind, "a")
    assert found(story) == [(name, 3), (name, 9)]


@pytest.mark.parametrize("kind", ["failed", "restored"])
def test_almost_repeated(story, kind):
    story.say("created", "a")
    for _ in range(3):
        story.say(kind, "a")
        story.say(kind, "a")
        story.say("completed", "a")
    story.say(kind, "a")
    story.say("task.deleted")
    story.say(kind, "b")
    story.say(kind, "b")
    story.say(kind, "other", task="other")
    assert found(story) == []


# --- deletes --------------------------------------------------------------------------------------


def test_delete_burst(story):
    for number in range(25):
        story.say("deleted", f"a{number}")
    assert found(story) == [("delete-burst", 19)]


def test_a_burst_is_told_again_after_a_pause(story):
    for _ in range(2):
        for number in range(50):
            story.say("deleted", f"a{number}")
        story.wait(61)
    assert found(story) == [("delete-burst", 19), ("delete-burst", 69)]


def test_the_deletion_of_a_task_counts_its_checkpoints(story):
    story.say("task.deleted", facts={"checkpoints": 19})
    story.say("deleted", "a")
    story.say("task.deleted", task="u", facts={"checkpoints": 1})
    assert found(story) == [("delete-burst", 1)]


def test_almost_delete_burst(story):
    for number in range(19):
        story.say("deleted", f"a{number}")
    story.say("deleted", "b", actor="bob")
    story.say("deleted", "c", cause="clean-up")
    story.say("task.deleted", facts={"checkpoints": 0})
    story.say("task.deleted", facts={})
    story.wait(39)  # the first is 61 s ago
    story.say("deleted", "d")
    assert found(story) == []
    assert found(story, deletes_window_s=62) == [("delete-burst", 23)]


def test_a_slow_stream_of_deletes_is_no_burst(story):
    for number in range(100):
        story.wait(3)
        story.say("deleted", f"a{number}")
    assert found(story) == []


# --- the others -----------------------------------------------------------------------------------


def test_new_actor(story):
    for number in range(100):
        story.say("created", f"a{number}", actor=f"early {number % 50}")
    story.say("created", "b", actor="late")
    story.say("created", "c", actor="late")
    story.say("created", "d", actor="early 7")
    assert found(story) == [("new-actor", 100)]
    assert found(story, actor_grace_events=101) == []


def test_almost_new_actor(story):
    for number in range(100):
        story.say("created", f"a{number}", actor=f"actor {number}")
    assert found(story) == []


def test_the_first_actor_of_all_is_not_new(story):
    story.say("created", "a")
    story.say("created", "b", actor="bob")
    assert found(story, actor_grace_events=0) == [("new-actor", 1)]


def test_secrets_replaced(story):
    story.say("created", "a")
    story.say("updated", "a", sanitised=2)
    story.say("updated", "a", sanitised=2)
    story.say("created", "b", task="other", sanitised=1)
    assert found(story) == [("secrets-replaced", 1), ("secrets-replaced", 3)]


def test_sizes(story):
    for size in (200_000, 10 * MEBIBYTE, 10 * MEBIBYTE, MEBIBYTE // 10):
        story.say("created", f"a{size}{len(story.entries)}", size=size)
    assert found(story) == [("size-jump", 1), ("size-drop", 3)]


def test_sizes_at_the_bounds(story):
    for number, sizes in enumerate(
        [(100, 100 + MEBIBYTE), (MEBIBYTE, 10 * MEBIBYTE), (MEBIBYTE * 10, MEBIBYTE)]
    ):
        for size in sizes:
            story.say("created", f"{number} {size}", task=f"t{number}", size=size)
    assert found(story) == [("size-jump", 1), ("size-jump", 3), ("size-drop", 5)]


def test_almost_sizes(story):
    sizes = [
        MEBIBYTE // 9,
        MEBIBYTE // 9 + MEBIBYTE - 1,  # ten times, but a byte less than a mebibyte more
        MEBIBYTE,
        10 * MEBIBYTE - 1,  # nine mebibytes more, but not ten times
        MEBIBYTE,
    ]
    for size in sizes:
        story.say("created", f"a{len(story.entries)}", size=size)
    story.say("created", "none", size=None)
    story.say("created", "first of another task", task="u", size=100 * MEBIBYTE)
    assert found(story) == []


def test_storage_pressure(story):
    story.say("storage.pressure", task="", facts={"used_bytes": 9, "limit_bytes": 10})
    assert found(story) == [("storage-pressure", 0)]


# --- bounds ---------------------------------------------------------------------------------------


def test_memory_is_bounded_and_says_so(story):
    for number in range(40):
        story.say("created", f"a{number}", task=f"t{number}", actor=f"actor {number}")
        story.say("updated", f"a{number}", task=f"t{number}", actor=f"actor {number}")
        story.say("deleted", f"x{number}", task="x", actor=f"actor {number}")
    detector = Detector(story.time, Thresholds(tracked_max=10))
    for entry in story.entries:
        detector.apply(entry)
    kept = (detector._actors, detector._tasks, detector._open, detector._open_of, detector._deletes)
    assert all(len(names) <= 10 for names in kept)
    assert detector.forgotten == {"actors": 30 * 2 + 30 + 30, "checkpoints": 30, "tasks": 30}


def test_what_is_let_go_makes_no_false_alarm(story):
    story.say("created", "a1", step=1)
    for number in range(5):
        story.say("created", f"other {number}", task=f"other {number}")
    story.say("created", "a2", step=2)  # known again, but not as what it was
    story.say("created", "a3", step=1)
    story.say("created", "a4", step=3)
    story.say("created", "new", task="new", step=2)
    assert found(story, tracked_max=3) == [("step-gap", 9)]
    assert found(story) == [("step-gap", 9)]


def test_an_open_checkpoint_that_is_let_go_is_told_where_it_is_stuck(story):
    story.say("updated", "old")
    story.wait(86_400)
    story.say("updated", "b")
    story.say("updated", "c")
    assert found(story, tracked_max=2) == [("stuck-active", 0)]
    assert found(story, tracked_max=2, stuck_after_s=86_402) == []
    story.entries.clear()
    story.say("updated", "recent")
    story.say("updated", "b")
    story.say("updated", "c")
    later = story.time + timedelta(days=2)
    assert found(story, now=later, tracked_max=2) == [("stuck-active", 1), ("stuck-active", 2)]


def test_a_history_that_cannot_be_does_no_harm(story):
    story.say("updated", "a", task="t")
    story.say("updated", "a", task="u")  # the checkpoint of another task
    story.say("task.deleted", task="t")
    story.say("deleted", "a", task="t")
    story.say("deleted", "never there")
    story.say("updated", "b", state="dreaming")
    assert found(story, now=BEGIN + timedelta(days=9)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures_min": 0},
        {"tracked_max": 0},
        {"clock_tolerance_s": -1},
        {"stuck_after_s": float("nan")},
        {"size_ratio": float("inf")},
        {"deletes_min": 2.5},
        {"actor_grace_events": True},
        {"stuck_after_s": "1"},
    ],
)
def test_thresholds_that_bound_nothing_are_refused(wrong):
    with pytest.raises(ArgumentError) as caught:
        Detector(BEGIN, Thresholds(**wrong))
    assert next(iter(wrong)) in str(caught.value)


def test_a_threshold_beyond_the_calendar_is_no_limit(story):
    story.say("created", "a")
    assert found(story, clock_ahead_s=1e300, stuck_after_s=1e300) == []


# --- the page -------------------------------------------------------------------------------------


def test_the_page_defines_every_anomaly_and_threshold():
    page = (ROOT / "specs" / "audit.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    named = {row[0].strip("`"): row[1] for row in rows if len(row) > 1 and row[0].startswith("`")}
    levels = {name: level for name, level in named.items() if name in LEVELS}
    assert levels == LEVELS
    defaults = {name: named[name] for name in Thresholds.__struct_fields__}
    assert {name: float(text) for name, text in defaults.items()} == {
        name: float(getattr(Thresholds(), name)) for name in defaults
    }
    assert set(named) == {*LEVELS, *defaults}


def test_a_record_is_safe_for_json(story):
    import json

    detector = Detector(BEGIN)
    (told,) = detector.apply(story.say("storage.pressure", task="", facts={"used_bytes": 1}))
    record = json.loads(json.dumps(told.to_dict()))
    assert record == {
        "kind": "anomaly",
        "name": anomaly.STORAGE_PRESSURE,
        "level": "warning",
        "position": 0,
        "time": "2026-01-02T03:00:01.000000Z",
        "actor": "ada",
        "task": None,
        "checkpoint": None,
        "action": "storage.pressure",
        "message": "The store neared its limit.",
        "facts": {"used_bytes": 1},
    }
