"""Histories that no writer of ours makes are told as illegal."""

from __future__ import annotations

import pytest

import ckptlog
from ckptlog.formats import event
from ckptlog.model.event import PackEntry, Subject
from ckptlog.repository.verify import verify, verify_directory
from tests.repository.damage import (
    append,
    changed,
    codes,
    created,
    record,
)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (
            [
                created(),
                record(
                    "z",
                    "checkpoint.created",
                    subject=Subject("cp", "", "", "t", ""),
                    state="created",
                ),
            ],
            "used before",
        ),
        ([created(state="active")], "no beginning"),
        ([created(previous=0)], "no beginning"),
        ([created(origin=0)], "no beginning"),
        ([created(name="")], "names no checkpoint"),
        ([created(), changed("updated", "active", 0, origin=1)], "another creation"),
        (
            [created(), changed("updated", "active", 0, created="2026-01-02T03:04:06.000006Z")],
            "another creation",
        ),
        (
            [created(), changed("updated", "active", 0, subject=Subject("cp", "", "", "u", ""))],
            "another task",
        ),
        ([created(), changed("updated", "active", -1)], "follows event 0, it says -1"),
        ([created(), changed("updated", "active", 7)], "follows event 0, it says 7"),
        ([changed("updated", "active", 0)], "no such checkpoint"),
        ([created(), changed("updated", "completed", 0)], "its state is 'completed'"),
        ([created(), changed("updated", "asleep", 0)], "its state is 'asleep'"),
        (
            [
                created(),
                changed("completed", "completed", 0),
                changed("updated", "active", 1, number=2),
            ],
            "completed cannot become active",
        ),
        (
            [
                created(),
                changed("failed", "failed", 0),
                changed("completed", "completed", 1, number=2),
            ],
            "failed cannot become completed",
        ),
        ([created(), changed("deleted", "active", 0)], "the state is created, it says active"),
        (
            [
                created(),
                changed("deleted", "created", 0),
                changed("restored", "restored", 1, number=2),
            ],
            "was deleted at 1",
        ),
        (
            [
                created(),
                record("gone", "task.deleted", subject=Subject(task="t")),
                changed("updated", "active", 0),
            ],
            "was deleted at 1",
        ),
        (
            [
                created(),
                record("gone", "task.deleted", subject=Subject(task="t")),
                record(
                    "again",
                    "checkpoint.created",
                    subject=Subject("cp", "", "", "t", ""),
                    state="created",
                ),
            ],
            "used before",
        ),
        ([record("a", schema=1, time="2026-01-02")], "its time"),
        (
            [record("a", packs=(PackEntry(0, 1, "00" * 16),)), record("b")],
            "does not end its commit",
        ),
    ],
)
def test_illegal_histories(tmp_path, events, why):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        append(store, *events)
        report = verify(store, "structure")
        found = [problem for problem in report.problems if problem.code == "history.illegal"]
        assert len(found) == 1
        assert why in found[0].message
        assert found[0].where.startswith("log/")
    assert not verify_directory(tmp_path / "s", "structure").ok


def test_command_ids_are_used_once(tmp_path):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        append(store, record("a"), record("b"), record("a"))
        append(store, record("a"))
        found = [problem.message for problem in store.verify("structure").problems]
    assert found == [
        "Events 0 and 2 have the same command id.",
        "Events 0 and 3 have the same command id.",
    ]


def test_events_are_canonical(tmp_path, monkeypatch):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        plain = event.encode
        monkeypatch.setattr(event, "encode", lambda one: plain(one).replace(b'":', b'": '))
        append(store, record("a"))
        monkeypatch.undo()
        append(store, record("b", schema=1))
        (problem,) = store.verify("structure").problems
    assert problem.code == "format.malformed"
    assert "Event 0 is not canonical" in problem.message


def test_an_event_of_a_newer_version(tmp_path, monkeypatch):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        append(store, record("a"))
        plain = event.encode
        monkeypatch.setattr(
            event, "encode", lambda one: plain(one).replace(b'"schema":1', b'"schema":9')
        )
        append(store, record("b", schema=1))
        monkeypatch.undo()
    report = verify_directory(tmp_path / "s")
    assert codes(report)[0] == "store.unsupported"
    assert report.events == 1
