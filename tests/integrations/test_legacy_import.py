"""Importing the old layout: nothing lost, nothing changed, nothing twice."""

from __future__ import annotations

import gzip
import json

import pytest

import ckptlog
from ckptlog.errors import ReadOnlyError
from ckptlog.integrations import legacy
from ckptlog.integrations.legacy import import_folder


def old(number, state="active", **more):
    return {
        "checkpoint_id": f"cp_job_{number}_170000000{number}",
        "task_id": "job",
        "task_title": "An old job",
        "state": state,
        "step_number": number,
        "total_steps": 5,
        "step_description": f"Step {number}",
        "data": {"n": number, "nested": {"list": [1, 2.5, None, True]}},
        "metadata": {"host": "a"},
        "created_at": f"2024-01-0{number}T12:00:00",
        "updated_at": f"2024-02-0{number}T12:00:00",
        "worker_id": "w1",
        "parent_checkpoint_id": None,
        **more,
    }


FOLDERS = {"completed": "completed", "failed": "failed"}


def put(folder, fields, name=None):
    folder = folder / FOLDERS.get(fields.get("state"), "active")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"checkpoint_{fields['checkpoint_id']}.json")
    path.write_text(json.dumps(fields))
    return path


@pytest.fixture
def folder(tmp_path):
    """An old folder with a checkpoint in each state; the newest file comes first by name."""
    folder = tmp_path / "old"
    put(folder, old(5, "active", parent_checkpoint_id=old(1)["checkpoint_id"]))
    put(folder, old(1, "created"))
    put(folder, old(2, "completed"))
    put(folder, old(3, "failed", metadata={"error_info": {"message": "no luck"}}))
    put(folder, old(4, "restored"))
    (folder / "index.json").write_text("{broken")
    return folder


@pytest.fixture
def manager(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "store") as manager:
        yield manager


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_arrives_as_it_was(manager, folder):
    before = contents(folder)
    report = import_folder(manager, folder)
    assert (report.imported, report.unchanged, report.faults) == (5, 0, [])
    assert contents(folder) == before
    found = manager.get_task_checkpoints("job")
    states = ["created", "completed", "failed", "restored", "active"]
    assert [checkpoint.state.value for checkpoint in found] == states
    for number, checkpoint in enumerate(found, 1):
        fields = old(number)
        assert checkpoint.checkpoint_id == fields["checkpoint_id"]
        assert checkpoint.data == fields["data"]
        assert checkpoint.step_number == number
        assert checkpoint.total_steps == 5
        assert checkpoint.worker_id == "w1"
        assert (checkpoint.task_title, checkpoint.step_description) == (
            "An old job",
            f"Step {number}",
        )
        imported = checkpoint.metadata["imported"]
        assert imported["created_at"] == fields["created_at"]
        assert imported["updated_at"] == fields["updated_at"]
    assert found[2].metadata["error_info"] == {"message": "no luck"}
    assert found[4].parent_checkpoint_id == found[0].checkpoint_id
    assert manager.store.verify(level="full").ok


def test_the_latest_stays_the_latest(manager, folder):
    import_folder(manager, folder)
    assert manager.get_latest_checkpoint("job").step_number == 5


def test_a_second_run_changes_nothing(manager, folder):
    import_folder(manager, folder)
    position = manager.store.position
    put(folder, old(6))
    report = import_folder(manager, folder)
    assert (report.imported, report.unchanged, report.faults) == (1, 5, [])
    assert manager.store.position == position + 3
    assert import_folder(manager, folder).unchanged == 6


def test_a_run_that_died_is_taken_up(manager, folder, monkeypatch):
    def die(*_):
        raise ReadOnlyError("The medium went away.")

    with monkeypatch.context() as patch:
        patch.setattr(legacy, "_reach", die)
        with pytest.raises(ReadOnlyError):
            import_folder(manager, folder)
    assert manager.store.position == 1
    report = import_folder(manager, folder)
    assert (report.imported + report.unchanged, report.faults) == (5, [])
    assert len(manager.get_task_checkpoints("job")) == 5


