"""The specification's storage: saving goes through the log, and the files show it."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from datetime import UTC, datetime

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CheckpointData,
    CheckpointManager,
    CheckpointState,
    ConflictError,
    DuplicateIdError,
    FileSystemCheckpointStorage,
    IllegalTransitionError,
    InvalidCreationError,
    InvalidUpdateError,
    StoreClosedError,
)
from ckptlog.repository.file_view import FileView
from ckptlog.views.document import folder_of, name_of

CREATED, ACTIVE, COMPLETED, FAILED, RESTORED = CheckpointState


@pytest.fixture
def storage(tmp_path):
    with FileSystemCheckpointStorage(tmp_path / "s", follow=False) as storage:
        yield storage


@pytest.fixture
def store(storage):
    return storage.manager.store


def checkpoint(name="cp", *, state=CREATED, **fields):
    given = {
        "task_title": "Title",
        "step_number": 2,
        "total_steps": 5,
        "step_description": "step",
        "data": {"n": 1, "b": b"x", "deep": {"t": (1, 2)}},
        "metadata": {"m": 1},
        "worker_id": "w",
        "namespace": "ns",
        **fields,
    }
    return CheckpointData(checkpoint_id=name, task_id="t", state=state, **given)


def file_of(storage, one):
    return storage.folder / folder_of(one.state.value) / name_of(one.checkpoint_id)


def same(one, other):
    """Compare all but the log's own: times and positions."""
    skipped = {"created_at", "updated_at", "position"}
    return all(
        getattr(one, name) == getattr(other, name)
        for name in CheckpointData.__dataclass_fields__
        if name not in skipped
    )


# --- the specification ----------------------------------------------------------------------------


def test_the_specification_s_layout(storage, tmp_path):
    for name, state in (("a", ACTIVE), ("b", COMPLETED), ("c", FAILED)):
        assert storage.save_checkpoint(checkpoint(name, state=state)) is True
    folder = tmp_path / "s" / "views" / "files"
    assert folder == storage.folder
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.json")}
    assert files == {
        "active/checkpoint_a.json",
        "completed/checkpoint_b.json",
        "failed/checkpoint_c.json",
        "index.json",
    }
    assert storage.load_checkpoint("b").state is COMPLETED
    assert storage.list_checkpoints() == ["a", "b", "c"]
    assert storage.list_checkpoints(FAILED) == ["c"]
    assert storage.delete_checkpoint("c") is True
    assert storage.delete_checkpoint("c") is False
    assert storage.delete_checkpoint("never there") is False
    assert storage.load_checkpoint("c") is None
    assert storage.load_checkpoint("never there") is None
    assert not (folder / "failed" / "checkpoint_c.json").exists()
    assert storage.base_dir == tmp_path / "s"


