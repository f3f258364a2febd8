"""Recoveries of what is gone, damaged, older or elsewhere, and what is kept meanwhile."""

from __future__ import annotations

import os
import queue
import shutil
import sqlite3
import threading
import time
from datetime import UTC, datetime

import pytest

from ckptlog import (
    CallableComponent,
    CheckpointConfiguration,
    CheckpointManager,
    FileComponent,
    QueueComponent,
    SqliteComponent,
)
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.draft import draft_of
from ckptlog.errors import (
    CaptureFailedError,
    CheckpointNotFoundError,
    RecoveryFailedError,
    RecoveryRefusedError,
)
from ckptlog.manager.fact import is_pinned
from ckptlog.recovery.recovery import Recovery
from ckptlog.views.query import Filter
from tests.capture.sample import Value


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store", actor="tester") as manager:
        yield manager


class Last(Value):
    """Fails, once, after all others were restored."""

    fails = False

    def restore(self, payload):
        if self.fails:
            self.fails = False
            raise RuntimeError("no")
        self.value = payload


def fill(folder, word):
    (folder / "tree" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "tree" / "deep" / "a.txt").write_text(word)
    (folder / "settings.json").write_text(f'"{word}"')
    database = sqlite3.connect(folder / "app.db")
    database.executescript("create table if not exists t (word text); delete from t")
    database.execute("insert into t values (?)", (word,))
    database.commit()
    database.close()


def words(folder):
    database = sqlite3.connect(f"file:{folder / 'app.db'}?mode=ro", uri=True)
    found = database.execute("select word from t").fetchone()[0]
    database.close()
    tree = (folder / "tree" / "deep" / "a.txt").read_text()
    return found, tree, (folder / "settings.json").read_text()


@pytest.fixture
def live(manager, tmp_path):
    folder = tmp_path / "live"
    fill(folder, "old")
    last = Last("last", 1, depends_on=["db", "tree", "settings"])
    parts = [
        SqliteComponent("db", folder / "app.db"),
        DirectoryComponent("tree", folder / "tree"),
        FileComponent("settings", folder / "settings.json"),
        last,
    ]
    capturer = Capturer(manager, "sys", parts)
    info = capturer.capture()
    return folder, info, Recovery(capturer), last


OLD = ("old", "old", '"old"')
NEW = ("new", "new", '"new"')


def test_at_a_time_and_at_a_position(live):
    folder, info, recovery, _ = live
    time.sleep(0.01)
    fill(folder, "new")
    second = recovery.capturer.capture()
    assert recovery.recover(at=info.position).capture_id == info.id
    assert words(folder) == OLD
    assert recovery.recover(at=second.created_at).capture_id == second.id
    assert words(folder) == NEW
    with pytest.raises(CheckpointNotFoundError):
        recovery.recover(at=datetime(2001, 1, 1, tzinfo=UTC))


def test_elsewhere_each_kind(live, tmp_path):
    folder, _, recovery, _ = live
    fill(folder, "new")
    done = recovery.recover(to=tmp_path / "out")
    assert (done.status, done.safety_id) == ("completed", "")
    out = tmp_path / "out"
    (out / "db").rename(out / "app.db")
    (out / "settings").rename(out / "settings.json")
    assert words(out) == OLD
    assert (out / "last.json").read_text() == "1\n"
    assert words(folder) == NEW


class Older(Value):
    schema_version = 1


class Newer(Value):
    schema_version = 2

    def migrate(self, payload, from_version):
        assert from_version == 1
        return {"count": payload["n"]}

    def validate(self, payload):
        return [] if "count" in payload else ["has no count"]


def test_an_older_payload_is_migrated(manager):
    Capturer(manager, "sys", [Older("a", {"n": 7})]).capture()
    part = Newer("a", {"count": 0})
    recovery = Recovery(Capturer(manager, "sys", [part]))
    assert recovery.recover(dry_run=True).errors == ()
    assert recovery.recover().status == "completed"
    assert part.value == {"count": 7}
    old = Older("a", {"n": 1})
    back = Recovery(Capturer(manager, "sys", [old]))
    newest = back.capturer.capture()
    Capturer(manager, "sys", [part]).capture()
    with pytest.raises(RecoveryRefusedError, match="schema version 2"):
        back.recover()
    assert old.value == {"n": 1}
    assert back.recover(newest.id).status == "completed"


