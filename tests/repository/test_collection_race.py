"""Collection, stopped at every step, and beside writers and other collections."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from ckptlog import CollectionBusyError
from ckptlog.blobs.pack import read_index
from ckptlog.errors import FullError
from ckptlog.log.log import Log
from ckptlog.policy.command import Settle
from ckptlog.policy.decide import Stale
from ckptlog.repository import choice, collection, disposal, emptier, layout
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.store import Store
from ckptlog.storage import files
from tests.repository.ground import TEXTS, Story, check_files, events_of, quiet
from tests.repository.test_collection import opened


class Stop(BaseException):
    """The process ends here."""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 5000)
    return tmp_path / "store"


def stop_at(monkeypatch, owner, name, *, at, before=False):
    """Let the n-th call of something end the process, after it or before it."""
    real, calls = getattr(owner, name), []

    def stopping(*args, **options):
        calls.append(1)
        if before and len(calls) == at:
            raise Stop
        answer = real(*args, **options)
        if len(calls) == at:
            raise Stop
        return answer

    monkeypatch.setattr(owner, name, stopping)
    return calls


STOPS = {
    "S1 a settled form": (emptier.settling.Written, "fill"),
    "S1 its name": (emptier.settling.Written, "publish"),
    "S1 in its writing": (files, "sync_file"),
    "S2 packs": (collection.Mover, "move"),
    "S3 the event": (Store, "submit_with_reserve"),
    "S4 the end": (disposal.Disposal, "make_durable"),
    "S5 files": (files, "remove"),
    "S5 all of a batch": (disposal.Disposal, "remove"),
    "S6 the sweep": (collection._Collection, "_remove_orphans"),
    "S6 the index": (Store, "renew_index"),
}


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("where", STOPS)
def test_stopped_anywhere_the_next_one_finishes(path, monkeypatch, where, at):
    monkeypatch.setattr(choice, "_CONTAINERS", 2)
    story = Story(at)
    with opened(path) as manager:
        story.steps(manager, 60)
        with pytest.MonkeyPatch.context() as patch:
            for before in (True, False):
                calls = stop_at(patch, *STOPS[where], at=at, before=before)
                try:
                    quiet(manager)
                except Stop:
                    assert calls
                patch.undo()
                story.check(manager)
                with opened(path) as other:
                    story.check(other)
                    story.steps(other, 4).check(manager)
        quiet(manager)
        story.check(manager)
        story.check_past(manager)
    check_files(path)


# --- writers between preparation and commit -----------------------------------------------------


def once_before_commit(monkeypatch, manager, act):
    """Do something when the manager has prepared and not yet committed, once."""
    real, done = manager.store.submit, []

    def submit(intent):
        if not done:
            done.append(len(intent.packs))
            act()
        outcome = real(intent)
        done.append(outcome)
        return outcome

    monkeypatch.setattr(manager.store, "submit", submit)
    return done


def test_packs_prepared_before_the_fence_are_not_registered_after_it(path, monkeypatch):
    data = {"x": list(TEXTS[:20])}
    with opened(path) as manager, opened(path) as other:
        story = Story(1).steps(other, 30)

        def act():
            story.steps(other, 3)
            quiet(other)
            other.create_checkpoint("z", "T", 1, checkpoint_id="one-more", data={"n": 1})
            quiet(other)

        done = once_before_commit(monkeypatch, manager, act)
        manager.create_checkpoint("new", "T", 1, checkpoint_id="new", data=data)
        assert done[0] > 0
        assert isinstance(done[1], Stale)
        assert "collection" in done[1].why
        assert other.get_checkpoint("new").data == data
        story.living |= {"new": data, "one-more": {"n": 1}}
        quiet(other)
        story.check(manager)
        story.check(other)
    check_files(path)


def test_packs_prepared_at_the_fence_itself_are_left_alone(path, monkeypatch):
    """Nobody has registered them yet, and somebody may."""
    data = {"x": list(TEXTS[:20])}
    with opened(path) as manager, opened(path) as other:
        story = Story(3).steps(other, 30)
        manager.store.catch_up()
        done = once_before_commit(monkeypatch, manager, lambda: quiet(other))
        manager.create_checkpoint("new", "T", 1, checkpoint_id="new", data=data)
        assert done[0] > 0
        assert not isinstance(done[1], Stale)
        story.living["new"] = data
        for one in (manager, other):
            one.store.blobs.close()
            story.check(one)
        quiet(other)
        story.check(manager)
    check_files(path)


def test_packs_prepared_after_a_collection_are_registered_during_the_next(path, monkeypatch):
    """A collection leaves alone what it has not seen, and a fence at its base lets it in."""
    data = {"x": list(TEXTS[:20])}
    with opened(path) as manager, opened(path) as other:
        story = Story(2).steps(other, 30)
        real = Store.submit_with_reserve

        def submit(store, intent):
            if isinstance(intent.steps[0].command, Settle) and "new" not in story.living:
                story.living["new"] = data
                manager.create_checkpoint("new", "T", 1, checkpoint_id="new", data=data)
            return real(store, intent)

        monkeypatch.setattr(Store, "submit_with_reserve", submit)
        quiet(other)
        monkeypatch.undo()
        assert "new" in story.living
        story.check(manager)
        story.check(other)
        quiet(manager)
        story.check(other)
    check_files(path)


@pytest.mark.parametrize("texts", [2, 20], ids=["log", "pack"])
@pytest.mark.parametrize("how", ["delete", "delete_task", "replace"])
def test_a_witness_that_goes_between_preparation_and_commit(path, monkeypatch, how, texts):
    data = {"x": list(TEXTS[:texts])}
    with opened(path) as manager, opened(path) as other:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="holder", data=data)

        def act():
            if how == "delete":
                other.delete_checkpoint("holder")
            elif how == "delete_task":
                other.delete_task("t")
            else:
                other.update_checkpoint("holder", data={"x": []})
            quiet(other, drop_superseded=True)
            other.create_checkpoint("z", "T", 1, data={"n": 1})
            quiet(other, drop_superseded=True)

        done = once_before_commit(monkeypatch, manager, act)
        grown = {"x": [*data["x"], "more"]}
        manager.create_checkpoint("t", "T", 2, checkpoint_id="new", data=grown)
        assert any(isinstance(one, Stale) for one in done[1:])
        for one in (manager, other):
            one.store.blobs.close()
            assert one.get_checkpoint("new").data == grown
        quiet(other, drop_superseded=True)
        manager.store.blobs.close()
        assert manager.get_checkpoint("new").data == grown
    check_files(path, drops=True)


def test_what_was_dropped_and_is_needed_again_is_written_again(path):
    data = {"x": list(TEXTS[:3])}
    with opened(path) as manager, opened(path) as other:
        for number in range(5):
            name = f"c{number}"
            manager.create_checkpoint("t", "T", 1, checkpoint_id=name, data=data)
            other.store.blobs.close()
            assert other.get_checkpoint(name).data == data
            manager.delete_checkpoint(name)
            quiet(other if number % 2 else manager)
        manager.create_checkpoint("t", "T", 1, checkpoint_id="last", data=data)
        other.store.blobs.close()
        assert other.get_checkpoint("last").data == data


# --- collections beside each other --------------------------------------------------------------


def without_lock(monkeypatch, tmp_path):
    """Give every collection a folder of its own, as two machines would have."""
    count = iter(range(1000))

    @contextmanager
    def workplace(_store):
        folder = tmp_path / f"work-{next(count)}"
        folder.mkdir()
        yield folder

    monkeypatch.setattr(collection, "workplace", workplace)


@pytest.mark.parametrize("writes", [0, 3])
@pytest.mark.parametrize("where", [one for one in STOPS if one != "S1 in its writing"])
def test_another_collection_at_every_step(path, tmp_path, monkeypatch, where, writes):
    without_lock(monkeypatch, tmp_path)
    monkeypatch.setattr(choice, "_CONTAINERS", 2)
    story = Story(7 + writes)
    with opened(path) as manager, opened(path) as other:
        story.steps(manager, 50)
        owner, name = STOPS[where]
        real, inside = getattr(owner, name), []

        def meanwhile(*args, **options):
            if not inside:
                inside.append(1)
                story.steps(other, writes)
                quiet(other)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, meanwhile)
        try:
            quiet(manager)
        except CollectionBusyError as error:
            assert "faster" in error.message
        monkeypatch.setattr(owner, name, real)
        assert inside
        story.check(manager)
        story.check(other)
        story.steps(manager, 3)
        quiet(manager)
        story.check(other)
        story.check_past(other)
    check_files(path)


def test_the_slower_one_leaves_no_packs(path, tmp_path, monkeypatch):
    without_lock(monkeypatch, tmp_path)
    with opened(path) as manager, opened(path) as other:
        story = Story(20).steps(manager, 50)
        real = Store.submit_with_reserve

        def submit(store, intent):
            if store is manager.store and intent.packs:
                monkeypatch.setattr(Store, "submit_with_reserve", real)
                story.steps(other, 2)
                quiet(other)
                written.extend(f"{one.base:020d}-{one.id}.pack" for one in intent.packs)
            return real(store, intent)

        written = []
        monkeypatch.setattr(Store, "submit_with_reserve", submit)
        with pytest.raises(CollectionBusyError):
            quiet(manager)
        assert written
        assert not [name for name in written if (path / "packs" / name).exists()]
        story.check(manager)


def test_two_that_would_leave_a_chunk_to_each_other(path, tmp_path, monkeypatch):
    """LATEST: only a later container may be relied on, so no two empty ones rely on each other."""
    without_lock(monkeypatch, tmp_path)
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)
    with opened(path, 10**9) as manager, opened(path, 10**9) as other:
        data = {"x": [one for one in TEXTS if len(one) > 5000][:3]}
        for task in "ab":
            manager.create_checkpoint(task, "T", 1, checkpoint_id=task, data=data)
        early, late = (f"packs/{one.name}" for one in sorted(path.glob("packs/*.pack")))
        places = {one.digest: one for one in read_index(path / early, manager.store.info.id_bytes)}
        # The one knows the earlier copies only, and has them open; the other the later ones.
        manager.store.index._view.tail.update(places)
        for place in places.values():
            manager.store.blobs.read_record(place)
        real_chosen, real_move = collection._Collection._chosen, collection.Mover.move

        def chosen(self, mover, sources):
            wanted = late if self._store is manager.store else early
            found = [(one, mover.survey(one)) for one in sources if one.container == wanted]
            assert real_chosen(self, mover, sources) == []
            return found

        def move(self, *args):
            if self._blobs is manager.store.blobs:
                other.store.compact(CollectOptions(seal_bytes_min=10**9))
            return real_move(self, *args)

        monkeypatch.setattr(collection._Collection, "_chosen", chosen)
        monkeypatch.setattr(collection.Mover, "move", move)
        manager.store.compact(CollectOptions(seal_bytes_min=10**9))
        assert not (path / early).exists()
        assert not (path / late).exists()
        for one in (manager, other):
            one.store.blobs.close()
            assert [found.data for found in one.iterate()] == [data, data]


def test_a_lower_fence_is_refused(path):
    with opened(path) as manager:
        Story(21).steps(manager, 30)
        quiet(manager)
        command = Settle(actor="x", command="settle-1", fence=3, removes=(), facts={})
        count = manager.store.position
        assert isinstance(manager.store.submit(Intent((Step(command),), (), ())), Stale)
        assert manager.store.position == count
        same = msgspec.structs.replace(command, fence=count)
        assert not isinstance(manager.store.submit(Intent((Step(same),), (), ())), Stale)
        # The same command again is the same event, whatever the fence is by now.
        later = msgspec.structs.replace(same, fence=count + 1, command="settle-2")
        assert not isinstance(manager.store.submit(Intent((Step(later),), (), ())), Stale)


def test_the_fence_outlives_views_and_restarts(path):
    with opened(path) as manager:
        Story(22).steps(manager, 20)
        quiet(manager)
        fence = events_of(path)[-1].facts["fence"]
        assert manager.store._keeper.ledger.fence == fence
    with opened(path) as manager:
        assert manager.store._keeper.ledger.fence == fence
        manager.store.rebuild_views()
        assert manager.store._keeper.ledger.fence == fence
    shutil.rmtree(path / "views")
    with opened(path) as manager:
        assert manager.store._keeper.ledger.fence == fence


def test_nothing_is_removed_before_the_log_says_so_durably(path, monkeypatch):
    """Rule DELETE LAST: the event, then the end on the medium, then the files."""
    with opened(path) as manager:
        Story(24).steps(manager, 40)
        real = {name: getattr(Path, name) for name in ("unlink",)}
        said, synced, removed = [], [], []

        def publish(log, timeout_s=30.0, _real=Log.publish_durably):
            _real(log, timeout_s)
            synced[:] = [name for event in events_of(path) for name in event.removes]

        def unlink(self, missing_ok=False):
            name = f"{self.parent.name}/{self.name}"
            if self.parent.name in {"log", "packs"} and self.suffix in {".seg", ".pack"}:
                removed.append(name)
                said.append(name in synced)
            return real["unlink"](self, missing_ok=missing_ok)

        monkeypatch.setattr(Log, "publish_durably", publish)
        monkeypatch.setattr(Path, "unlink", unlink)
        quiet(manager)
        monkeypatch.undo()
    assert removed
    assert all(said), removed


# --- a full disk --------------------------------------------------------------------------------


def test_the_reserve_helps_over_the_first_step(path, monkeypatch):
    with opened(path) as manager:
        story = Story(23).steps(manager, 30)
        real, released = emptier.settling.write, []

        def write(segments, sealed, *arguments, **options):
            if not released:
                raise FullError("No space.", hint="")
            return real(segments, sealed, *arguments, **options)

        def release(root):
            released.append(root)
            return True

        monkeypatch.setattr(emptier.settling, "write", write)
        monkeypatch.setattr(layout, "release_reserve", release)
        quiet(manager)
        assert released == [path]
        story.check(manager)


def halves(manager):
    """Make segments of which half is garbage."""
    for step in range(1, 13):
        kept = manager.create_checkpoint(f"{step % 2}", "T", step, data={"b": os.urandom(3000)})
    manager.delete_task("0")
    return kept


def no_room(monkeypatch, is_full):
    """Let copies fail while it is full, as is told by the containers and what was copied."""
    monkeypatch.setattr(choice, "_CONTAINERS", 1)
    real, copied, refused = collection.Mover.move, [], []

    def moving(mover, sources, *arguments):
        names = [source.container for source in sources]
        if is_full(names, copied):
            refused.append(names)
            raise FullError("No space.", hint="")
        answer = real(mover, sources, *arguments)
        copied.append(names)
        return answer

    monkeypatch.setattr(collection.Mover, "move", moving)
    return copied, refused


def test_the_reserve_helps_over_a_copy_too(path, monkeypatch):
    with opened(path, 5000) as manager:
        halves(manager)
        no_room(monkeypatch, lambda *_: (path / "reserve").exists())
        assert quiet(manager).chunks_kept > 0
    assert (path / "reserve").exists()


def test_room_that_came_later_serves_what_there_was_none_for(path, monkeypatch):
    with opened(path, 5000) as manager:
        halves(manager)
        first = []

        def is_full(names, copied):
            first.append(names)
            return names == first[0] and len(copied) < 2

        copied, refused = no_room(monkeypatch, is_full)
        quiet(manager)
        assert len(refused) >= 2
        assert refused[0] in copied[2:]


def test_without_any_room_it_says_so_and_leaves_nothing(path, monkeypatch):
    with opened(path, 5000) as manager:
        halves(manager)
        before = sorted(path.glob("packs/*"))
        no_room(monkeypatch, lambda *_: True)
        with pytest.raises(FullError):
            quiet(manager)
        assert sorted(path.glob("packs/*")) == before
        assert not [*path.glob("log/*.set"), *path.glob("**/*.tmp")]


def test_a_newest_segment_that_cannot_be_finished_is_left(path, monkeypatch):
    with opened(path) as manager:
        Story(23).steps(manager, 60)

        def seal(*_):
            raise FullError("No space.", hint="")

        monkeypatch.setattr(manager.store.log, "seal", seal)
        assert quiet(manager).segments > 0


def test_an_event_without_room_leaves_no_packs(path, monkeypatch):
    with opened(path, 5000) as manager:
        halves(manager)
        before = sorted(path.glob("packs/*"))

        def submit(_):
            raise FullError("No space.", hint="")

        monkeypatch.setattr(manager.store, "submit_with_reserve", submit)
        with pytest.raises(FullError):
            quiet(manager)
        assert sorted(path.glob("packs/*")) == before
        assert not list(path.glob("log/*.set"))


def test_what_is_nothing_but_garbage_goes_first(path, monkeypatch):
    monkeypatch.setattr(choice, "_CONTAINERS", 1)
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)
    with opened(path, 10**9) as manager:
        kept = manager.create_checkpoint("a", "T", 1, data={"x": list(TEXTS[:9])})
        manager.update_checkpoint(kept, data={"x": list(TEXTS[:8])})
        gone = manager.create_checkpoint("b", "T", 1, data={"x": list(TEXTS[9:20])})
        manager.delete_checkpoint(gone)
        packs = [f"packs/{one.name}" for one in sorted(path.glob("packs/*.pack"))]
        manager.store.compact(
            CollectOptions(garbage_min=0, drop_superseded=True, seal_bytes_min=10**9)
        )
    order = [name for event in events_of(path) for name in event.removes]
    assert order[0] == packs[-1]
    assert set(order) <= set(packs)