@pytest.mark.parametrize("state", CheckpointState)
def test_a_new_checkpoint_is_saved_in_any_state(storage, store, state):
    wanted = checkpoint(state=state, created_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert storage.save_checkpoint(wanted)
    found = storage.load_checkpoint("cp")
    assert same(found, wanted)
    assert found.created_at.year > 2020  # the log's own time
    assert wanted.position == found.position == store.position - 1
    assert store.position == (1 if state is CREATED else 2)
    assert len(list(store.log.reader.commits())) == 1
    fields = json.loads(file_of(storage, wanted).read_text())
    assert fields == json.loads(json.dumps(found.to_dict()))


@pytest.mark.parametrize(("before", "after"), list(itertools.product(CheckpointState, repeat=2)))
@pytest.mark.parametrize("is_changed", [False, True])
def test_from_any_state_to_any_other(storage, store, before, after, is_changed):
    storage.save_checkpoint(checkpoint(state=before))
    wanted = storage.load_checkpoint("cp")
    wanted.state = after
    if is_changed:
        wanted.data = {"only": ["this"]}
        wanted.metadata["more"] = 2
        wanted.step_number, wanted.total_steps, wanted.step_description = 3, 7, "other"
    position = store.position
    if after is CREATED and (before is not CREATED or is_changed):
        with pytest.raises(IllegalTransitionError) as caught:
            storage.save_checkpoint(wanted)
        assert "created" in caught.value.message
        assert store.position == position
        return
    assert storage.save_checkpoint(wanted)
    found = storage.load_checkpoint("cp")
    assert same(found, wanted)
    if before is after and not is_changed:
        assert store.position == position
    else:
        assert store.position > position
        assert len(list(store.log.reader.commits())) == 2
    assert json.loads(file_of(storage, found).read_text())["state"] == after.value
    assert (
        sum(len(list((storage.folder / one).iterdir())) for one in ("active", "failed"))
        + len(list((storage.folder / "completed").iterdir()))
        == 1
    )
    assert store.verify().ok


def test_saving_again_appends_nothing(storage, store):
    one = checkpoint(state=ACTIVE, data={"password": "hunter22", "nan": float("nan")})
    storage.save_checkpoint(one)
    position = store.position
    for _ in range(2):
        storage.save_checkpoint(one)
    storage.save_checkpoint(storage.load_checkpoint("cp"))
    assert store.position == position
    assert "hunter22" not in file_of(storage, one).read_text()


def test_what_was_loaded_is_saved_against_its_position(storage):
    storage.save_checkpoint(checkpoint(state=ACTIVE))
    mine, theirs = storage.load_checkpoint("cp"), storage.load_checkpoint("cp")
    theirs.data["n"] = 2
    storage.save_checkpoint(theirs)
    theirs.data["n"] = 3
    storage.save_checkpoint(theirs)  # its position went along
    mine.data["n"] = 4
    with pytest.raises(ConflictError):
        storage.save_checkpoint(mine)
    assert storage.load_checkpoint("cp").data["n"] == 3
    fresh = checkpoint(state=ACTIVE, data={"n": 5})
    assert fresh.position == -1
    storage.save_checkpoint(fresh)
    assert storage.load_checkpoint("cp").data == {"n": 5}


def test_position_0_is_a_position(storage):
    storage.save_checkpoint(checkpoint())
    mine = storage.load_checkpoint("cp")
    assert mine.position == 0
    storage.manager.complete_checkpoint("cp")
    mine.state = FAILED
    with pytest.raises(ConflictError):
        storage.save_checkpoint(mine)


def test_one_that_was_never_loaded_is_tried_again_when_others_come_first(storage, monkeypatch):
    storage.save_checkpoint(checkpoint(state=ACTIVE))
    get, overtaken = storage.manager.get_checkpoint, []

    def overtaking(name):
        found = get(name)
        if len(overtaken) < 3:
            overtaken.append(1)
            CheckpointManager(store=storage.manager.store).update_checkpoint(
                name, data={"other": len(overtaken)}
            )
        return found

    monkeypatch.setattr(storage.manager, "get_checkpoint", overtaking)
    storage.save_checkpoint(checkpoint(state=ACTIVE, data={"n": 9}))
    monkeypatch.undo()
    assert storage.load_checkpoint("cp").data == {"n": 9}
    assert len(overtaken) == 3


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"task_id": "other"}, InvalidUpdateError, "task_id"),
        ({"task_title": "other"}, InvalidUpdateError, "task_title"),
        ({"worker_id": None}, InvalidUpdateError, "worker_id"),
        ({"parent_checkpoint_id": "p"}, InvalidUpdateError, "parent_checkpoint_id"),
        ({"namespace": ""}, InvalidUpdateError, "namespace"),
        ({"total_steps": None}, InvalidUpdateError, "total_steps"),
        ({"metadata": {}}, InvalidUpdateError, "'m'"),
        ({"step_number": 0}, ArgumentError, "step_number"),
        ({"data": {"x": len}}, ArgumentError, "data.x"),
        ({"state": "active"}, InvalidUpdateError, "state"),
    ],
    ids=str,
)
def test_what_cannot_be_reached_is_refused_by_name(storage, store, change, kind, word):
    storage.save_checkpoint(checkpoint(state=ACTIVE))
    one, position = storage.load_checkpoint("cp"), store.position
    for name, value in change.items():
        setattr(one, name, value)
    with pytest.raises((kind, InvalidUpdateError)) as caught:
        storage.save_checkpoint(one)
    assert word in str(caught.value)
    assert store.position == position


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"step_number": 0}, ArgumentError),
        ({"data": {"x": len}}, ArgumentError),
        ({"name": "a\0b"}, ArgumentError),
        ({"state": "active"}, InvalidUpdateError),
        ({"task_title": 7}, ArgumentError),
    ],
    ids=str,
)
def test_a_new_one_that_cannot_be(storage, store, fields, kind):
    with pytest.raises((kind, InvalidCreationError)):
        storage.save_checkpoint(checkpoint(**fields))
    assert store.position == 0


