"""The store as an object: what it reads, how it follows others, how it ends."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

import ckptlog
from ckptlog import ArgumentError, CheckpointManager, Store, StoreClosedError
from ckptlog.errors import BlobCorruptionError, LogCorruptionError, MissingBlobError
from ckptlog.model.event import Reference
from ckptlog.views.query import Filter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


@pytest.fixture
def manager(path):
    with CheckpointManager(path) as manager:
        yield manager


@pytest.fixture
def store(manager):
    return manager.store


# --- what it says of itself -----------------------------------------------------------------------


def test_identity(path, store):
    assert isinstance(store, Store)
    assert store.path == path
    assert store.id == store.info.id
    assert bytes.fromhex(store.id) == store.info.id_bytes
    assert (store.read_only, store.durability, store.position) == (False, "commit", 0)
    assert repr(store) == f"<Store {path} position 0>"
    store.close()
    assert repr(store) == f"<Store {path} closed>"
    with ckptlog.open(path) as again:
        assert again.id == store.id


def test_the_id_of_every_store_is_its_own(tmp_path):
    ids = set()
    for number in range(3):
        with ckptlog.open(tmp_path / str(number), create=True) as store:
            ids.add(store.id)
    assert len(ids) == 3


# --- events ---------------------------------------------------------------------------------------


@pytest.fixture
def many(manager):
    """200 events: alone, and in a commit of many."""
    for number in range(100):
        manager.create_checkpoint(f"t{number % 3}", "T", 1)
    with manager.batch() as batch:
        for _ in range(50):
            batch.create_checkpoint("t", "T", 1, activate=True)
    return manager.store


@pytest.mark.parametrize("is_applied", [False, True])
def test_ranges_of_events(many, is_applied):
    if is_applied:
        many.view()
    everything = list(many.events())
    assert [entry.position for entry in everything] == list(range(200))
    for start, end in itertools.product((0, 1, 63, 64, 65, 99, 100, 150, 199, 200, 500), repeat=2):
        if start <= end:
            assert list(many.events(start, end)) == everything[start:end]
    assert list(many.events(150)) == everything[150:]
    for position in (0, 99, 100, 101, 199):
        assert many.event_at(position) == everything[position]
    for position in (200, 10**12):
        assert many.event_at(position) is None
    with pytest.raises(ArgumentError):
        many.event_at(-5)


@pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (0, -1)])
def test_what_is_no_range_is_told_at_once(store, start, end):
    with pytest.raises(ArgumentError, match="are no range"):
        store.events(start, end)


def test_events_over_segments(path):
    """An iteration goes on through a roll of the log, and stops at what was published by then."""
    with CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = 4000
        for step in range(1, 11):
            manager.create_checkpoint("t", "T", step, data={"n": step})
        found = manager.store.events()
        first = next(found)
        for step in range(11, 41):
            manager.create_checkpoint("t", "T", step, data={"n": step})
        assert first.position == 0
        rest = [entry.position for entry in found]
        assert rest == list(range(1, len(rest) + 1))
        assert 10 <= len(rest) + 1 <= 40
        assert len(list(path.glob("log/*.seg"))) > 3
        assert [entry.position for entry in manager.store.events(15, 35)] == list(range(15, 35))
    with CheckpointManager(path) as manager:
        assert [one.data["n"] for one in manager.get_task_checkpoints("t")] == list(range(1, 41))
        assert manager.validate_checkpoint_integrity() == []


def test_a_damaged_event_stops_the_iteration_with_its_place(path):
    with CheckpointManager(path) as manager:
        for step in range(1, 4):
            manager.create_checkpoint("t", "T", step)
        offset = manager.store.event_at(1).offset
    (segment,) = path.glob("log/*.seg")
    with segment.open("r+b") as file:
        file.seek(offset + 30)
        file.write(b"\xff")
    with ckptlog.open(path) as store:
        found = store.events()
        assert next(found).position == 0
        with pytest.raises(LogCorruptionError, match="at offset"):
            next(found)


# --- payloads -------------------------------------------------------------------------------------


def test_values_and_wires(manager, store):
    data = {"a": [1, b"x", (2,)], "long": list(range(20_000))}
    manager.create_checkpoint("t", "T", 1, "D", data=data, metadata={"m": 1})
    event = store.event_at(0).event
    assert store.value(event.data) == data
    assert store.value(event.data) is not store.value(event.data)
    assert store.value(event.meta) == {"title": "T", "description": "D", "metadata": {"m": 1}}
    assert len(store.wire(event.data)) == event.data.size
    assert store.value(None) is None
    with pytest.raises(MissingBlobError):
        store.wire(Reference("leaf", "0" * 64, 3))
    for wrong in (
        Reference("leaf", "../etc", 3),
        Reference("what", event.data.root, 3),
        Reference(event.data.kind, event.data.root, event.data.size + 1),
    ):
        with pytest.raises(BlobCorruptionError):
            store.wire(wrong)


# --- look-ups -------------------------------------------------------------------------------------


def test_newest(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    manager.update_checkpoint(name, data={"a": 1})
    assert store.newest(name).position == store.newest_ever(name).position == 1
    assert store.latest("t").position == 1
    manager.delete_checkpoint(name)
    assert store.newest(name) is None
    assert store.newest_ever(name).position == 2
    assert store.latest("t") is None
    assert store.newest("nobody") is store.newest_ever("nobody") is store.latest("nobody") is None


def test_commands_and_counts(manager, store):
    manager.create_checkpoint("t", "T", 1, command_id="id")
    manager.create_checkpoint("u", "U", 1)
    for _ in range(2):
        assert store.command("id").subject.task == "t"
        assert store.command("nobody") is None
        assert store.count(Filter()) == 2
        assert store.count(Filter(task="t")) == 1
        store.rebuild_views()


def test_a_row_of_one_that_was_deleted_since(manager, store):
    names = [manager.create_checkpoint(f"t{number}", "T", 1) for number in range(3)]
    rows = store.select(Filter(), after=None, limit=10)
    manager.delete_checkpoint(names[0])
    manager.delete_task("t1")
    assert store.read_row(rows[0]) is None
    assert store.read_row(rows[1]) is None
    assert store.read_row(rows[2])[0].event.subject.checkpoint == names[2]


# --- following others -----------------------------------------------------------------------------


def test_two_stores_on_one_directory(path):
    """Each sees at its next question what the other has committed."""
    with CheckpointManager(path) as one, CheckpointManager(path) as two:
        names = []
        for turn in range(20):
            writer, reader = (one, two) if turn % 2 else (two, one)
            names.append(writer.create_checkpoint("t", "T", turn + 1, data={"n": turn}))
            assert reader.get_checkpoint(names[-1]).data == {"n": turn}
            assert reader.get_latest_checkpoint("t").checkpoint_id == names[-1]
            if turn % 3 == 0:
                reader.update_checkpoint(names[-1], data={"m": turn})
                assert writer.get_checkpoint(names[-1]).data == {"n": turn, "m": turn}
            found = [one.checkpoint_id for one in reader.get_task_checkpoints("t")]
            assert found == names
        two.delete_task("t")
        assert one.get_latest_checkpoint("t") is None
        assert one.get_task_checkpoints("t") == []
        assert one.store.position == two.store.position


def test_a_store_that_was_asleep(path):
    """Thousands of events behind, and its view was brought on by another."""
    with CheckpointManager(path) as sleeper, CheckpointManager(path) as other:
        name = sleeper.create_checkpoint("t", "T", 1, data={"n": 0})
        other.get_task_checkpoints("t")
        for turn in range(1, 1201, 100):
            with other.batch() as batch:
                for step in range(turn, turn + 100):
                    batch.update_checkpoint(name, step_number=step)
        other.get_task_checkpoints("t")
        assert sleeper.get_checkpoint(name).step_number == 1200
        sleeper.update_checkpoint(name, data={"n": 1})
        assert other.get_checkpoint(name).data == {"n": 1}
        assert sleeper.get_checkpoint_at(name, 600).step_number == 600


@pytest.mark.parametrize("is_open", [False, True])
def test_rebuilding_gives_the_same_answers(path, is_open):
    with CheckpointManager(path) as manager:
        names = [manager.create_checkpoint(f"t{n % 2}", "T", n + 1) for n in range(30)]
        for name in names[::3]:
            manager.complete_checkpoint(name)
        manager.delete_checkpoint(names[4])
        expected = list(manager.iterate())
        if is_open:
            assert manager.store.rebuild_views() == manager.store.position
            assert list(manager.iterate()) == expected
    with CheckpointManager(path) as manager:
        assert manager.store.rebuild_views() == 41
        assert list(manager.iterate()) == expected
        assert manager.validate_checkpoint_integrity() == []


# --- the end --------------------------------------------------------------------------------------


def test_closing_twice_and_using_after(path):
    with ckptlog.open(path, create=True) as store:
        store.close()
        store.close()
    reference = Reference("leaf", "0" * 64, 3)
    for use in (
        lambda: store.position,
        store.events,
        lambda: store.event_at(0),
        lambda: store.newest("x"),
        lambda: store.newest_ever("x"),
        lambda: store.latest("t"),
        lambda: store.read("x"),
        lambda: store.wire(reference),
        lambda: store.value(reference),
        lambda: store.count(Filter()),
        lambda: store.command("x"),
        store.view,
        store.rebuild_views,
        store.verify,
        store.stats,
        store.doctor,
        store.catch_up,
    ):
        with pytest.raises(StoreClosedError, match="was closed") as caught:
            use()
        assert caught.value.hint == "Open it again."


def test_no_descriptor_and_no_thread_is_left(path):
    def count():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with ckptlog.open(path, create=True) as store:
        CheckpointManager(store=store).create_checkpoint("t", "T", 1)
    before = count()
    for durability in ("commit", "interval") * 2:
        with ckptlog.open(path, durability=durability, interval_s=0.001) as store:
            manager = CheckpointManager(store=store)
            name = manager.create_checkpoint("t", "T", 1, data={"x": os.urandom(700_000).hex()})
            manager.update_checkpoint(name, data={"y": 1})
            assert len(manager.get_task_checkpoints("t")) > 1
            assert store.verify().ok
        for thread in threading.enumerate():
            if thread.name == "ckptlog-flush":
                thread.join()
    assert count() == before


def test_a_closed_store_is_small_and_whole(path):
    """No zeros made ahead stay in the log, and nothing waits to be taken into the view."""
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
    (segment,) = path.glob("log/*.seg")
    assert segment.stat().st_size < 2000
    with ckptlog.open(path) as store:
        assert store._keeper.ledger.pending == []
        assert store.newest(name) is not None
