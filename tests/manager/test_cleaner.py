"""The cleaner works in the background, not too early, never raises, and stops at once."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import warnings
import weakref

import pytest

import ckptlog
from ckptlog.errors import FullError
from ckptlog.manager import cleaner as cleaner_module
from ckptlog.manager import upkeep
from ckptlog.manager.cleaner import Cleaner
from ckptlog.model.event import CLEANED
from tests.manager.clock import SettableEnvironment, open_at

WAIT_S = 20.0


@pytest.fixture
def soon(monkeypatch):
    """Let a cleaner look at once."""
    monkeypatch.setattr(cleaner_module, "_SOON_S", 0.0)


@pytest.fixture
def manager(tmp_path):
    with open_at(tmp_path / "s", SettableEnvironment()) as store:
        manager = ckptlog.CheckpointManager(store=store)
        name = manager.create_checkpoint("t", "T", 1)
        manager.complete_checkpoint(name)
        yield manager


def settings(**options):
    return ckptlog.CheckpointConfiguration(
        **{"cleanup_interval_hours": 24, "max_checkpoint_age_days": 10, **options}
    )


def wait_for(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def calls(monkeypatch):
    """Count the clean-ups, and let none do anything."""
    made = []

    def note(*args, **options):
        made.append(args)
        return 0

    monkeypatch.setattr(upkeep, "clean_up", note)
    return made


def test_a_store_that_is_due_is_cleaned_soon(manager, soon):
    manager.store.environment.advance(days=20)
    cleaner = Cleaner(manager, settings())
    wait_for(lambda: manager.store.view().totals().checkpoints == 0)
    cleaner.stop()
    assert [entry.event.type for entry in manager.store.events()][-1] == CLEANED


def test_it_goes_by_the_policy_of_the_configuration(manager, soon):
    names = [manager.create_checkpoint("many", "M", step) for step in range(1, 6)]
    manager.store.environment.advance(days=2)
    cleaner = Cleaner(manager, settings(retention={"keep_last": 2}))
    wait_for(lambda: manager.store.view().totals().checkpoints == 3)
    cleaner.stop()
    assert [one.checkpoint_id for one in manager.get_task_checkpoints("many")] == names[-2:]
    assert len(manager.get_task_checkpoints("t")) == 1


def test_a_wrong_policy_is_refused_where_it_is_opened(tmp_path):
    with pytest.raises(ckptlog.ArgumentError, match="keep_lats"):
        ckptlog.CheckpointManager(tmp_path / "s", config=settings(retention={"keep_lats": 2}))


def test_not_before_one_interval(manager, soon, calls):
    for days, due in ((0.9, False), (0.2, True)):
        manager.store.environment.advance(days=days)
        cleaner = Cleaner(manager, settings())
        wait_for(lambda cleaner=cleaner: cleaner._has_looked)
        if due:
            wait_for(lambda: calls)
        cleaner.stop()
        assert bool(calls) == due


def test_the_last_clean_up_counts(manager, soon, calls):
    manager.store.environment.advance(days=30)
    manager.record(CLEANED, {"deleted": 1})
    manager.create_checkpoint("t", "T", 1)
    cleaner = Cleaner(manager, settings())
    wait_for(lambda: cleaner._has_looked)
    cleaner.stop()
    assert calls == []
    manager.store.environment.advance(days=1.1)
    cleaner = Cleaner(manager, settings())
    wait_for(lambda: calls)
    cleaner.stop()


def test_it_goes_on_at_the_interval(manager, soon, calls):
    manager.store.environment.advance(days=1)
    cleaner = Cleaner(manager, settings(cleanup_interval_hours=0.00001))
    wait_for(lambda: len(calls) > 3)
    cleaner.stop()
    assert calls[0][1] == 10


def test_a_clock_that_was_set_back(manager, soon):
    manager.store.environment.advance(days=-100)
    cleaner = Cleaner(manager, settings())
    assert cleaner._due_in_s(manager.store) == 24 * 3600
    cleaner.stop()


def test_it_can_be_woken(manager, calls):
    cleaner = Cleaner(manager, settings())
    cleaner.wake()
    wait_for(lambda: calls)
    cleaner.stop()


def test_errors_are_logged_and_it_goes_on(manager, soon, monkeypatch, caplog):
    errors = [FullError("No space."), ValueError("a bug")]

    def fail(*args, **options):
        if errors:
            raise errors.pop(0)
        return 7

    monkeypatch.setattr(upkeep, "clean_up", fail)
    manager.store.environment.advance(days=1)
    with caplog.at_level(logging.INFO, "ckptlog"):
        cleaner = Cleaner(manager, settings(cleanup_interval_hours=0.00001))
        wait_for(lambda: "Deleted 7 checkpoints" in caplog.text)
        cleaner.stop()
    assert "storage.full" in caplog.text
    assert "a bug" in caplog.text


def test_stop_is_quick_and_may_come_twice(manager):
    cleaner = Cleaner(manager, settings())
    cleaner.stop()
    assert not cleaner._thread.is_alive()
    cleaner.stop()
    cleaner.wake()


def test_stop_waits_for_the_commit_at_work(manager, soon, monkeypatch):
    began, go_on = threading.Event(), threading.Event()
    seen = []

    def slow(*args, is_stopping):
        began.set()
        go_on.wait(WAIT_S)
        seen.append(is_stopping())
        return 0

    monkeypatch.setattr(upkeep, "clean_up", slow)
    manager.store.environment.advance(days=2)
    cleaner = Cleaner(manager, settings())
    assert began.wait(WAIT_S)
    stopper = threading.Thread(target=cleaner.stop)
    stopper.start()
    wait_for(lambda: cleaner._is_stopped)
    go_on.set()
    stopper.join(WAIT_S)
    assert seen == [True]
    assert not cleaner._thread.is_alive()


def test_a_closed_store_ends_it(manager, soon):
    manager.store.close()
    cleaner = Cleaner(manager, settings())
    cleaner._thread.join(WAIT_S)
    assert not cleaner._thread.is_alive()


def test_it_does_not_keep_its_manager_alive(tmp_path, soon):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        manager = ckptlog.CheckpointManager(store=store)
        cleaner = Cleaner(manager, settings())
        wait_for(lambda: cleaner._has_looked)
        gone = weakref.ref(manager)
        del manager
        gc.collect()
        wait_for(lambda: gone() is None)
        cleaner._thread.join(WAIT_S)
        assert not cleaner._thread.is_alive()


def test_a_read_only_store_has_none(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
    with ckptlog.open(tmp_path / "s", read_only=True) as store:
        cleaner = Cleaner(ckptlog.CheckpointManager(store=store), settings())
        assert not cleaner._thread.is_alive()
        cleaner.stop()


def test_a_forked_child_has_none(manager):
    cleaner = Cleaner(manager, settings())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
        child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see it
        cleaner.wake()
        cleaner.stop()
        os._exit(0 if not cleaner._is_stopped else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert cleaner._thread.is_alive()
    cleaner.stop()


def test_a_manager_starts_and_stops_it(tmp_path, soon):
    config = settings(storage_dir=str(tmp_path / "s"))
    with ckptlog.CheckpointManager(config=config) as manager:
        assert manager._cleaner is not None
        thread = manager._cleaner._thread
        assert thread.is_alive()
    assert not thread.is_alive()
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        assert manager._cleaner is None
