"""CheckpointEvents: what is emitted, and what the log says, of this process and of others."""

from __future__ import annotations

import logging
import os
import threading
import time

import pytest

import ckptlog
from ckptlog import CheckpointEvents, CheckpointManager, CheckpointState, InProcessEventBus
from ckptlog.errors import ArgumentError, StoreClosedError
from tests.watch.crowd import Process, write

TYPES = ("created", "updated", "completed", "failed", "restored")
LONG_S = 60.0


class Heard:
    """Everything that a bus published, in order; `wait` until so much came."""

    def __init__(self, events, kind="*"):
        self.got = []
        self._more = threading.Condition()
        events.on(kind, self)

    def __call__(self, event):
        with self._more:
            self.got.append(event)
            self._more.notify_all()

    def wait(self, count):
        with self._more:
            assert self._more.wait_for(lambda: len(self.got) >= count, LONG_S)
        return self.got


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        yield manager


@pytest.fixture
def events():
    return CheckpointEvents(InProcessEventBus())


def live_a_life(manager):
    first = manager.create_checkpoint("t", "Title", 1, data={"n": 1})
    manager.update_checkpoint(first, data={"n": 2})
    manager.complete_checkpoint(first)
    second = manager.create_checkpoint("t", "Title", 2)
    manager.fail_checkpoint(second, {"message": "no luck"})
    manager.restore_checkpoint(second)
    return first, second


def test_the_names_of_the_specification():
    for name in TYPES:
        assert getattr(CheckpointEvents, f"CHECKPOINT_{name.upper()}") == f"checkpoint.{name}"
        assert callable(getattr(CheckpointEvents, f"emit_checkpoint_{name}"))


# --- emitting --------------------------------------------------------------------------------


def test_what_is_emitted_is_published_at_once(manager, events):
    checkpoint = manager.get_checkpoint(manager.create_checkpoint("t", "Title", 1))
    heard = Heard(events)
    only = Heard(events, "checkpoint.failed")
    events.emit_checkpoint_created(checkpoint)
    events.emit_checkpoint_updated(checkpoint)
    events.emit_checkpoint_completed(checkpoint)
    events.emit_checkpoint_failed(checkpoint, {"message": "why"})
    events.emit_checkpoint_restored(checkpoint)
    types = [f"checkpoint.{name}" for name in TYPES]
    assert [event.type for event in heard.got] == types
    assert all(event.checkpoint is checkpoint for event in heard.got)
    assert [event.error_info for event in heard.got] == [None] * 3 + [{"message": "why"}, None]
    assert (heard.got[0].checkpoint_id, heard.got[0].task_id) == (checkpoint.checkpoint_id, "t")
    assert only.got == [heard.got[3]]


def test_any_bus_will_do(manager):
    class Queue:
        def __init__(self):
            self.sent = []

        def publish(self, event_type, event):
            self.sent.append((event_type, event))

    queue = Queue()
    events = CheckpointEvents(queue)
    checkpoint = manager.get_checkpoint(manager.create_checkpoint("t", "Title", 1))
    events.emit_checkpoint_created(checkpoint)
    assert queue.sent[0][0] == "checkpoint.created"
    with pytest.raises(ArgumentError):
        events.on("checkpoint.created", print)
    with pytest.raises(ArgumentError):
        CheckpointEvents("no bus")
    with pytest.raises(ArgumentError):
        events.emit_checkpoint_created("no checkpoint")


def test_a_bus_that_fails_breaks_nobody(manager, caplog):
    class Broken:
        def publish(self, event_type, event):
            raise ConnectionError("down")

    checkpoint = manager.get_checkpoint(manager.create_checkpoint("t", "Title", 1))
    with caplog.at_level(logging.ERROR, "ckptlog.events"):
        CheckpointEvents(Broken()).emit_checkpoint_created(checkpoint)
    assert "[callback.failed]" in caplog.text


# --- following -------------------------------------------------------------------------------


def test_what_this_process_commits_is_published_in_order(manager, events):
    live_a_life(manager)
    heard = Heard(events)
    with events.follow(manager):
        first, second = live_a_life(manager)
        got = heard.wait(6)
    names = ["created", "updated", "completed", "created", "failed", "restored"]
    assert [event.type for event in got] == [f"checkpoint.{name}" for name in names]
    assert [event.position for event in got] == list(range(6, 12))
    assert [event.checkpoint_id for event in got] == [first] * 3 + [second] * 3
    states = [event.checkpoint.state for event in got]
    assert states == [CheckpointState(name) if name != "updated" else CheckpointState.ACTIVE
                      for name in names]  # fmt: skip
    assert [event.checkpoint.data for event in got[:3]] == [{"n": 1}, {"n": 2}, {"n": 2}]
    assert [event.error_info for event in got[3:5]] == [None, {"message": "no luck"}]
    assert got[0].time.tzinfo is not None
    assert got[0].actor


def test_closing_publishes_what_was_committed_before(manager, events):
    heard = Heard(events)
    relay = events.follow(manager)
    for step in range(1, 21):
        manager.create_checkpoint("t", "Title", step)
    relay.close(timeout_s=10_000)  # it comes to an end by itself
    assert len(heard.got) == 20
    manager.create_checkpoint("t", "Title", 21)
    relay.close()
    assert len(heard.got) == 20


def test_closing_the_store_does_too(tmp_path, events):
    heard = Heard(events)
    with CheckpointManager(tmp_path / "store") as manager:
        events.follow(manager.store)
        for step in range(1, 6):
            manager.create_checkpoint("t", "Title", step)
    assert len(heard.got) == 5
    with pytest.raises(StoreClosedError):
        events.follow(manager.store)