def test_a_deleted_id_is_never_used_again(storage):
    one = checkpoint()
    storage.save_checkpoint(one)
    storage.delete_checkpoint("cp")
    with pytest.raises(DuplicateIdError):
        storage.save_checkpoint(one)


def test_arguments(storage, tmp_path):
    with pytest.raises(ArgumentError):
        FileSystemCheckpointStorage()
    with pytest.raises(ArgumentError):
        FileSystemCheckpointStorage(tmp_path / "x", manager=storage.manager)
    with pytest.raises(ArgumentError):
        storage.save_checkpoint({"checkpoint_id": "cp"})
    with pytest.raises(ArgumentError):
        storage.list_checkpoints("active")
    assert not (tmp_path / "x").exists()
    assert str(storage.folder) in repr(storage)


def test_figures(storage):
    for name, state in (("a", CREATED), ("b", COMPLETED), ("c", RESTORED)):
        storage.save_checkpoint(checkpoint(name, state=state))
    figures = storage.get_storage_stats()
    json.dumps(figures)
    assert figures["total_checkpoints"] == 3
    assert figures["by_folder"] == {"active": 2, "completed": 1, "failed": 0}
    assert figures["by_state"]["restored"] == 1
    assert figures["position"] == figures["store_position"] == 5
    sizes = [path.stat().st_size for path in storage.folder.rglob("*.json")]
    assert figures["files_bytes"] == sum(sizes)
    assert figures["store"]["events"] == 5


def test_lists_are_in_the_order_of_creation_and_whole(storage, monkeypatch):
    monkeypatch.setattr("ckptlog.manager.storage._PAGE_ROWS", 3)
    names = [f"cp{9 - number}" for number in range(8)]
    with storage.manager.batch() as batch:
        for name in names:
            batch.create_checkpoint("t", "T", 1, checkpoint_id=name)
    assert storage.list_checkpoints() == names


# --- following ------------------------------------------------------------------------------------


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_changes_of_others_are_followed(tmp_path):
    with (
        FileSystemCheckpointStorage(tmp_path / "s") as storage,
        CheckpointManager(tmp_path / "s") as other,
    ):
        name = other.create_checkpoint("t", "T", 1)
        wait_for((storage.folder / "active" / name_of(name)).exists)
        other.complete_checkpoint(name)
        wait_for((storage.folder / "completed" / name_of(name)).exists)
    assert not any(thread.name == "ckptlog-files" for thread in threading.enumerate())


def test_nobody_follows_where_that_is_not_wanted(storage):
    storage.save_checkpoint(checkpoint())
    storage.list_checkpoints()
    assert not any(thread.name == "ckptlog-files" for thread in threading.enumerate())
    storage.manager.complete_checkpoint("cp")
    assert (storage.folder / "active" / "checkpoint_cp.json").exists()
    assert storage.refresh().written == 1
    assert (storage.folder / "completed" / "checkpoint_cp.json").exists()


def test_what_is_acknowledged_is_shown_also_before_the_interval_ends(tmp_path):
    with (
        ckptlog.open(tmp_path / "s", create=True, durability="interval", interval_s=60) as store,
        FileSystemCheckpointStorage(
            manager=CheckpointManager(store=store), follow=False
        ) as storage,
    ):
        storage.save_checkpoint(checkpoint())
        assert (storage.folder / "active" / "checkpoint_cp.json").exists()
        storage.manager.complete_checkpoint("cp")
        assert [one.position for one in store.audit(anomalies=False)] == [0, 1]
        storage.manager.delete_checkpoint("cp")
        assert store.replay().entries == ()


