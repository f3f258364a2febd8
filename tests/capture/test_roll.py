"""The roll says what the view says, whatever happened since it was last asked."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptlog
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.roll import Roll
from tests.capture.sample import Value

ACTS = ("capture", "keep", "safety", "pin", "unpin", "delete", "other", "look")


def act(manager, capturer, what, number):
    ids = [one.id for one in capturer.captures()]
    chosen = ids[number % len(ids)] if ids else None
    if what == "capture":
        capturer.capture()
    elif what == "keep":
        capturer.capture(tags=["keep"])
    elif what == "safety":
        capturer.capture(reason="safety")
    elif what == "other":
        manager.create_checkpoint("sys" if number % 2 else "else", "no capture", 1)
    elif chosen is not None and what in {"pin", "unpin"}:
        getattr(manager, f"{what}_checkpoint")(chosen)
    elif chosen is not None and what == "delete":
        manager.delete_checkpoint(chosen)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 9)), max_size=15))
def test_it_is_the_same_as_a_new_one(tmp_path_factory, acts):
    path = tmp_path_factory.mktemp("roll")
    with ckptlog.CheckpointManager(path / "s") as manager:
        capturer = Capturer(manager, "sys", [Value("a", 1)])
        roll = Roll(manager.store, "sys")
        for what, number in acts:
            if what == "look":
                roll.follow()
            act(manager, capturer, what, number)
        fresh = Roll(manager.store, "sys")
        infos = capturer.captures()
        assert roll.count() == fresh.count() == len(infos)
        assert list(roll.loose.values()) == list(fresh.loose.values())
        assert list(roll.safety.values()) == list(fresh.safety.values())
        ordinary = [one.id for one in infos if one.reason != "safety"]
        saved = [one.id for one in infos if one.reason == "safety"]
        assert roll.newest_first() == ordinary + saved
        assert not any("keep" in one.tags for one in infos if one.id in roll.loose)


def test_it_reads_no_row_twice(tmp_path, monkeypatch):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        capturer = Capturer(manager, "sys", [Value("a", 1)])
        for _ in range(20):
            capturer.capture()
        roll = Roll(manager.store, "sys")
        read = []
        real = Roll._line
        monkeypatch.setattr(Roll, "_line", lambda self, row: read.append(row.id) or real(self, row))
        assert roll.count() == 20
        assert len(read) == 20
        capturer.capture()
        assert roll.count() == 21
        assert len(read) == 21
        assert roll.count() == 21
        assert len(read) == 21


@pytest.mark.parametrize("is_new", [True, False])
def test_a_task_that_was_deleted_is_gone(tmp_path, is_new):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        capturer = Capturer(manager, "sys", [Value("a", 1)])
        roll = Roll(manager.store, "sys")
        capturer.capture()
        if not is_new:
            assert roll.count() == 1
        manager.delete_task("sys")
        assert roll.count() == 0
        capturer.capture()
        assert roll.count() == 1


def test_another_process_is_followed(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        Capturer(manager, "sys", [Value("a", 1)]).capture()
        roll = Roll(manager.store, "sys")
        assert roll.count() == 1
        with ckptlog.CheckpointManager(tmp_path / "s") as other:
            Capturer(other, "sys", [Value("a", 2)]).capture()
        assert roll.count() == 2
