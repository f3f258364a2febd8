"""What a review found: no event is lost by a second taker, a late ack, a restart or a slow callback."""

from __future__ import annotations

import gc
import threading

import pytest

import ckptlog
from ckptlog import CheckpointEvents, CheckpointManager, StoreClosedError, UnacknowledgedError
from ckptlog.manager import events as events_module
from ckptlog.watch import hint as hint_module
from ckptlog.watch.bus import InProcessEventBus
from ckptlog.watch.webhook import check_url

WAIT_S = 20


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        yield manager


def fill(manager, count, *, batch=1):
    for number in range(count):
        with manager.batch() as many:
            for step in range(batch):
                many.create_checkpoint("t", "T", step + 1, checkpoint_id=f"c{number}-{step}")


def in_thread(act):
    outcome = []

    def run():
        try:
            outcome.append(act())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(WAIT_S)
    return outcome[0]


def test_auto_ack_has_one_taker(manager):
    fill(manager, 4)
    with manager.store.watch("n", auto_ack=True, ack_interval_s=0, follow=False) as events:
        assert next(events).position == 0
        assert isinstance(in_thread(lambda: next(events)), UnacknowledgedError)
        assert events.position == 0
        assert next(events).position == 1
        assert events.position == 1


def test_without_a_name_anybody_may_take(manager):
    fill(manager, 2)
    with manager.store.watch(follow=False) as events:
        assert next(events).position == 0
        assert in_thread(lambda: next(events)).position == 1


def test_a_closed_subscription_acknowledges_nothing(manager):
    fill(manager, 2, batch=5)
    with manager.store.watch("late", follow=False) as events:
        first = next(events)
    for late in (events.ack, lambda: events.ack(first)):
        with pytest.raises(StoreClosedError):
            late()
    with pytest.raises(StoreClosedError):
        events._consumer.save(first.cursor)
    with manager.store.watch("late", follow=False) as again:
        assert [event.position for event in again] == list(range(10))


def test_an_ack_beside_the_taking_thread(manager):
    """What was read and is on its way into the buffer was not given."""
    fill(manager, 2, batch=5)
    with manager.store.watch("n", follow=False) as events:
        inside, go = threading.Event(), threading.Event()

        class Slow(type(events._buffer)):
            def extend(self, more):
                inside.set()
                go.wait(WAIT_S)
                super().extend(more)

        events._buffer = Slow()
        thread = threading.Thread(target=lambda: next(events))
        thread.start()
        assert inside.wait(WAIT_S)
        acking = threading.Thread(target=events.ack)
        acking.start()
        go.set()
        for one in (thread, acking):
            one.join(WAIT_S)
        assert events.position <= 1


def told_of(manager, **options):
    bus, told = InProcessEventBus(), []
    bus.subscribe("*", lambda event: told.append(event.position))
    return CheckpointEvents(bus).follow(manager, **options), told


def test_a_named_relay_goes_on_after_a_restart(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        relay, told = told_of(manager, consumer="n", start="beginning")
        fill(manager, 1)
        relay.close()
        assert told == [0]
        manager.create_checkpoint("t", "T", 1)  # as if it was killed before it was told
    with CheckpointManager(tmp_path / "s") as manager:
        relay, told = told_of(manager, consumer="n")
        relay.close()
        assert told == [1]


def test_a_slow_callback_misses_nothing(manager):
    bus, told, go = InProcessEventBus(), [], threading.Event()
    bus.subscribe("*", lambda event: (go.wait(WAIT_S), told.append(event.position)))
    relay = CheckpointEvents(bus).follow(manager)
    fill(manager, 30, batch=10)
    with manager.batch() as batch:
        batch.create_checkpoint("u", "U", 1, activate=True)
    go.set()
    relay.close()
    assert told == list(range(302))
    assert manager.store.watcher._own is None


def test_own_events_are_forgotten_once_told(manager):
    relay, told = told_of(manager)
    fill(manager, 20)
    other, _ = told_of(manager)
    other.close()
    relay._subscription.finish()
    relay._thread.join(WAIT_S)
    assert told == list(range(20))
    assert len(manager.store.watcher._own) == 0
    relay.close()


@pytest.mark.parametrize("error", [SystemExit(1), ValueError("x")])
def test_a_callback_that_raises_ends_nothing(manager, error):
    bus, told = InProcessEventBus(), []

    def callback(event):
        told.append(event.position)
        raise error

    bus.subscribe("*", callback)
    relay = CheckpointEvents(bus).follow(manager)
    fill(manager, 3)
    relay.close()
    assert told == [0, 1, 2]
    assert relay.error is None


def test_an_ending_that_nobody_asked_for_is_told(manager, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(events_module.Relay, "_told", broken)
    relay, _ = told_of(manager)
    fill(manager, 1)
    relay._thread.join(WAIT_S)
    assert isinstance(relay.error, ZeroDivisionError)
    relay.close()


def test_a_subscription_that_is_collected_while_another_begins(manager, monkeypatch):
    store = manager.store
    real = hint_module._start_watcher

    def start(*arguments):
        forgotten = store.watch(watcher=False)
        forgotten.cycle = forgotten
        del forgotten
        gc.collect()
        return real(*arguments)

    monkeypatch.setattr(hint_module, "_start_watcher", start)

    def watch():
        with store.watch(follow=False) as events:
            return list(events)

    assert in_thread(watch) == []


@pytest.mark.parametrize("url", ["http://a..b/", f"http://{'a' * 70}.example/"])
def test_a_host_that_cannot_be_looked_up(url):
    with pytest.raises(ckptlog.ArgumentError, match="cannot be looked up"):
        check_url(url)
