"""Where a store keeps its history, and what it does where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CheckpointManager,
    FullError,
    LockTimeoutError,
    StoreClosedError,
)
from ckptlog.repository import analytics
from tests.architecture.tree import ROOT


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        for step in range(1, 6):
            name = manager.create_checkpoint("t", "T", step, data={"n": step})
            manager.complete_checkpoint(name)
        failed = manager.create_checkpoint("t", "T", 6)
        manager.fail_checkpoint(failed, {"type": "KeyError", "message": "words of a user"})
    return path


def test_each_call_shows_what_is_there_by_then(path):
    with CheckpointManager(path) as manager:
        first = manager.store.history()
        assert manager.store.history() is first
        assert first.count_rows() == 12
        manager.create_checkpoint("t", "T", 7)
        assert manager.store.history().count_rows() == 13
        assert first.count_rows() == 12


def test_it_says_what_failed_and_nothing_of_the_user(path):
    with ckptlog.open(path) as store:
        rows = store.history().to_table().to_pylist()
    assert [row["error_class"] for row in rows] == [None] * 11 + ["KeyError"]
    assert "words of a user" not in str(rows)


def test_only_durable_events_are_shown_and_all_that_were_acknowledged(path):
    store = ckptlog.open(path, durability="interval", interval_s=1000)
    with store, CheckpointManager(store=store) as manager:
        manager.create_checkpoint("t", "T", 7)
        assert store.position == 12
        assert store.history().count_rows() == 13
        assert store.position == 13


def test_another_folder_is_kept_beside_the_own(path, tmp_path):
    with CheckpointManager(path) as manager:
        store = manager.store
        assert store.history(tmp_path / "other").count_rows() == 12
        assert not (path / "views" / "history").exists()
        manager.create_checkpoint("t", "T", 7)
        assert store.history(str(tmp_path / "other")).count_rows() == 13
        assert (tmp_path / "other.json").exists()
        with pytest.raises(ArgumentError):
            store.history(path)
        for wrong in (3, "", "a\0b", b"bytes"):
            with pytest.raises(ArgumentError):
                store.history(wrong)


def test_a_folder_behind_a_link_is_followed_when_it_was_named(path, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with ckptlog.open(path) as store:
        store.history(tmp_path / "link" / "history")
    assert (tmp_path / "disk" / "history.json").exists()


def test_a_read_only_store_shows_a_current_history_and_writes_nothing(path):
    with ckptlog.open(path) as store:
        store.history()
    before = sorted((one, one.stat().st_mtime_ns) for one in path.rglob("*"))
    with ckptlog.open(path, read_only=True) as store:
        assert store.history().count_rows() == 12
    assert sorted((one, one.stat().st_mtime_ns) for one in path.rglob("*")) == before


READER = """
import sys
import ckptlog
with ckptlog.open(sys.argv[1], read_only=True) as store:
    history = store.history()
    assert history.count_rows() == 12
    folder = store.history().count_rows() and store._analytics._temporary
print(history.count_rows(), folder)
"""


def test_else_it_makes_one_of_its_own_that_goes_with_the_process(path, tmp_path):
    before = sorted(path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows, folder = done.stdout.split()
    assert rows == "12"
    assert folder.startswith(f"{tmp_path}/ckptlog-history-")
    assert not os.path.exists(os.path.dirname(folder))
    assert sorted(path.rglob("*")) == before


def test_views_that_cannot_be_written_are_no_reason_to_fail(path, monkeypatch):
    own = path / "views" / "history"
    real = os.mkdir

    def refuse(name, *arguments, **options):
        if str(own) in str(name):
            raise PermissionError(13, "denied", str(name))
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    with ckptlog.open(path) as store:
        assert store.history().count_rows() == 12
    assert not own.exists()


def test_a_full_disk_is_told_and_leaves_the_history_as_it_was(path, monkeypatch):
    with CheckpointManager(path) as manager:
        manager.store.history()
        manager.create_checkpoint("t", "T", 7)

        def full(*_):
            raise FullError("No space.")

        with monkeypatch.context() as patch:
            patch.setattr("ckptlog.views.history.shelf.write_all", full)
            with pytest.raises(FullError):
                manager.store.history()
        manager.create_checkpoint("t", "T", 8)
        assert manager.store.history().count_rows() == 14


def test_writers_do_not_know_of_it(path, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("ckptlog.views.history.view.HistoryView.update", fail)
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 7)


def test_waiting_for_another_process_ends(path):
    import fcntl

    with ckptlog.open(path, timeout_s=0.1) as store:
        store.history()
        fd = os.open(path / "views" / "history", os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            with pytest.raises(LockTimeoutError):
                store.history()
        finally:
            os.close(fd)


def test_rebuilding_the_views_throws_it_away(path):
    with ckptlog.open(path) as store:
        store.history()
        manifest = path / "views" / "history.json"
        assert manifest.exists()
        store.rebuild_views()
        assert not manifest.exists()
        assert store.history().count_rows() == 12


def test_threads_may_ask_at_once(path):
    counts = []
    with ckptlog.open(path) as store:
        threads = [
            threading.Thread(target=lambda: counts.append(store.history().count_rows()))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [12] * 8


def test_a_forked_child_asks_by_itself(path):
    with CheckpointManager(path) as manager:
        manager.store.history()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                manager.create_checkpoint("t", "T", 7)
                status = 0 if manager.store.history().count_rows() == 13 else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert manager.store.history().count_rows() == 13


def test_a_closed_store_says_so(path):
    store = ckptlog.open(path)
    store.close()
    with pytest.raises(StoreClosedError):
        store.history()


def test_a_damaged_meta_payload_only_hides_the_class(path):
    with ckptlog.open(path) as store:
        keeper = analytics.Analytics(store)
        reference = list(store.events())[-1].event.meta
        assert b"KeyError" in keeper._wire_of(reference)
        store.blobs.raw = lambda *_: (_ for _ in ()).throw(ckptlog.BlobCorruptionError("gone"))
        assert keeper._wire_of(reference) is None


def test_pyarrow_is_loaded_by_the_first_question_only():
    script = (
        "import sys, tempfile, ckptlog\n"
        "with ckptlog.CheckpointManager(tempfile.mkdtemp()) as manager:\n"
        "    manager.create_checkpoint('t', 'T', 1)\n"
        "    assert 'pyarrow' not in sys.modules\n"
        "    manager.store.history()\n"
        "    assert 'pyarrow' in sys.modules\n"
    )
    environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment)
    assert done.returncode == 0
