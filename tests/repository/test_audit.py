"""Who did what, when, to which task, from a real store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

import ckptlog
from ckptlog.errors import ArgumentError, LogCorruptionError, StoreClosedError
from ckptlog.formats import event as event_format
from ckptlog.model.event import Subject
from ckptlog.policy.anomaly import Anomaly, Thresholds
from ckptlog.repository.audit import AuditEvent
from tests.repository.damage import append, flipped, record


@pytest.fixture
def store(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s", actor="ada", namespace="ns") as manager:
        first = manager.create_checkpoint("t", "T", 1, data={"n": 1}, worker_id="w1")
        manager.complete_checkpoint(first)
        second = manager.create_checkpoint(
            "t", "T", 4, total_steps=3, parent_checkpoint_id=first, data={"password": "hunter22"}
        )
        for _ in range(3):
            manager.fail_checkpoint(second, actor="bob")
            manager.restore_checkpoint(second, actor="bob")
        with manager.batch(actor="eve") as batch:
            for _ in range(5):
                batch.create_checkpoint("u", "U", 1, activate=True, namespace="")
        manager.delete_task("u")
        yield manager.store


def told(audit):
    return [
        (one.name, one.at.position) if isinstance(one, Anomaly) else one.position for one in audit
    ]


def test_everything(store):
    audit = store.audit()
    assert told(audit) == [
        0,
        1,
        2,
        ("step-gap", 2),
        ("step-beyond-total", 2),
        ("secrets-replaced", 2),
        *range(3, 8),
        ("repeated-failures", 7),
        8,
        ("repeated-restores", 8),
        *range(9, 20),
    ]
    assert (audit.events, audit.read, audit.forgotten) == (20, 20, {})
    assert audit.summary() == {
        "kind": "summary",
        "events": 20,
        "read": 20,
        "anomalies": {
            "repeated-failures": 1,
            "repeated-restores": 1,
            "secrets-replaced": 1,
            "step-beyond-total": 1,
            "step-gap": 1,
        },
        "forgotten": {},
    }


def test_a_record_says_everything_of_an_event(store):
    records = [one.to_dict() for one in store.audit(start=2, end=3, anomalies=False)]
    (entry,) = store.events(2, 3)
    first = next(store.events()).event.subject.checkpoint
    leaf = event_format.leaf_hash(event_format.encode(entry.event)).hex()
    assert json.loads(json.dumps(records)) == [
        {
            "kind": "event",
            "position": 2,
            "time": entry.event.time,
            "actor": "ada",
            "action": "checkpoint.created",
            "task": "t",
            "namespace": "ns",
            "checkpoint": entry.event.subject.checkpoint,
            "worker": None,
            "parent": first,
            "state": "created",
            "step": 4,
            "total": 3,
            "data_bytes": entry.event.data.size,
            "new_bytes": entry.event.new,
            "sanitised": 1,
            "cause": None,
            "command": entry.event.id,
            "facts": {},
            "leaf": leaf,
        }
    ]
    (end,) = store.audit(type="task.deleted")
    fields = end.to_dict()
    assert (fields["task"], fields["checkpoint"], fields["facts"]) == (
        "u",
        None,
        {"checkpoints": 5},
    )
    assert (fields["state"], fields["step"], fields["data_bytes"]) == (None, None, None)


def test_leaf_hashes_are_those_of_the_log(store):
    for one in store.audit(anomalies=False):
        assert one.leaf == event_format.leaf_hash(event_format.encode(one.entry.event))


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ({"actor": "bob"}, range(3, 9)),
        ({"actor": ["bob", "eve"], "type": "created"}, (9, 11, 13, 15, 17)),
        ({"task": "u"}, range(9, 20)),
        ({"worker": "w1"}, (0, 1)),
        ({"namespace": ""}, range(9, 20)),
        ({"type": ("failed", "task.deleted")}, (3, 5, 7, 19)),
        ({"start": 18}, (18, 19)),
        ({"start": 18, "end": 19}, (18,)),
        ({"end": 0}, ()),
        ({"start": 500}, ()),
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, ()),
        ({"since": datetime(2020, 1, 1, tzinfo=UTC), "end": 2}, (0, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("anomalies", [False, True])
def test_what_is_asked_for(store, options, positions, anomalies):
    audit = store.audit(anomalies=anomalies, **options)
    found = [one.position for one in audit if isinstance(one, AuditEvent)]
    assert found == list(positions)
    assert audit.events == len(found)


def test_times_are_included_and_not(store):
    at = datetime.fromisoformat(store.event_at(5).event.time)
    later = [one.position for one in store.audit(since=at, anomalies=False)]
    earlier = [one.position for one in store.audit(until=at, anomalies=False)]
    assert 5 in later
    assert 5 not in earlier
    assert len(later) + len(earlier) == 20


def test_anomalies_are_those_of_the_events_asked_for_seen_in_all(store):
    assert told(store.audit(checkpoint="none")) == []
    audit = store.audit(actor="bob", type="failed", start=7)
    assert told(audit) == [7, ("repeated-failures", 7)]  # the failures before count
    audit = store.audit(end=7, actor="bob", type="failed")
    assert told(audit) == [3, 5]
    assert (audit.events, audit.read) == (2, 7)


def test_anomalies_are_counted(store):
    audit = store.audit(thresholds=Thresholds(failures_min=1, restores_min=1), task="t")
    found = [one.name for one in audit if isinstance(one, Anomaly)]
    assert audit.anomalies == {name: found.count(name) for name in found}
    store.audit()
    manager = ckptlog.CheckpointManager(store=store)
    for step in (6, 8):
        manager.create_checkpoint("t", "T", step)
    audit = store.audit()
    assert list(audit)
    assert audit.anomalies["step-gap"] == 3


def test_what_is_stuck_depends_on_now_and_the_threshold(store):
    now = datetime.now(UTC)
    stuck = [("stuck-restored", 8)]
    assert told(store.audit(now=now + timedelta(days=2), type="restored"))[-1:] == stuck
    soon = store.audit(
        now=now + timedelta(hours=1), thresholds=Thresholds(stuck_after_s=60), type="restored"
    )
    assert told(soon)[-1:] == stuck
    soon = store.audit(
        now=now + timedelta(hours=1), thresholds={"stuck_after_s": 60}, type="restored"
    )
    assert told(soon)[-1:] == stuck
    assert ("stuck-restored", 8) not in told(store.audit(type="restored"))


def test_the_present_is_that_of_the_environment(tmp_path):
    from tests.manager.clock import SettableEnvironment, open_at

    environment = SettableEnvironment()
    with open_at(tmp_path / "s", environment) as store:
        manager = ckptlog.CheckpointManager(store=store)
        manager.update_checkpoint(manager.create_checkpoint("t", "T", 1))
        assert told(store.audit()) == [0, 1]
        environment.advance(days=2)
        assert told(store.audit()) == [0, 1, ("stuck-active", 1)]
        environment.advance(days=-4)
        assert told(store.audit()) == [0, ("clock-ahead", 0), 1]


def test_events_of_other_processes_and_of_later_are_there(store):
    audit = store.audit()
    append(store, record("later", "import.finished", subject=Subject()))
    assert told(audit)[-2:] == [20, ("clock-backwards", 20)]
    assert store.audit(type="import.finished").__iter__().__next__().position == 20


def test_an_empty_log(tmp_path):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        audit = store.audit()
        assert list(audit) == []
        assert audit.summary()["read"] == 0


def test_a_store_for_reading_only(store):
    with ckptlog.open(store.path, read_only=True) as other:
        assert len(list(other.audit())) == 25


def test_damage_is_told_after_what_is_whole(store):
    target = store.event_at(5)
    with flipped(store.path / target.container, target.offset + 30):
        pass_ = iter(store.audit(anomalies=False))
        assert [next(pass_).position for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(LogCorruptionError):
            next(pass_)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"actor": 7}, "actor"),
        ({"since": "yesterday"}, "since"),
        ({"until": datetime(2026, 1, 1)}, "until"),  # noqa: DTZ001 - that is what is refused
        ({"now": datetime(2026, 1, 1)}, "now"),  # noqa: DTZ001 - same
        ({"now": 7}, "now"),
        ({"since": datetime.max.replace(tzinfo=UTC) - timedelta(0)}, None),
        ({"since": datetime.min.replace(tzinfo=UTC)}, None),
        ({"start": -1}, "start"),
        ({"start": "0"}, "start"),
        ({"end": -1}, "end"),
        ({"end": True}, "end"),
        ({"thresholds": Thresholds(failures_min=0)}, "failures_min"),
        ({"thresholds": 3}, "thresholds"),
        ({"thresholds": {"patience": 3}}, "patience"),
        ({"thresholds": {"failures_min": 0.5}}, "failures_min"),
        ({"actors": "ada"}, "actors"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(store, options, argument):
    if argument is None:
        store.audit(**options)
        return
    with pytest.raises(ArgumentError) as caught:
        store.audit(**options)
    assert argument in str(caught.value)


def test_a_closed_store(store):
    store.close()
    with pytest.raises(StoreClosedError):
        store.audit()