def test_a_thread_ends_with_its_process(tmp_path):
    with FileSystemCheckpointStorage(tmp_path / "s") as storage:
        assert storage._thread.daemon


def test_closing_leaves_the_files_current(tmp_path):
    storage = FileSystemCheckpointStorage(tmp_path / "s")
    storage._stop.set()  # the thread sees nothing of it
    name = storage.manager.create_checkpoint("t", "T", 1)
    storage.close()
    storage.close()
    assert (storage.folder / "active" / name_of(name)).exists()
    with pytest.raises(StoreClosedError):
        storage.load_checkpoint(name)


def test_a_shared_manager_is_left_open(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        with FileSystemCheckpointStorage(manager=manager) as storage:
            storage.save_checkpoint(checkpoint())
        assert manager.get_checkpoint("cp") is not None


def test_closing_after_the_store_was_closed_is_no_failure(tmp_path, caplog):
    manager = CheckpointManager(tmp_path / "s")
    storage = FileSystemCheckpointStorage(manager=manager)
    manager.close()
    storage.close()
    assert "store.closed" in caplog.text


def test_a_store_for_reading_only_is_never_followed(tmp_path, caplog):
    with ckptlog.open(tmp_path / "s", create=True):
        pass
    with ckptlog.open(tmp_path / "s", read_only=True) as store:
        storage = FileSystemCheckpointStorage(manager=CheckpointManager(store=store))
        storage._thread.join(120)
        assert not storage._thread.is_alive()
        assert storage.list_checkpoints() == []
        storage.close()
    assert "store.read_only" in caplog.text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on(tmp_path):
    with FileSystemCheckpointStorage(tmp_path / "s") as storage:
        storage.save_checkpoint(checkpoint("parent"))
        storage.view._lock.acquire()  # as if the thread held it at the fork
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                storage.save_checkpoint(checkpoint("child"))
                status = 0 if storage._thread.is_alive() else 2
            finally:
                os._exit(status)
        storage.view._lock.release()
        assert os.waitpid(pid, 0)[1] == 0
        assert storage.list_checkpoints() == ["parent", "child"]
        assert (storage.folder / "active" / "checkpoint_child.json").exists()
        storage.save_checkpoint(checkpoint("again"))


def test_many_threads_save(storage):
    faults = []

    def save(number):
        try:
            for step in range(5):
                storage.save_checkpoint(
                    checkpoint(f"cp{number}", state=ACTIVE, data={"step": step})
                )
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for number in range(4):
        path = storage.folder / "active" / f"checkpoint_cp{number}.json"
        assert json.loads(path.read_text())["data"] == {"step": 4}


@pytest.mark.parametrize("follows", [False, True])
def test_with_many_checkpoints_the_index_is_current_in_the_end(tmp_path, monkeypatch, follows):
    monkeypatch.setattr("ckptlog.repository.file_view._EAGER_MAX", 0)
    # The thread is there, and does nothing.
    monkeypatch.setattr(FileView, "run", lambda _, stop: stop.wait())
    with FileSystemCheckpointStorage(tmp_path / "s", follow=follows) as storage:
        storage.save_checkpoint(checkpoint("first"))
        # As if it had taken very long.
        storage.view._rests_until_s = float("inf")
        for number in range(3):
            one = checkpoint(f"cp{number}")
            storage.save_checkpoint(one)
            assert json.loads(file_of(storage, one).read_text())["data"]["n"] == 1
        assert ("cp2" in (storage.folder / "index.json").read_text()) != follows
        index = storage.folder / "index.json"
        if follows:
            storage.refresh()
        assert "cp2" in index.read_text()
        storage.view._rests_until_s = float("inf")
        storage.delete_checkpoint("cp1")
    assert "cp1" not in index.read_text()
    assert not file_of(storage, checkpoint("cp1")).exists()
