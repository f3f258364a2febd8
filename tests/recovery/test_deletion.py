"""What an unfinished recovery needs is not deleted with its task, whatever copy of the store it is."""

from __future__ import annotations

import shutil

import pytest

from ckptlog import CheckpointManager, restore_store
from ckptlog.errors import RecoveryUnfinishedError
from tests.recovery.test_pins import begun, recovery_of


def restored_backup(path):
    with CheckpointManager(path) as manager:
        manager.store.backup(path.with_name("backup"))
    restore_store(path.with_name("backup"), path.with_name("restored"))
    return path.with_name("restored")


def without_folder(path):
    shutil.rmtree(path / "recovery")
    return path


@pytest.mark.parametrize("changed", [restored_backup, without_folder])
def test_a_system_with_an_unfinished_recovery_is_not_deleted(tmp_path, changed):
    begun(tmp_path / "s", "resume")
    path = changed(tmp_path / "s")
    assert not (path / "recovery").exists()
    with CheckpointManager(path) as manager:
        with pytest.raises(RecoveryUnfinishedError, match="needs its captures"):
            manager.delete_task("sys")
        recovery, _ = recovery_of(manager)
        recovery.resume()
        shutil.rmtree(path / "recovery")
        assert manager.delete_task("sys") > 0


def test_tasks_without_pins_are_deleted_without_a_look_at_the_log(tmp_path, monkeypatch):
    with CheckpointManager(tmp_path / "s") as manager:
        for name in ("a", "b", "c"):
            manager.create_checkpoint(name, name, 1, data={}, checkpoint_id=f"{name}-1")
        manager.pin_checkpoint("b-1")
        manager.pin_checkpoint("c-1")
        asked, events = [], manager.store.events
        monkeypatch.setattr(manager.store, "events", lambda at=0: asked.append(at) or events(at))
        manager.delete_task("a")
        assert asked == []
        manager.delete_task("b")
        manager.delete_task("c")
        # The log is read once for all of them, and then what is new.
        assert asked[0] == 0
        assert asked[1] > 0
        assert len(asked) == 2