def test_an_active_creation_and_a_batch_are_ours_too(manager, events):
    heard = Heard(events)
    with events.follow(manager):
        with manager.checkpoint_context("t", "Title", 1):
            pass
        with manager.batch() as batch:
            for step in range(2, 5):
                batch.create_checkpoint("t", "Title", step)
        manager.delete_task("t")
    kinds = [event.type.removeprefix("checkpoint.") for event in heard.got]
    assert kinds == ["created", "updated", "completed", *["created"] * 3, "task.deleted"]
    assert heard.got[-1].checkpoint is None


@pytest.mark.parametrize("others", [True, False])
def test_what_others_commit_is_published_when_asked_for(tmp_path, events, others):
    root = tmp_path / "store"
    with CheckpointManager(root) as manager:
        heard = Heard(events)
        with events.follow(manager, other_processes=others):
            Process(write, root, "other", 4).rest()
            manager.create_checkpoint("mine", "Title", 1, data={"a": 1})
            heard.wait(5 if others else 1)
        tasks = [event.task_id for event in heard.got]
        assert tasks == (["other"] * 4 if others else []) + ["mine"]
        assert all(event.checkpoint.task_id == event.task_id for event in heard.got)
        assert heard.got[-1].checkpoint.data == {"a": 1}


def test_a_named_relay_goes_on_where_it_ended(tmp_path, events):
    root = tmp_path / "store"
    heard = Heard(events)
    for round_ in range(3):
        with CheckpointManager(root) as manager:
            manager.create_checkpoint("t", "Title", round_ + 1)
            events.follow(manager, other_processes=True, start="beginning", consumer="relay")
    assert [event.position for event in heard.got] == [0, 1, 2]


def test_an_error_in_a_callback_is_logged_and_the_writer_and_the_others_go_on(
    manager, events, caplog
):
    def fail(event):
        raise ZeroDivisionError

    events.on("checkpoint.created", fail)
    heard = Heard(events)
    with caplog.at_level(logging.ERROR, "ckptlog.events"), events.follow(manager):
        for step in range(1, 4):
            manager.create_checkpoint("t", "Title", step)
    assert len(heard.got) == 3
    assert caplog.text.count("[callback.failed]") == 3


def test_a_callback_may_use_the_manager_it_hears_of(manager, events):
    """No lock is held while it runs, though the writer commits at the same time."""

    def complete(event):
        if event.task_id == "t":
            manager.complete_checkpoint(event.checkpoint_id)
            manager.create_checkpoint("echo", "Title", 1)

    events.on("checkpoint.created", complete)
    heard = Heard(events)
    with events.follow(manager):
        for step in range(1, 11):
            manager.create_checkpoint("t", "Title", step)
        heard.wait(30)
    assert sum(event.type == "checkpoint.completed" for event in heard.got) == 10


def test_a_callback_that_hangs_holds_up_no_writer(manager, events):
    free = threading.Event()
    events.on("*", lambda event: free.wait(LONG_S))
    relay = events.follow(manager)
    for step in range(1, 6):
        manager.create_checkpoint("t", "Title", step)
    begin_s = time.monotonic()
    relay.close(timeout_s=0.05)
    assert time.monotonic() - begin_s < LONG_S
    free.set()


def test_a_callback_may_close_the_relay(manager, events):
    done = threading.Event()

    def end(event):
        relay.close()
        done.set()

    relay = events.follow(manager)
    events.on("*", end)
    manager.create_checkpoint("t", "Title", 1)
    assert done.wait(LONG_S)


def test_damage_ends_the_relay_and_is_told(manager, events, caplog):
    first = manager.create_checkpoint("t", "Title", 1)
    relay = events.follow(manager, other_processes=True, start="beginning")
    relay.close()
    assert relay.error is None
    entry = manager.store.newest(first)
    path = manager.store.path / entry.container
    data = bytearray(path.read_bytes())
    data[entry.offset + 50] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.ERROR, "ckptlog.events"):
        relay = events.follow(manager, other_processes=True, start="beginning")
        relay._thread.join(LONG_S)
    assert relay.error.code == "log.corrupt"
    assert "[log.corrupt]" in caplog.text
    relay.close()
    data[entry.offset + 50] ^= 1
    path.write_bytes(data)


def test_a_forked_child_follows_a_store_of_its_own(manager, events):
    with events.follow(manager):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                mine = CheckpointEvents()
                heard = Heard(mine)
                with mine.follow(manager):
                    manager.create_checkpoint("child", "Title", 1)
                status = 0 if [e.task_id for e in heard.got] == ["child"] else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_watching_through_the_store(manager):
    store = manager.store
    first = manager.create_checkpoint("t", "Title", 1, data={"n": 1})
    manager.create_checkpoint("u", "Title", 1)
    with store.watch("one", tasks="t", follow=False) as subscription:
        (event,) = subscription
        assert (event.checkpoint, event.task, event.state) == (first, "t", "created")
        subscription.ack(event)
    (status,) = store.consumers()
    assert (status.name, status.position, status.lag) == ("one", 2, 0)
    assert store.reset_consumer("one") == 0
    assert store.consumers()[0].lag == 2
    assert store.remove_consumer("one")
    assert not store.remove_consumer("one")
    assert store.consumers() == []
    subscription = store.watch("one")
    store.close()
    assert list(subscription) == []
    with pytest.raises(StoreClosedError):
        store.watch()
    with ckptlog.open(store.path) as again, again.watch("one", follow=False) as subscription:
        assert len(list(subscription)) == 2
