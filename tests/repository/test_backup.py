"""A backup: consistent at a published end, incremental, refused where it must be, healed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import (
    ArgumentError,
    BackupDamagedError,
    BackupDivergedError,
    BackupForeignError,
    BlobCorruptionError,
    LockTimeoutError,
    LogCorruptionError,
    MissingBlobError,
    ReadOnlyError,
    RestoreConflictError,
    StoreMissingError,
)
from ckptlog.repository.backing import BackupFolder, read_manifest
from ckptlog.repository.restoration import restore_store, verify_backup
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock
from tests.repository.ground import quiet


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        manager.store.log._segment_bytes = 6000
        fill(manager, 1, 25)
        yield manager


def fill(manager, start, stop):
    for step in range(start, stop):
        manager.create_checkpoint("t", "T", step, data={"n": step, "text": f"{step}" * 200})


def large(manager):
    return manager.create_checkpoint("big", "B", 1, data={"x": os.urandom(1_600_000).hex()})


def content(path: Path) -> dict[str, object]:
    with CheckpointManager(path) as other:
        rows = other.get_task_checkpoints("t") + other.get_task_checkpoints("big")
        return {one.checkpoint_id: (one.state, one.data) for one in rows}


def test_a_restored_backup_is_the_store_as_it_was(manager, tmp_path):
    large(manager)
    report = manager.store.backup(tmp_path / "b", verify=True)
    assert (report.position, report.previous, report.is_verified) == (25, 0, True)
    before = content(tmp_path / "store")
    fill(manager, 25, 28)
    done = restore_store(tmp_path / "b", tmp_path / "r")
    assert (done.position, done.store, done.checkpoints) == (25, manager.store.id, 25)
    assert content(tmp_path / "r") == before
    with ckptlog.open(tmp_path / "r") as store:
        assert store.verify().ok


def test_only_what_is_missing_is_copied(manager, tmp_path):
    large(manager)
    first = manager.store.backup(tmp_path / "b")
    assert first.bytes_skipped == 0
    again = manager.store.backup(tmp_path / "b")
    assert (again.bytes_copied, again.files_copied) == (0, 0)
    assert again.bytes_skipped == first.bytes_copied
    sizes = {path: path.stat() for path in (tmp_path / "b").rglob("*.seg")}
    fill(manager, 25, 26)
    third = manager.store.backup(tmp_path / "b")
    assert 0 < third.bytes_copied < 3000
    assert (third.files_copied, third.previous) == (1, 25)
    changed = [path for path, old in sizes.items() if path.stat().st_mtime_ns != old.st_mtime_ns]
    assert len(changed) == 1
    assert changed[0].stat().st_ino == sizes[changed[0]].st_ino, "the tail alone was written"
    restore_store(tmp_path / "b", tmp_path / "r")
    assert content(tmp_path / "r") == content(tmp_path / "store")


def test_the_backup_itself_can_be_read_and_not_written(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    with ckptlog.open(tmp_path / "b", read_only=True) as store:
        assert store.position == 24
        assert store.verify().ok
    with pytest.raises(ReadOnlyError, match="restore-store"):
        ckptlog.open(tmp_path / "b")
    with pytest.raises(ReadOnlyError):
        ckptlog.open(tmp_path / "b", create=True)


def test_a_store_that_is_open_for_reading_only_is_backed_up(manager, tmp_path):
    manager.close()
    with ckptlog.open(tmp_path / "store", read_only=True) as store:
        store.backup(tmp_path / "b")
    restore_store(tmp_path / "b", tmp_path / "r")
    assert content(tmp_path / "r") == content(tmp_path / "store")


def test_consumers_keys_and_heads_come_along_and_views_do_not(manager, tmp_path):
    source = tmp_path / "store"
    with manager.store.watch("mine") as subscription:
        for event, _ in zip(subscription, range(5), strict=False):
            subscription.ack(event)
        (source / "keys" / "k1").write_bytes(b"wrapped")
        (source / "heads" / "kept").mkdir(parents=True)
        (source / "heads" / "1").write_bytes(b"head")
        for number in range(2):
            (source / "heads" / "kept" / f"{number}").write_bytes(b"kept")
        assert manager.store.backup(tmp_path / "b").notes == ()
    (source / "keys" / "k1").unlink()
    (source / "heads" / "kept" / "1").unlink()
    restore_store(tmp_path / "b", tmp_path / "r")
    assert (tmp_path / "r/keys/k1").read_bytes() == b"wrapped"
    assert (tmp_path / "r/heads/1").read_bytes() == b"head"
    assert sorted(os.listdir(tmp_path / "r/heads/kept")) == ["0", "1"]
    assert not (tmp_path / "b/views").exists()
    assert not list((tmp_path / "b/consumers").glob("*.lock"))
    with ckptlog.open(tmp_path / "r") as store:
        (status,) = store.consumers()
        assert (status.name, status.position, status.fault) == ("mine", 5, "")
    manager.store.backup(tmp_path / "b")
    assert not (tmp_path / "b/keys/k1").exists(), "a destroyed key is destroyed in the mirror too"
    assert os.listdir(tmp_path / "b/heads/kept") == ["0"]


def test_what_is_somebody_elses_is_refused(manager, tmp_path):
    with CheckpointManager(tmp_path / "other") as other:
        other.create_checkpoint("o", "O", 1)
        other.store.backup(tmp_path / "b")
    with pytest.raises(BackupForeignError, match="backup of the store"):
        manager.store.backup(tmp_path / "b")
    with pytest.raises(BackupForeignError, match="is a store, not a backup"):
        manager.store.backup(tmp_path / "other")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(BackupForeignError, match=r"a\.jpg"):
        manager.store.backup(tmp_path / "photos")
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


@pytest.mark.parametrize("where", ["store/b", "store", "."])
def test_a_directory_in_the_store_is_refused(manager, tmp_path, where):
    with pytest.raises(ArgumentError):
        manager.store.backup(tmp_path / where)


@pytest.mark.parametrize("typed", ["", 5, "a\0b"])
def test_what_is_no_path_is_refused(manager, typed):
    with pytest.raises(ArgumentError):
        manager.store.backup(typed)


def test_a_store_that_was_set_back_is_told_from_a_damaged_one(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    restore_store(tmp_path / "b", tmp_path / "r")
    fill(manager, 25, 27)
    manager.store.backup(tmp_path / "b")
    with CheckpointManager(tmp_path / "r") as other:
        with pytest.raises(BackupDivergedError, match="26 events, the store only 24"):
            other.store.backup(tmp_path / "b")
        fill(other, 25, 30)
        with pytest.raises(BackupDivergedError, match="Event 25 is another one"):
            other.store.backup(tmp_path / "b")
    verify_backup(tmp_path / "b")


def test_a_restored_store_goes_on_in_the_same_backup(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    restore_store(tmp_path / "b", tmp_path / "r")
    with CheckpointManager(tmp_path / "r") as other:
        fill(other, 25, 60)
        other.store.backup(tmp_path / "b", verify=True)
    restore_store(tmp_path / "b", tmp_path / "r2")
    assert content(tmp_path / "r2") == content(tmp_path / "r")


def test_damage_in_the_source_stops_and_the_state_before_stays(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    before = (tmp_path / "b/backup.json").read_bytes()
    fill(manager, 25, 40)
    path = max((tmp_path / "store/log").glob("*.seg"))
    with open(path, "r+b") as file:
        file.seek(600)
        byte = file.read(1)
        file.seek(600)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(LogCorruptionError):
        manager.store.backup(tmp_path / "b")
    assert (tmp_path / "b/backup.json").read_bytes() == before
    assert restore_store(tmp_path / "b", tmp_path / "r").position == 24


def test_a_damaged_pack_in_the_source_is_not_copied(manager, tmp_path):
    large(manager)
    (pack,) = (tmp_path / "store/packs").glob("*.pack")
    damage(pack, "flip")
    with pytest.raises(BlobCorruptionError):
        manager.store.backup(tmp_path / "b")
    assert not list((tmp_path / "b/packs").iterdir())


def test_a_missing_pack_is_damage_and_a_backed_up_one_is_kept(manager, tmp_path):
    large(manager)
    (pack,) = (tmp_path / "store/packs").glob("*.pack")
    aside = tmp_path / "aside"
    pack.rename(aside)
    with pytest.raises(MissingBlobError):
        manager.store.backup(tmp_path / "b")
    aside.rename(pack)
    manager.store.backup(tmp_path / "b")
    pack.unlink()
    fill(manager, 30, 31)
    report = manager.store.backup(tmp_path / "b", verify=True)
    assert "keeps its copy" in report.notes[0]
    restore_store(tmp_path / "b", tmp_path / "r")


def test_a_pack_that_no_event_registers_is_not_copied(manager, tmp_path):
    large(manager)
    (pack,) = (tmp_path / "store/packs").glob("*.pack")
    shutil.copy(pack, pack.with_name(pack.name[:21] + "0" * 32 + ".pack"))
    manager.store.backup(tmp_path / "b")
    assert [path.name for path in (tmp_path / "b/packs").iterdir()] == [pack.name]


@pytest.mark.parametrize("what", ["flip", "cut", "gone"])
@pytest.mark.parametrize("which", ["log", "packs", "store.json", "backup.json"])
def test_damage_in_the_backup_is_found_by_verify_and_restore(manager, tmp_path, what, which):
    large(manager)
    manager.store.backup(tmp_path / "b")
    path = tmp_path / "b" / which
    if path.is_dir():
        path = min(one for one in path.iterdir() if one.suffix in (".seg", ".pack"))
    damage(path, what)
    expected = (
        BackupForeignError if (what, which) == ("gone", "backup.json") else BackupDamagedError
    )
    with pytest.raises(expected):
        verify_backup(tmp_path / "b")
    with pytest.raises(expected):
        restore_store(tmp_path / "b", tmp_path / "r")
    with pytest.raises(Exception):  # noqa: B017 - by what is left
        ckptlog.open(tmp_path / "r")
    if which in ("log", "packs") and what in ("cut", "gone"):
        report = manager.store.backup(tmp_path / "b", verify=True)
        assert "copied anew" in report.notes[0]


def damage(path: Path, what: str) -> None:
    if what == "gone":
        path.unlink()
    elif what == "cut":
        os.truncate(path, path.stat().st_size - 1)
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)


def test_a_damaged_open_segment_is_copied_anew_when_it_grows(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    damage(max((tmp_path / "b/log").glob("*.seg")), "flip")
    manager.create_checkpoint("t", "T", 25)
    report = manager.store.backup(tmp_path / "b", verify=True)
    assert "damaged in the backup" in report.notes[0]


def test_another_backup_at_work_is_named(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    manager.store.timeout_s = 0.1
    lock = WriterLock(tmp_path / "b/lock", Environment())
    lock.acquire(1)
    try:
        with pytest.raises(LockTimeoutError, match=f"process {os.getpid()}"):
            manager.store.backup(tmp_path / "b")
    finally:
        lock.close()


def test_what_vanishes_is_looked_for_again(manager, tmp_path, monkeypatch):
    """A compaction takes the written segments away mid-copy."""
    from ckptlog.repository import carrier

    store, seen = manager.store, []
    carry = carrier.Carrier.carry

    def once(self, job):
        if not seen and job.name.startswith("log/"):
            seen.append(job.name)
            quiet(manager)
            assert not (tmp_path / "store" / job.name).exists()
        return carry(self, job)

    monkeypatch.setattr(carrier.Carrier, "carry", once)
    report = store.backup(tmp_path / "b", verify=True)
    names = {file.name for file in read_manifest(tmp_path / "b").files}
    assert seen[0] not in names
    assert seen[0].replace(".seg", ".set") in names
    assert report.position == store.position > 24
    restore_store(tmp_path / "b", tmp_path / "r")
    assert content(tmp_path / "r") == content(tmp_path / "store")


def test_a_settled_segment_waits_until_the_new_state_counts(manager, tmp_path, monkeypatch):
    store = manager.store
    store.backup(tmp_path / "b")
    before = content(tmp_path / "store")
    written = {path.name for path in (tmp_path / "b/log").glob("*.seg")}
    quiet(manager)
    commit = BackupFolder.commit

    def refuse(self, manifest):
        raise KeyboardInterrupt

    monkeypatch.setattr(BackupFolder, "commit", refuse)
    with pytest.raises(KeyboardInterrupt):
        store.backup(tmp_path / "b")
    assert written <= {path.name for path in (tmp_path / "b/log").glob("*.seg")}
    assert restore_store(tmp_path / "b", tmp_path / "r").position == 24
    assert content(tmp_path / "r") == before
    monkeypatch.setattr(BackupFolder, "commit", commit)
    report = store.backup(tmp_path / "b", verify=True)
    assert report.files_removed == len(written)
    settled = [file for file in read_manifest(tmp_path / "b").files if file.name.endswith(".set")]
    assert {Path(file.name).stem for file in settled} == {Path(name).stem for name in written}
    for file in settled:
        assert file.bytes == (tmp_path / "b" / file.name).stat().st_size
    restore_store(tmp_path / "b", tmp_path / "again")
    assert content(tmp_path / "again") == before


def test_a_file_that_is_never_there_is_damage(manager, tmp_path):
    path = sorted((tmp_path / "store/log").glob("*.seg"))[1]
    path.unlink()
    with pytest.raises(LogCorruptionError):
        manager.store.backup(tmp_path / "b")


def test_restoring_refuses_what_is_in_the_way(manager, tmp_path):
    manager.store.backup(tmp_path / "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    with pytest.raises(RestoreConflictError, match="not empty"):
        restore_store(tmp_path / "b", tmp_path / "full")
    for inner in ("b", "b/inner", "."):
        with pytest.raises(ArgumentError, match="lie in one another"):
            restore_store(tmp_path / "b", tmp_path / inner)
    assert not (tmp_path / "b/inner").exists()
    for place in ("full/mine", "full/mine/inner"):
        with pytest.raises(RestoreConflictError, match="mine is not a directory"):
            restore_store(tmp_path / "b", tmp_path / place)
    with pytest.raises(StoreMissingError):
        restore_store(tmp_path / "nowhere", tmp_path / "r")
    with pytest.raises(BackupForeignError):
        restore_store(tmp_path / "store", tmp_path / "r")
    assert (tmp_path / "full/mine").read_text() == "x"


def test_a_backup_that_was_never_finished_is_told(manager, tmp_path, monkeypatch):
    monkeypatch.setattr(BackupFolder, "commit", lambda self, manifest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        manager.store.backup(tmp_path / "b")
    with pytest.raises(BackupDamagedError, match="never finished"):
        restore_store(tmp_path / "b", tmp_path / "r")
    monkeypatch.undo()
    report = manager.store.backup(tmp_path / "b", verify=True)
    assert report.bytes_copied < 1000, "what the killed run has copied was kept"


def test_no_consumer_is_ahead_of_the_end(manager, tmp_path, monkeypatch):
    """What is acknowledged after the end was read is behind it in the backup, never before it."""
    store = manager.store
    end, subscription = store.log.end, store.watch("mine")

    def busy():
        found = end()
        if not busy.is_done:
            busy.is_done = True
            manager.create_checkpoint("t", "T", 99)
            for event in subscription:
                subscription.ack(event)
                if event.position >= found.position:
                    break
        return found

    busy.is_done = False
    with subscription:
        for event, _ in zip(subscription, range(3), strict=False):
            subscription.ack(event)
        monkeypatch.setattr(store.log, "end", busy)
        # Only the run itself is disturbed, not `opened`.
        position = store.backup(tmp_path / "b").position
    monkeypatch.undo()
    restore_store(tmp_path / "b", tmp_path / "r")
    with ckptlog.open(tmp_path / "r") as other:
        (status,) = other.consumers()
        assert status.fault == ""
        assert status.position <= position
