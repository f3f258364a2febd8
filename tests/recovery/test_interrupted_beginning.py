"""Ctrl-C in the commit that begins a recovery: nothing was touched, so nothing is to be finished."""

from __future__ import annotations

import pytest

from ckptlog import CheckpointManager, create_checkpoint_system
from ckptlog.capture.capturer import Capturer
from ckptlog.manager.fact import is_pinned
from ckptlog.recovery.journal import Journal
from ckptlog.recovery.recovery import Recovery
from tests.capture.sample import Value
from tests.service.system import settings


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupt the sync of `recovery.started`: it is written, and not published."""
    real = Journal.started
    count = [0]

    def started(self, begun):
        disk = self._manager.store.log._disk

        def sync(_fd):
            if count[0] == 0:
                count[0] += 1
                raise KeyboardInterrupt
            return type(disk).sync(disk, _fd)

        with monkeypatch.context() as patched:
            patched.setattr(disk, "sync", sync, raising=False)
            return real(self, begun)

    monkeypatch.setattr(Journal, "started", started)
    return count


def test_it_is_ended_at_once(tmp_path, interrupted):
    part = Value("a", 1)
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "sys", [part])
        capturer.capture()
        part.value = 2
        recovery = Recovery(capturer)
        with pytest.raises(KeyboardInterrupt):
            recovery.recover()
        assert interrupted == [1]
        manager.record("service.started", {}, task="sys")  # whatever comes next publishes it
        assert recovery.unfinished() is None
        store = manager.store
        rows = [store.view().row(one.id) for one in capturer.captures()]
        assert not any(is_pinned(store, row) for row in rows)
        kinds = [one.event.type for one in manager.store.events()]
        assert kinds.count("recovery.started") == kinds.count("recovery.failed") == 1
        assert recovery.recover().status == "completed"
        assert part.value == 1


def test_one_that_is_resumed_stays_unfinished(tmp_path, interrupted, monkeypatch):
    interrupted[0] = 1
    part = Value("a", 1)
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "sys", [part])
        capturer.capture()
        recovery = Recovery(capturer)
        with monkeypatch.context() as patched:
            patched.setattr("ckptlog.recovery.run.Run._restore_all", lambda *_, **__: {}["killed"])
            with pytest.raises(KeyError):
                recovery.recover()
        begun = recovery.unfinished()
        interrupted[0] = 0
        with pytest.raises(KeyboardInterrupt):
            recovery.resume()
        assert recovery.unfinished().id == begun.id
        assert recovery.resume().status == "completed"


def test_a_service_captures_on_and_its_next_start_restores_nothing(tmp_path, interrupted):
    part = Value("a", 1)

    def system():
        return create_checkpoint_system(settings(tmp_path / "s"), [part])

    service = system().initialize()
    first = service.create_checkpoint()
    part.value = 2
    with pytest.raises(KeyboardInterrupt):
        service.recover_from_checkpoint(first.id)
    part.value = 3
    assert service.create_checkpoint() is not None
    service.close()
    with system():
        assert part.value == 3


def test_in_doubt_a_service_looks_at_what_was_not_published(tmp_path, interrupted, monkeypatch):
    monkeypatch.setattr("ckptlog.recovery.run.Run._end_unbegun", lambda *_: None)
    part = Value("a", 1)
    service = create_checkpoint_system(settings(tmp_path / "s"), [part]).initialize()
    first = service.create_checkpoint()
    with pytest.raises(KeyboardInterrupt):
        service.recover_from_checkpoint(first.id)
    assert service._engine.unfinished.error is not None
    assert service.resume_recovery().status == "completed"
    service.close()
