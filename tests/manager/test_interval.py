"""durability="interval": the writer reads its own, everybody else what is published."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CheckpointConfiguration,
    CheckpointManager,
    CheckpointState,
    CommandReusedError,
)
from ckptlog.views.errors import ViewDamagedError

NEVER = CheckpointConfiguration(durability="interval", interval_s=60, cleanup_interval_hours=0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


@pytest.fixture
def manager(path):
    """One whose timer does not come round while a test runs."""
    with CheckpointManager(path, config=NEVER) as manager:
        yield manager


def ids(found):
    return [one.checkpoint_id for one in found]


def test_it_reads_its_own(manager):
    names = [manager.create_checkpoint("t", "T", step, data={"n": step}) for step in (1, 2, 3)]
    assert manager.store.position == 0
    for step, name in enumerate(names, 1):
        assert manager.get_checkpoint(name).data == {"n": step}
    assert manager.get_latest_checkpoint("t").checkpoint_id == names[2]
    assert manager.update_checkpoint(names[0], data={"m": 1})
    assert manager.get_checkpoint(names[0]).data == {"n": 1, "m": 1}
    assert manager.get_recovery_point("t") is not None


def test_lists_hold_its_own(manager):
    first = manager.create_checkpoint("t", "T", 1, worker_id="w")
    assert ids(manager.get_task_checkpoints("t")) == [first]
    second = manager.create_checkpoint("t", "T", 2, worker_id="w")
    manager.complete_checkpoint(first)
    assert ids(manager.get_checkpoints_by_worker("w")) == [first, second]
    assert ids(manager.get_checkpoints_by_state(CheckpointState.COMPLETED)) == [first]
    manager.delete_checkpoint(first)
    assert ids(manager.iterate()) == [second]
    assert manager.delete_task("t") == 1
    assert ids(manager.iterate()) == []


def test_history_holds_its_own(manager):
    name = manager.create_checkpoint("t", "T", 1, data={"n": 0})
    manager.update_checkpoint(name, data={"n": 1})
    manager.complete_checkpoint(name)
    assert [entry.state for entry in manager.history(name)] == ["created", "active", "completed"]
    assert manager.get_checkpoint_at(name, 0).data == {"n": 0}
    assert manager.store.position == 0
    assert manager.store.event_at(1).event.state == "active"
    assert manager.store.event_at(3) is None


def test_a_deletion_of_its_own_that_nobody_else_sees(manager, path):
    """What memory knows to be gone must not come back from the view."""
    names = [manager.create_checkpoint("t", "T", step) for step in (1, 2)]
    manager.store.log.flush()
    assert ids(manager.get_task_checkpoints("t")) == names
    manager.delete_checkpoint(names[1])
    assert manager.get_latest_checkpoint("t").checkpoint_id == names[0]
    assert manager.get_checkpoint(names[1]) is None
    third = manager.create_checkpoint("t", "T", 3)
    manager.delete_task("t")
    assert manager.get_latest_checkpoint("t") is None
    assert manager.get_checkpoint(third) is None
    fourth = manager.create_checkpoint("t", "T", 4)
    assert manager.get_latest_checkpoint("t").checkpoint_id == fourth


def test_others_see_what_is_published(manager, path):
    name = manager.create_checkpoint("t", "T", 1)
    with ckptlog.open(path, read_only=True) as reader:
        assert list(reader.events()) == []
        assert list(manager.store.events()) == []
        manager.store.log.flush()
        assert [entry.position for entry in reader.events()] == [0]
        manager.update_checkpoint(name, data={"n": 1})
        assert reader.position == manager.store.position == 1
        manager.store.log.flush()
        assert reader.position == 2


def test_another_writer_takes_in_what_is_not_yet_synced(manager, path):
    """The lock is free between two operations: whoever comes next syncs what it finds."""
    first = manager.create_checkpoint("t", "T", 1, data={"n": 1})
    with CheckpointManager(path) as other:
        assert other.get_checkpoint(first).data == {"n": 1}
        second = other.create_checkpoint("t", "T", 2)
        assert manager.get_checkpoint(second) is not None
        manager.update_checkpoint(second, data={"n": 2})
        other.update_checkpoint(second, data={"m": 2})
        assert manager.get_checkpoint(second).data == {"n": 2, "m": 2}
    assert ids(manager.get_task_checkpoints("t")) == [first, second]


def test_closing_syncs(path):
    with CheckpointManager(path, config=NEVER) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        assert manager.store.position == 0
    with ckptlog.open(path, read_only=True) as reader:
        assert reader.position == 1
    with CheckpointManager(path) as manager:
        assert manager.get_checkpoint(name) is not None


def test_a_kill_loses_nothing(path):
    code = (
        "import os, sys, signal\n"
        "from ckptlog import CheckpointConfiguration, CheckpointManager\n"
        "config = CheckpointConfiguration(durability='interval', interval_s=60)\n"
        "manager = CheckpointManager(sys.argv[1], config=config)\n"
        "names = [manager.create_checkpoint('t', 'T', 1, data={'n': n}) for n in range(20)]\n"
        "print(' '.join(names), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    with CheckpointManager(path) as manager:
        found = manager.get_task_checkpoints("t")
        assert ids(found) == killed.stdout.split()
        assert [one.data["n"] for one in found] == list(range(20))
        assert manager.validate_checkpoint_integrity() == []


def test_a_retry_of_what_is_not_durable(manager):
    name = manager.create_checkpoint("t", "T", 1, command_id="one")
    assert manager.create_checkpoint("t", "T", 1, command_id="one") == name
    with pytest.raises(CommandReusedError):
        manager.create_checkpoint("t", "T", 2, command_id="one")


def test_shared_chunks_of_what_is_not_durable(manager):
    long = [f"line {number} {number * 7919 % 10007}" * 3 for number in range(1000)]
    names = [
        manager.create_checkpoint("t", "T", 1, data={"long": long[: 900 + step]})
        for step in range(5)
    ]
    sizes = [entry.new_bytes for name in names for entry in manager.history(name)]
    assert max(sizes[1:]) < sizes[0] / 3
    assert manager.get_checkpoint(names[4]).data == {"long": long[:904]}


def test_a_view_that_breaks_takes_nothing_with_it(manager, path):
    """Its replacement is built from the log, which does not have all of our own yet."""
    first = manager.create_checkpoint("t", "T", 1)
    manager.store.log.flush()
    assert ids(manager.get_task_checkpoints("t")) == [first]
    second = manager.create_checkpoint("t", "T", 2, data={"n": 2})
    for suffix in ("", "-wal", "-shm"):
        os.unlink(path / "views" / f"current.sqlite{suffix}")
    (path / "views" / "current.sqlite").write_bytes(b"no database")
    keeper = manager.store._keeper
    keeper.heal(keeper.ledger.view, ViewDamagedError("broken"))
    assert manager.store.position == 1
    assert manager.get_checkpoint(second).data == {"n": 2}
    third = manager.create_checkpoint("t", "T", 3)
    assert manager.get_latest_checkpoint("t").checkpoint_id == third
    assert ids(manager.get_task_checkpoints("t")) == [first, second, third]
    manager.store.rebuild_views()
    assert ids(manager.get_task_checkpoints("t")) == [first, second, third]
    assert manager.validate_checkpoint_integrity() == []


def test_many_tasks_while_something_is_always_unsynced(path):
    """Memory is cut back, but never what the view cannot know yet."""
    with CheckpointManager(path, config=NEVER) as manager:
        store = manager.store
        manager.create_checkpoint("t0", "T", 1)
        for start in range(0, 6000, 1000):
            with manager.batch() as batch:
                for number in range(start, start + 1000):
                    batch.create_checkpoint(f"t{number}", "T", 1)
        newest = {}
        for number in range(0, 6000, 500):
            store.log.flush()
            newest[number] = manager.create_checkpoint(f"t{number}", "T", 2)
            store._keeper.drain()
            for other, name in newest.items():
                assert manager.get_latest_checkpoint(f"t{other}").checkpoint_id == name


@pytest.mark.parametrize("interval_s", [0, -1, float("nan"), "1", None, True])
def test_wrong_intervals(path, interval_s):
    with pytest.raises(ArgumentError, match=r"interval_s is .*; a number above 0 is needed"):
        ckptlog.open(path, create=True, durability="interval", interval_s=interval_s)
    assert not path.exists()


@pytest.mark.parametrize("name", ["absorb", "add"])
def test_an_interrupt_before_a_commit_was_taken_in(manager, monkeypatch, name):
    """It is in the log, written and not published: the next write finds it, and goes on at once."""
    keeper = manager.store._keeper
    manager.create_checkpoint("t", "T", 1, checkpoint_id="before")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keeper.ledger if name == "absorb" else keeper.index, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.create_checkpoint("t", "T", 2, checkpoint_id="cut", data={"n": 2})
    manager.create_checkpoint("t", "T", 3, checkpoint_id="after")
    assert ids(manager.get_task_checkpoints("t")) == ["before", "cut", "after"]
    assert manager.get_checkpoint("cut").data == {"n": 2}
    assert manager.validate_checkpoint_integrity() == []
