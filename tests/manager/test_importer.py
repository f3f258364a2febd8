"""Importing an archive: as it was, once, whole before anything is written, refused where it must be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import (
    CheckpointError,
    FormatError,
    ImportConflictError,
    LockTimeoutError,
    MissingBlobError,
    ReadOnlyError,
)
from ckptlog.manager.importer import LOCK, import_archive, verify_archive
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock


@pytest.fixture
def source(tmp_path):
    with CheckpointManager(tmp_path / "s", actor="origin") as manager:
        yield manager


@pytest.fixture
def target(tmp_path):
    with CheckpointManager(tmp_path / "t", actor="target") as manager:
        yield manager


def every_state(manager, task="t"):
    names = []
    for step in range(1, 7):
        names.append(
            manager.create_checkpoint(
                task, "Title", step, f"Step {step}", 6, {"n": step, "b": b"\0x", "t": (1, 2.5)},
                {"k": step / 3, "deep": {"ü": [None, True]}}, worker_id="w1", namespace="ns",
                parent_checkpoint_id=names[-1] if names else None,
            )
        )  # fmt: skip
    manager.update_checkpoint(names[1], data={"more": "x" * 5000})
    manager.complete_checkpoint(names[2], {"r": 1})
    manager.fail_checkpoint(names[3], {"why": "no luck"})
    manager.complete_checkpoint(names[4])
    manager.restore_checkpoint(names[4])
    manager.update_checkpoint(names[4], data={"again": 1}, metadata={"k": 9})
    manager.delete_checkpoint(names[5])
    return names


def bare(checkpoint):
    """Return what must be the same in both stores."""
    if checkpoint is None:
        return None
    fields = checkpoint.to_dict()
    for name in ("created_at", "updated_at", "position"):
        fields.pop(name, None)
    fields["metadata"] = {k: v for k, v in fields["metadata"].items() if k != "imported"}
    return fields


def export(manager, tmp_path, *tasks, name="a.ckpt"):
    manager.store.export_archive(list(tasks) or ["t"], tmp_path / name, is_replaced=True)
    return tmp_path / name


def test_everything_arrives_as_it_was(source, target, tmp_path):
    names = every_state(source)
    report = import_archive(target.store, export(source, tmp_path), actor="me")
    assert (report.imported, report.unchanged, report.deleted) == (11, 0, 1)
    for name in names:
        assert bare(target.get_checkpoint(name)) == bare(source.get_checkpoint(name))
        old, new = source.store.newest(name), target.store.newest(name)
        if old is not None:
            assert old.event.data == new.event.data, "the same root: nothing was decoded on the way"
            told = target.get_checkpoint(name).metadata["imported"]
            assert (told["store"], told["position"]) == (source.store.id, old.position)
            assert (told["time"], told["actor"]) == (old.event.time, "origin")
    history = [(e.event.type, e.event.state, e.event.step) for e in source.store.events()]
    mine = [(e.event.type, e.event.state, e.event.step) for e in target.store.events()]
    created = ("checkpoint.created", "created", 6)
    assert mine[:-1] == [e for e in history if e != created and not e[0].endswith("deleted")]
    assert mine[-1][0] == "import.finished"
    assert target.store.verify().ok


def test_twice_is_once_and_later_events_follow(source, target, tmp_path):
    names = every_state(source)
    path = export(source, tmp_path)
    import_archive(target.store, path)
    position = target.store.position
    again = import_archive(target.store, path)
    assert (again.imported, again.unchanged, target.store.position) == (0, 11, position)
    source.update_checkpoint(names[0], data={"later": 1})
    source.create_checkpoint("t", "T", 7)
    more = import_archive(target.store, export(source, tmp_path))
    assert more.imported == 2
    assert target.get_checkpoint(names[0]).data["later"] == 1
    assert import_archive(target.store, path).imported == 0, "an older archive brings nothing back"
    assert target.get_checkpoint(names[0]).data["later"] == 1


def test_chunks_are_shared_as_in_the_origin(source, target, tmp_path):
    data = {"list": [{"n": n, "text": os.urandom(30).hex()} for n in range(2000)]}
    name = source.create_checkpoint("t", "T", 1, data=data)
    for number in range(20):
        data["list"].append({"n": number})
        source.update_checkpoint(name, data=data)
    import_archive(target.store, export(source, tmp_path))
    assert target.store.stats()["new_bytes"] < 1.5 * source.store.stats()["new_bytes"]
    assert target.get_checkpoint(name).data == data


def test_the_store_that_it_comes_from_refuses_it(source, tmp_path):
    every_state(source)
    with pytest.raises(ImportConflictError, match="this very store"):
        import_archive(source.store, export(source, tmp_path))


def test_a_taken_id_stops_everything(source, target, tmp_path):
    source.create_checkpoint("t", "T", 1)
    source.create_checkpoint("u", "U", 1, checkpoint_id="mine")
    target.create_checkpoint("other", "O", 1, checkpoint_id="mine")
    position = target.store.position
    with pytest.raises(ImportConflictError, match="'mine' is taken"):
        import_archive(target.store, export(source, tmp_path, "t", "u"))
    assert target.store.position == position


def test_a_task_that_lives_here_by_itself_is_refused(source, target, tmp_path):
    source.create_checkpoint("t", "T", 1)
    target.create_checkpoint("t", "T", 1)
    position = target.store.position
    with pytest.raises(ImportConflictError, match="did not come from"):
        import_archive(target.store, export(source, tmp_path))
    assert target.store.position == position


def test_a_checkpoint_that_went_on_here_is_refused_where_the_archive_has_more(
    source, target, tmp_path
):
    name = source.create_checkpoint("t", "T", 1)
    path = export(source, tmp_path)
    import_archive(target.store, path)
    target.update_checkpoint(name, data={"mine": 1})
    assert import_archive(target.store, path).imported == 0
    source.update_checkpoint(name, data={"theirs": 1})
    position = target.store.position
    with pytest.raises(ImportConflictError, match="went on in this store"):
        import_archive(target.store, export(source, tmp_path))
    assert target.store.position == position
    assert target.get_checkpoint(name).data == {"mine": 1}


def test_what_was_deleted_here_stays_deleted(source, target, tmp_path):
    name = source.create_checkpoint("t", "T", 1)
    import_archive(target.store, export(source, tmp_path))
    target.delete_checkpoint(name)
    source.update_checkpoint(name, data={"theirs": 1})
    report = import_archive(target.store, export(source, tmp_path))
    assert (report.imported, report.deleted) == (0, 1)
    assert target.get_checkpoint(name) is None


def test_a_task_that_was_deleted_and_begun_again(source, target, tmp_path):
    source.create_checkpoint("t", "T", 1, data={"n": "old"})
    source.delete_task("t")
    name = source.create_checkpoint("t", "T", 1, data={"n": "new"})
    import_archive(target.store, export(source, tmp_path))
    assert [one.checkpoint_id for one in target.get_task_checkpoints("t")] == [name]


def test_states_that_are_gone_are_left_out_and_the_way_is_made_legal(
    source, target, tmp_path, monkeypatch
):
    first = source.create_checkpoint("t", "T", 1, data={"v": "created" * 9})
    second = source.create_checkpoint("t", "T", 2, data={"v": "kept"})
    source.update_checkpoint(first, data={"v": "active" * 9})
    source.complete_checkpoint(first, {"v": "completed"})
    source.complete_checkpoint(second, {"v": "done"})
    source.restore_checkpoint(second)
    source.update_checkpoint(second, data={"v": "anew"})
    gone = {e.event.data.root for e in source.store.events() if e.position in (0, 2)}
    raw = source.store.blobs.raw

    def lossy(digest, domain, *rest):
        if digest.hex() in gone:
            raise MissingBlobError("gone")
        return raw(digest, domain, *rest)

    monkeypatch.setattr(source.store.blobs, "raw", lossy)
    path = export(source, tmp_path)
    report = import_archive(target.store, path)
    assert report.left_out == 2
    for name in (first, second):
        assert bare(target.get_checkpoint(name)) == bare(source.get_checkpoint(name))
    types = [e.event.type for e in target.store.events() if e.event.subject.checkpoint == first]
    assert types == ["checkpoint.created", "checkpoint.completed"]
    assert import_archive(target.store, path).imported == 0
    assert target.store.verify().ok


def test_damage_imports_nothing(source, target, tmp_path):
    every_state(source)
    path = export(source, tmp_path)
    data = path.read_bytes()
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            import_archive(target.store, path)
    assert target.store.position == 0


def test_only_verifying_needs_no_store(source, tmp_path):
    every_state(source)
    path = export(source, tmp_path)
    report = verify_archive(path)
    assert (report.events, report.imported, report.origin) == (13, 0, source.store.id)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError):
        verify_archive(path)


def test_a_store_for_reading_takes_nothing(source, target, tmp_path):
    every_state(source)
    path = export(source, tmp_path)
    target.close()
    with ckptlog.open(tmp_path / "t", read_only=True) as store, pytest.raises(ReadOnlyError):
        import_archive(store, path)


def test_imports_wait_for_one_another(source, target, tmp_path):
    every_state(source)
    path = export(source, tmp_path)
    target.store.timeout_s = 0.1
    lock = WriterLock(tmp_path / "t" / LOCK, Environment())
    lock.acquire(1)
    try:
        with pytest.raises(LockTimeoutError, match=f"process {os.getpid()}"):
            import_archive(target.store, path)
    finally:
        lock.close()
    import_archive(target.store, path)


def _import(root, path):
    with ckptlog.open(root) as store:
        import_archive(store, path)


@pytest.mark.unmeasured
def test_a_killed_import_is_gone_on_with(source, tmp_path):
    for step in range(1, 60):
        source.complete_checkpoint(source.create_checkpoint("t", "T", step, data={"n": step}))
    path = export(source, tmp_path)
    root = tmp_path / "killed"
    CheckpointManager(root).close()
    spawn = multiprocessing.get_context("spawn")
    seen = set()
    for _ in range(10):
        with ckptlog.open(root, read_only=True) as store:
            before = store.position
        process = spawn.Process(target=_import, args=(str(root), str(path)))
        process.start()
        with ckptlog.open(root, read_only=True) as store:
            while process.is_alive() and store.position < before + 3:
                time.sleep(0.001)
        with suppress(ProcessLookupError):  # it was done
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        seen.add(before)
    with CheckpointManager(root) as target:
        import_archive(target.store, path)
        assert target.get_checkpoint_summary()
        for one in source.get_task_checkpoints("t"):
            assert bare(target.get_checkpoint(one.checkpoint_id)) == bare(one)
        types = [e.event.type for e in target.store.events()]
        assert types.count("checkpoint.created") == types.count("checkpoint.completed") == 59
        assert target.store.verify().ok
    assert len(seen) > 1


def test_a_way_that_lost_its_middle_gets_a_restored(source, target, tmp_path, monkeypatch):
    name = source.create_checkpoint("t", "T", 1, data={"v": "first"})
    source.complete_checkpoint(name, {"v": "done"})
    source.update_checkpoint(name, data={"v": "lost"}, state=ckptlog.CheckpointState.RESTORED)
    lost = source.store.newest(name).event.data.root
    source.update_checkpoint(name, data={"v": "last"})
    raw = source.store.blobs.raw

    def lossy(digest, domain, *rest):
        if digest.hex() == lost:
            raise MissingBlobError("gone")
        return raw(digest, domain, *rest)

    monkeypatch.setattr(source.store.blobs, "raw", lossy)
    path = export(source, tmp_path)
    assert import_archive(target.store, path).left_out == 1
    states = [e.event.state for e in target.store.events() if e.event.subject.checkpoint == name]
    assert states == ["created", "completed", "restored", "active"]
    assert bare(target.get_checkpoint(name)) == bare(source.get_checkpoint(name))
    assert import_archive(target.store, path).imported == 0
