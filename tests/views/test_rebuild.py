"""A view built from the log in bulk is the one that was fed commit by commit."""

from __future__ import annotations

import random

import pytest

import ckptlog
from ckptlog import CheckpointManager, LogCorruptionError
from ckptlog.log.bulk import BulkReader
from ckptlog.views.current import CurrentView
from ckptlog.views.query import Filter
from ckptlog.views.rebuild import Rebuild

BOOT = b"first boot id 16"


@pytest.fixture
def path(tmp_path):
    """Make a store with a bit of everything, over several segments."""
    path = tmp_path / "store"
    chance = random.Random(2)
    with CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = 20_000
        names = []
        for step in range(1, 90):
            data = {"text": "x" * chance.choice([5, 300, 20_000])}
            names.append(manager.create_checkpoint(f"t{step % 5}", f"T{step % 7}", step, data=data))
            name = chance.choice(names)
            act = chance.choice(["update", "complete", "fail", "restore", "batch", "delete"])
            try:
                if act == "update":
                    manager.update_checkpoint(name, metadata={"n": step})
                elif act == "complete":
                    manager.complete_checkpoint(name, {"done": True})
                elif act == "fail":
                    manager.fail_checkpoint(name, {"type": "E", "message": "m" * 9000})
                elif act == "restore":
                    manager.restore_checkpoint(name)
                elif act == "delete" and step % 3 == 0:
                    manager.delete_checkpoint(name)
                    names.remove(name)
                else:
                    with manager.batch() as batch:
                        names += [batch.create_checkpoint("b", "B", n) for n in range(1, 6)]
            except ckptlog.CheckpointUpdateError:
                pass
        manager.delete_task("t3")
    assert len(list(path.glob("log/*.seg"))) > 5
    return path


def rebuilt(store, view, **options):
    bulk = BulkReader(store.log.segments, store.info.id_bytes)
    raw_of = options.pop("raw_of", store.blobs.raw)
    return Rebuild(store.log.reader, bulk, raw_of).run(view, store.log.published.read())


def new_view(store, path):
    return CurrentView.open(path, store.info.id_bytes, boot=BOOT)


def told(view):
    rows = view.select(Filter(), limit=10_000)
    deleted = [view.row(f"cp-{n}") for n in range(3)]
    return view.mark, view.totals(), rows, view.counts_by_state(), view.tasks(), deleted


@pytest.mark.parametrize("events", [1, 7, 4096])
def test_it_says_what_the_other_says(path, tmp_path, monkeypatch, events):
    monkeypatch.setattr("ckptlog.views.rebuild._STRETCH_EVENTS", events)
    with ckptlog.open(path) as store:
        view = new_view(store, tmp_path / "new" / "current.sqlite")
        assert rebuilt(store, view)
        assert told(view) == told(store.view())
        assert view.check() == []
        for entry in store.events():
            assert view.command(entry.event.id) == entry.position
            assert view.waypoint(entry.position) == store.view().waypoint(entry.position)
        view.close()


def test_titles_come_from_beside_their_events(path, tmp_path):
    asked = []

    with ckptlog.open(path) as store:

        def raw_of(digest, domain):
            asked.append(digest)
            return store.blobs.raw(digest, domain)

        view = new_view(store, tmp_path / "new" / "current.sqlite")
        rebuilt(store, view, raw_of=raw_of)
        assert len(asked) < 10 < view.totals().checkpoints
        assert all(row.meta for row in view.select(Filter(), limit=1000))
        view.close()


def test_from_the_mark_on(path, tmp_path):
    with CheckpointManager(path) as manager:
        store = manager.store
        view = new_view(store, tmp_path / "new" / "current.sqlite")
        assert rebuilt(store, view)
        manager.create_checkpoint("t", "T", 1)
        assert rebuilt(store, view)
        assert told(view) == told(store.view())
        assert rebuilt(store, view)  # nothing is new
        view.close()


def test_a_damaged_title_is_left_out_and_stops_nothing(path, tmp_path):
    with ckptlog.open(path) as store:
        view = new_view(store, tmp_path / "new" / "current.sqlite")
        rebuild = Rebuild(
            store.log.reader,
            BulkReader(store.log.segments, store.info.id_bytes),
            store.blobs.raw,
        )
        rebuild._codec.raw = lambda *_, **__: (_ for _ in ()).throw(
            ckptlog.BlobCorruptionError("damaged")
        )
        assert rebuild.run(view, store.log.published.read())
        assert view.totals() == store.view().totals()
        assert any(row.meta is None for row in view.select(Filter(), limit=1000))
        view.close()


def test_a_damaged_log_leaves_the_view_as_it_was(path, tmp_path):
    with ckptlog.open(path) as store:
        view = new_view(store, tmp_path / "new" / "current.sqlite")
        segment = sorted(path.glob("log/*.seg"))[3]
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        with pytest.raises(LogCorruptionError):
            rebuilt(store, view)
        assert view.mark.position == 0
        assert view.check() == []
        view.close()


def test_a_log_that_cannot_be_read_in_bulk_is_read_all_the_same(path, tmp_path, monkeypatch):
    monkeypatch.setattr(BulkReader, "stretches", lambda *_, **__: iter(()))
    with ckptlog.open(path) as store:
        view = new_view(store, tmp_path / "new" / "current.sqlite")
        assert rebuilt(store, view)
        assert told(view) == told(store.view())
        view.close()


def test_an_event_that_is_none_is_told_with_its_place(path, tmp_path, monkeypatch):
    from ckptlog.errors import FormatError

    def refuse(entry):
        raise FormatError("These bytes are no event.")

    with ckptlog.open(path) as store:
        view = new_view(store, tmp_path / "new" / "current.sqlite")
        monkeypatch.setattr("ckptlog.views.rebuild.event_format.decode", refuse)
        with pytest.raises(LogCorruptionError, match="position 0"):
            rebuilt(store, view)
        view.close()
