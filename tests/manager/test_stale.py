"""What was looked up is remembered only while it is true, whatever others do meanwhile."""

from __future__ import annotations

import sys
import threading

import pytest

from ckptlog import CheckpointState
from ckptlog.repository import ledger as ledger_module

COMPLETED = CheckpointState.COMPLETED


@pytest.fixture
def few(monkeypatch):
    """Let memory forget early."""
    monkeypatch.setattr(ledger_module, "_REMEMBERED_MAX", 8)


def drain(manager):
    assert manager.store._keeper.drain()


def test_many_reads_do_not_push_out_what_only_memory_knows(manager, few):
    for task in [f"t{number}" for number in range(40)]:
        manager.create_checkpoint(task, "T", 1, checkpoint_id=f"{task}-1")
    manager.create_checkpoint("b", "B", 1, checkpoint_id="b-1")
    manager.create_checkpoint("a", "A", 1, checkpoint_id="a-1")
    drain(manager)
    manager.create_checkpoint("a", "A", 2, checkpoint_id="a-2")
    manager.delete_checkpoint("b-1")
    for _ in range(2):
        for number in range(40):
            assert manager.get_latest_checkpoint(f"t{number}").checkpoint_id == f"t{number}-1"
        assert manager.get_latest_checkpoint("a").checkpoint_id == "a-2"
        assert manager.get_latest_checkpoint("b") is None
        drain(manager)
    assert len(manager.store._keeper.ledger._latest_seen) <= 8 + 1


def during(monkeypatch, manager, name, action):
    """Run an action once, when the view is asked by a read: after memory was."""
    view = manager.store._keeper.ledger.view
    real = getattr(view, name)
    left = [action]

    def asked(*arguments):
        found = real(*arguments)
        if left:
            left.pop()()
        return found

    monkeypatch.setattr(view, name, asked)


ACTIONS = {
    "complete": lambda m: m.complete_checkpoint("c", {"v": 2}),
    "delete": lambda m: m.delete_checkpoint("c"),
    "delete task": lambda m: m.delete_task("t"),
}


@pytest.mark.parametrize("is_drained", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("row", lambda m: m.get_checkpoint("c")),
        ("latest_of_task", lambda m: m.get_latest_checkpoint("t")),
    ],
)
def test_a_read_that_is_overtaken_leaves_nothing_behind(  # noqa: PLR0917
    manager, monkeypatch, name, read, action, is_drained
):
    manager.create_checkpoint("t", "T", 1, data={"v": 1}, checkpoint_id="c")
    drain(manager)
    manager.store._keeper.ledger._remembered.clear()
    manager.store._keeper.ledger._latest_seen.clear()

    def act():
        ACTIONS[action](manager)
        if is_drained:
            drain(manager)

    during(monkeypatch, manager, name, act)
    seen = read(manager)
    assert seen is None or seen.data in ({"v": 1}, {"v": 2})
    for _ in range(2):
        for again in (manager.get_checkpoint("c"), manager.get_latest_checkpoint("t")):
            if action == "complete":
                assert (again.state, again.data) == (COMPLETED, {"v": 2})
            else:
                assert again is None
        drain(manager)
    assert manager.validate_checkpoint_integrity() == []


@pytest.mark.parametrize("read", ["get_latest_checkpoint", "get_recovery_point"])
def test_a_deletion_beside_reads_is_never_read_as_a_checkpoint(manager, read):
    """A tombstone has no data; it must not look like a checkpoint without any."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    wrong = []
    try:
        for number in range(150):
            task = f"t{number}"
            manager.create_checkpoint(task, "T", 1, data={"v": 1}, checkpoint_id=f"c{number}")
            if number % 3 == 0:
                drain(manager)
            thread = threading.Thread(target=manager.delete_checkpoint, args=(f"c{number}",))
            thread.start()
            while thread.is_alive():
                found = getattr(manager, read)(task)
                if found is not None and found.data != {"v": 1}:
                    wrong.append(found)
            thread.join()
            assert getattr(manager, read)(task) is None
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