def test_what_was_deleted_before_it_was_whole_stays_deleted(manager, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(legacy, "_reach", lambda *_: None)
        import_folder(manager, folder)
    manager.delete_checkpoint(old(2)["checkpoint_id"])
    report = import_folder(manager, folder)
    assert (report.imported, report.unchanged, report.faults) == (3, 2, [])
    assert manager.get_checkpoint(old(2)["checkpoint_id"]) is None


def test_what_was_changed_since_stays_changed(manager, folder):
    import_folder(manager, folder)
    done, gone = old(2)["checkpoint_id"], old(3)["checkpoint_id"]
    manager.restore_checkpoint(done)
    manager.update_checkpoint(done, data={"more": 1})
    manager.delete_checkpoint(gone)
    position = manager.store.position
    report = import_folder(manager, folder)
    assert (report.imported, report.unchanged, report.faults) == (0, 5, [])
    assert manager.store.position == position
    assert manager.get_checkpoint(done).data["more"] == 1
    assert manager.get_checkpoint(gone) is None


def test_a_file_that_changed_since_is_refused_by_name(manager, folder):
    import_folder(manager, folder)
    path = put(folder, old(2, "completed", data={"n": 0}))
    report = import_folder(manager, folder)
    assert report.unchanged == 4
    assert [(fault.path, fault.code) for fault in report.faults] == [(path, "create.duplicate_id")]
    assert manager.get_checkpoint(old(2)["checkpoint_id"]).data["n"] == 2


def test_bad_files_are_reported_and_the_rest_is_imported(manager, folder):
    bad = {
        "checkpoint_a.json": "{",
        "checkpoint_b.json": json.dumps(old(7, step_number=0, checkpoint_id="b")),
        "checkpoint_c.json": json.dumps(old(7, checkpoint_id="c\nd")),
        "checkpoint_d.json": json.dumps(old(7, checkpoint_id="d", task_id=" ")),
        "checkpoint_e.json": json.dumps(old(7, checkpoint_id="e", data={"x": "\ud800"})),
        "checkpoint_f.json": "",
    }
    for name, content in bad.items():
        (folder / "active" / name).write_text(content)
    report = import_folder(manager, folder)
    assert report.imported == 5
    assert sorted(fault.path.name for fault in report.faults) == sorted(bad)
    for fault in report.faults:
        assert fault.message
        assert "." in fault.code
        assert set(fault.to_dict()) == {"path", "code", "message"}


def test_of_two_copies_the_newer_counts(manager, folder):
    stale = put(folder, old(2, "active", updated_at="2024-01-02T00:00:00"))
    report = import_folder(manager, folder)
    assert report.imported == 5
    assert [(fault.path, fault.code) for fault in report.faults] == [(stale, "import.copy")]
    assert manager.get_checkpoint(old(2)["checkpoint_id"]).state.value == "completed"


def test_a_flat_folder_packed_files_and_unknown_fields(manager, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    fields = {"task_id": "t", "state": "active", "step_number": 2, "priority": "high"}
    (flat / "checkpoint_mine.json.gz").write_bytes(gzip.compress(json.dumps(fields).encode()))
    report = import_folder(manager, flat, namespace="old")
    assert (report.imported, report.faults) == (1, [])
    checkpoint = manager.get_checkpoint("mine")
    assert (checkpoint.namespace, checkpoint.data, checkpoint.total_steps) == ("old", {}, None)
    assert checkpoint.metadata["imported"]["fields"] == {"priority": "high"}


def test_data_that_looks_like_a_tag_stays_data(manager, tmp_path):
    data = {"$bytes": "AAAA", "x": {"$datetime": "no"}}
    put(tmp_path / "old", old(1, data=data))
    import_folder(manager, tmp_path / "old")
    assert manager.get_checkpoint(old(1)["checkpoint_id"]).data == data


def test_the_folder_may_be_the_store_itself(tmp_path, folder):
    with pytest.warns(ckptlog.LegacyLayoutWarning):
        manager = ckptlog.CheckpointManager(folder)
    with manager:
        assert import_folder(manager, folder).imported == 5
        assert import_folder(manager, folder).unchanged == 5


def test_the_import_is_an_event_of_its_own(manager, folder):
    import_folder(manager, folder)
    last = list(manager.store.events())[-1].event
    assert last.type == "import.finished"
    assert last.facts == {"failed": 0, "imported": 5, "unchanged": 0}


def test_progress_is_told(manager, folder):
    told = []
    import_folder(manager, folder, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 5) for n in range(1, 6)]