def test_a_damaged_payload_is_refused_before_anything_is_touched(live, monkeypatch):
    folder, info, recovery, _ = live
    fill(folder, "new")
    store = recovery.capturer.manager.store
    root = bytes.fromhex(info.components["tree"].root)
    real = store.blobs.raw

    def raw(digest, *more):
        found = real(digest, *more)
        if digest != root:
            return found
        return bytes([found[0] ^ 1]) + found[1:]

    monkeypatch.setattr(store.blobs, "raw", raw)
    position = store.position
    with pytest.raises(RecoveryRefusedError, match="tree"):
        recovery.recover()
    assert words(folder) == NEW
    assert store.position == position
    assert recovery.recover(dry_run=True).errors


# --- gone ----------------------------------------------------------------------------------------


def test_what_was_deleted_comes_back(live):
    folder, info, recovery, _ = live
    fill(folder, "new")
    shutil.rmtree(folder)
    dry = recovery.recover(dry_run=True)
    assert dry.errors == ()
    assert [one.kind for one in dry.plans["tree"].changes] == ["add", "add"]
    assert not folder.exists()
    done = recovery.recover()
    assert words(folder) == OLD
    assert [name for name in ("db", "tree") if name in " ".join(done.errors)] == ["db", "tree"]
    safety = recovery.capturer.find(done.safety_id)
    assert [name for name, one in safety.components.items() if one.kind == "absent"] == [
        "db",
        "tree",
    ]
    assert recovery.unfinished() is None
    assert recovery.recover(info.id).errors == ()


def test_what_was_missing_is_missing_again_after_a_failure(live):
    folder, _, recovery, last = live
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "settings.json").write_text("mine")
    last.fails = True
    with pytest.raises(RecoveryFailedError) as caught:
        recovery.recover()
    assert caught.value.context["rolled_back"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["app.db.undone-1", "settings.json", "tree.undone-1"]
    assert (folder / "settings.json").read_text() == "mine"
    assert recovery.unfinished() is None
    assert recovery.recover(recovery.find().id).status == "completed"
    assert words(folder) == OLD


@pytest.mark.parametrize("how", ["resume", "roll_back"])
def test_an_unfinished_one_remembers_what_was_missing(live, how, monkeypatch):
    folder, info, recovery, _ = live
    shutil.rmtree(folder / "tree")
    (folder / "app.db").unlink()
    monkeypatch.setattr("ckptlog.recovery.run.Run._fail", lambda *_: (_ for _ in ()).throw(Gone))
    recovery.capturer.components["last"].fails = True
    with pytest.raises(Gone):
        recovery.recover()
    monkeypatch.undo()
    with draft_of(folder / "app.db") as draft:  # of a restore that was killed in between
        os.close(draft.fd)
        draft.fd = -1
        draft.path.rename(draft.path.with_suffix(".9.tmp"))
    again = Recovery(recovery.capturer.of(list(recovery.capturer.components.values())))
    found = again.unfinished()
    assert set(found.missing) == {"db", "tree"}
    assert set(found.held) == {info.id, found.safety}
    assert getattr(again, how)().is_finished
    if how == "resume":
        assert words(folder) == OLD
    else:
        assert not (folder / "tree").exists()
        assert not (folder / "app.db").exists()
        assert [one.name for one in folder.iterdir() if one.suffix == ".tmp"] == []
    assert again.unfinished() is None


class Gone(BaseException):
    """As if the process had been killed: nothing is put back."""


def test_what_is_there_and_cannot_be_saved_stops_it_unless_asked(live):
    folder, _, recovery, _ = live
    (folder / "app.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(CaptureFailedError) as caught:
        recovery.recover()
    assert "--no-safety" in caught.value.hint
    assert (folder / "app.db").read_bytes().startswith(b"no database")
    assert recovery.recover(safety=False).status == "completed"
    assert words(folder) == OLD
    assert (folder / "app.db.damaged-1").read_bytes().startswith(b"no database")


def test_everything_missing_has_a_safety_capture_that_says_so(manager, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("a")
    recovery = Recovery(Capturer(manager, "sys", [DirectoryComponent("tree", tree)]))
    recovery.capturer.capture()
    shutil.rmtree(tree)
    done = recovery.recover()
    assert (done.status, done.missing) == ("completed", ("tree",))
    assert (tree / "a").read_text() == "a"
    assert recovery.recover(done.safety_id).status == "completed"
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]


def test_what_rules_leave_out_now_is_saved_before_it_is_overwritten(live):
    folder, _, recovery, last = live
    (folder / "tree" / ".gitignore").write_text("*.txt\n")
    (folder / "tree" / "deep" / "a.txt").write_text("precious")
    last.fails = True
    with pytest.raises(RecoveryFailedError):
        recovery.recover()
    assert (folder / "tree" / "deep" / "a.txt").read_text() == "precious"


# --- kept ----------------------------------------------------------------------------------------


def pinned(manager):
    store = manager.store
    return {row.id for row in store.select(Filter(), after=None, limit=50) if is_pinned(store, row)}


@pytest.mark.parametrize("how", ["resume", "roll_back"])
def test_retention_spares_what_an_unfinished_recovery_needs(live, manager, how, monkeypatch):
    folder, info, recovery, _ = live
    fill(folder, "new")
    monkeypatch.setattr("ckptlog.recovery.run.Run._fail", lambda *_: (_ for _ in ()).throw(Gone))
    recovery.capturer.components["last"].fails = True
    with pytest.raises(Gone):
        recovery.recover()
    monkeypatch.undo()
    found = recovery.unfinished()
    assert {info.id, found.safety} == pinned(manager)
    for _ in range(3):
        recovery.capturer.capture()
    manager.cleanup_old_checkpoints(retention={"keep_last": 1})
    assert recovery.capturer.find(found.safety).id == found.safety
    getattr(recovery, how)()
    assert words(folder) == (OLD if how == "resume" else NEW)
    assert pinned(manager) == set()


def test_a_resume_that_is_killed_forgets_nothing_that_was_touched(live, monkeypatch):
    folder, _, recovery, last = live
    fill(folder, "new")

    def gone(*_):
        raise Gone

    monkeypatch.setattr("ckptlog.recovery.run.Run._fail", gone)
    last.fails = True
    with pytest.raises(Gone):
        recovery.recover()
    touched, position = recovery.unfinished().touched, recovery.unfinished().position
    assert len(touched) == 4
    with monkeypatch.context() as patch:  # killed behind its own start
        patch.setattr("ckptlog.recovery.journal.Journal.step", gone)
        with pytest.raises(Gone):
            recovery.resume()
    monkeypatch.undo()
    for _ in range(2):  # by the log, and by the hint that the first look leaves
        again = Recovery(recovery.capturer.of(list(recovery.capturer.components.values())))
        found = again.unfinished()
        assert (found.touched, found.position) == (touched, position)
    again.roll_back()
    assert words(folder) == NEW


def test_a_pin_of_the_user_stays(live, manager):
    _, info, recovery, _ = live
    manager.pin_checkpoint(info.id)
    recovery.recover()
    assert pinned(manager) == {info.id}


def test_a_capture_larger_than_a_checkpoint_may_be_is_recovered(tmp_path):
    """It is pinned while it is recovered: what a manager's calls are limited to does not bind it."""
    config = CheckpointConfiguration(max_checkpoint_size_mb=0.01, cleanup_interval_hours=0)
    with CheckpointManager(tmp_path / "s", config=config) as manager:
        state = {"text": "x" * 100_000}
        component = CallableComponent("big", lambda: dict(state), state.update)
        capturer = Capturer(manager, "sys", [component])
        capturer.capture()
        state["text"] = "y"
        assert Recovery(capturer).recover().status == "completed"
        assert state["text"] == "x" * 100_000


# --- queues that are at work ---------------------------------------------------------------------


def test_items_in_a_workers_hand_do_not_fail_a_recovery(manager):
    """How many are in hand is what it is now: no restore brings it back, and none is undone for it."""
    jobs = queue.Queue()
    other = Last("other", 1, depends_on=["jobs"])
    recovery = Recovery(Capturer(manager, "sys", [QueueComponent("jobs", jobs), other]))
    for number in range(4):
        jobs.put(number)
    jobs.get()
    info = recovery.capturer.capture()
    jobs.get()
    for number in range(1, 4):
        assert recovery.recover(info.id).status == "completed"
        assert list(jobs.queue) == [1, 2, 3]
        assert jobs.unfinished_tasks == 3 + number + 1
        assert recovery.recover(info.id, components=["other"]).status == "completed"
        jobs.get()
    assert [one.path for one in recovery.recover(dry_run=True).plans["jobs"].changes] == ["items"]


def test_workers_that_wait_may_take_what_is_restored_at_once(manager):
    jobs, taken = queue.Queue(), []
    recovery = Recovery(Capturer(manager, "sys", [QueueComponent("jobs", jobs)]))
    for number in range(5):
        jobs.put(number)
    info = recovery.capturer.capture()
    jobs.queue.clear()

    def work():
        while (item := jobs.get()) is not None:
            taken.append(item)

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(20):
        assert recovery.recover(info.id).status == "completed"
    jobs.put(None)
    worker.join()
    assert taken[:5] == [0, 1, 2, 3, 4]
    assert set(taken) == set(range(5))
