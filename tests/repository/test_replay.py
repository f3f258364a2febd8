"""The store as it was, at every position and time; and the views as of then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlog
from ckptlog.errors import ArgumentError, CheckpointStorageError, LogCorruptionError
from ckptlog.formats import event as event_format
from ckptlog.repository.file_view import FileView
from ckptlog.repository.snapshot import snapshot
from ckptlog.views.row import decode_standing
from tests.manager.clock import SettableEnvironment, open_at
from tests.repository.damage import flipped
from tests.views.test_export import rows_of
from tests.views.test_files import on_disk


@pytest.fixture
def manager(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s", actor="ada") as manager:
        yield manager


@pytest.fixture
def store(manager):
    return manager.store


@pytest.fixture
def filled(manager):
    """Nine events: two checkpoints in one commit among them, a delete, the end of a task."""
    manager.create_checkpoint("t", "T", 1, data={"n": 0}, checkpoint_id="a")  # 0
    manager.complete_checkpoint("a", {"n": 1})  # 1
    with manager.batch() as batch:  # 2 to 5
        for name in ("b", "c"):
            batch.create_checkpoint("u", "U", 1, checkpoint_id=name, data={"n": 2}, activate=True)
    manager.delete_checkpoint("a")  # 6
    manager.delete_task("u")  # 7
    manager.create_checkpoint("u", "U", 1, checkpoint_id="d")  # 8
    return manager


def told(found):
    return [(e.event.subject.checkpoint, e.event.state, e.position) for e in found.entries]


def test_after_each_event(filled, store):
    states = [told(store.replay(position)) for position in range(9)]
    assert states == [
        [("a", "created", 0)],
        [("a", "completed", 1)],
        [("a", "completed", 1), ("b", "created", 2)],
        [("a", "completed", 1), ("b", "active", 3)],
        [("a", "completed", 1), ("b", "active", 3), ("c", "created", 4)],
        [("a", "completed", 1), ("b", "active", 3), ("c", "active", 5)],
        [("b", "active", 3), ("c", "active", 5)],
        [],
        [("d", "created", 8)],
    ]
    assert told(store.replay()) == states[-1]
    found = store.replay(5)
    assert found.states == {"completed": 1, "active": 2}
    assert (found.position, found.time) == (5, store.event_at(5).event.time)
    assert found.leaf == event_format.leaf_hash(event_format.encode(store.event_at(5).event))
    assert found.into is None


def test_each_point_is_tied_to_its_event(filled, store, tmp_path):
    """Also in the middle of a commit: the leaf hash, and the mark of the exported view."""
    for position in range(9):
        entry = store.event_at(position)
        found = store.replay(position, into=tmp_path / str(position))
        assert found.leaf == event_format.leaf_hash(event_format.encode(entry.event))
        assert found.time == entry.event.time
        connection = sqlite3.connect(tmp_path / str(position) / "current.sqlite")
        (body,) = connection.execute("SELECT body FROM standing").fetchone()
        connection.close()
        standing = decode_standing(body)
        assert (standing.position, standing.leaf) == (position + 1, found.leaf)
        end = entry.offset + entry.length
        assert (standing.container, standing.offset) == (entry.container, end)


def test_a_point_inside_a_commit_says_so(filled, store):
    assert [store.replay(position).commit for position in range(7)] == [
        None,
        None,
        (2, 5),
        (2, 5),
        (2, 5),
        None,
        None,
    ]


def test_an_empty_log(store):
    found = store.replay()
    assert (found.position, found.time, told(found), found.states) == (None, None, [], {})
    with pytest.raises(ArgumentError) as caught:
        store.replay(0)
    assert "it is empty" in caught.value.message


@pytest.mark.parametrize("until", [-1, 9, 10**18, "1", 1.0, True, datetime(2026, 1, 1)])  # noqa: DTZ001
def test_points_that_are_none(filled, store, until):
    with pytest.raises(ArgumentError) as caught:
        store.replay(until)
    assert "until" in str(caught.value) or "the last is 8" in str(caught.value)


# --- times ----------------------------------------------------------------------------------------


def test_times(tmp_path):
    environment = SettableEnvironment()
    with open_at(tmp_path / "s", environment) as store:
        manager = ckptlog.CheckpointManager(store=store)
        for step in range(1, 5):
            manager.create_checkpoint("t", "T", step)
            environment.advance(days=1)
        at = [datetime.fromisoformat(entry.event.time) for entry in store.events()]
        moment = timedelta(microseconds=1)
        assert store.replay(at[0] - moment).position is None
        for position in range(4):
            assert store.replay(at[position]).position == position
            assert store.replay(at[position] + timedelta(hours=5)).position == position
            assert store.replay(at[position] - moment).position == (
                position - 1 if position else None
            )
        assert store.replay(at[3]).later == 0


def test_times_where_the_clock_went_back(tmp_path):
    """What counts is the last event, by position, that is not later; and it is told."""
    environment = SettableEnvironment()
    with open_at(tmp_path / "s", environment) as store:
        manager = ckptlog.CheckpointManager(store=store)
        for days in (1, 1, -2, 1):
            manager.create_checkpoint("t", "T", 1)
            environment.advance(days=days)
        # At days 0, 1, 2, 0.
        at = [datetime.fromisoformat(entry.event.time) for entry in store.events()]
        assert at[3] < at[1]
        found = store.replay(at[3])
        assert (found.position, found.later) == (3, 2)
        found = store.replay(at[1])
        assert (found.position, found.later) == (3, 1)
        assert store.replay(at[2]).later == 0
        found = store.replay(at[0])
        assert (found.position, found.later) == (0, 0)


# --- against a model ------------------------------------------------------------------------------

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ("create", "update", "complete", "fail", "restore", "delete", "end", "batch")
        ),
        st.sampled_from("abc"),
    ),
    max_size=14,
)


@given(ACTS)
@settings(max_examples=25)
def test_replay_at_every_position_equals_a_model(tmp_path_factory, acts):
    """The model is what the manager said after each commit: every checkpoint, whole."""
    folder = tmp_path_factory.mktemp("r")
    with ckptlog.open(folder / "s", create=True) as store:
        manager = ckptlog.CheckpointManager(store=store)
        after = {}  # position after a commit -> what the manager lists
        for number, (act, task) in enumerate(acts):
            perform(manager, act, task, number)
            after[store.position] = [one.to_dict() for one in manager.iterate()]
        for position in range(store.position):
            found = store.replay(position)
            if position + 1 in after:
                assert found.commit is None
                seen = [snapshot(store, entry).to_dict() for entry in found.entries]
                assert seen == after[position + 1]
            else:
                assert found.commit[0] <= position < found.commit[1]
        if store.position:
            into = folder / "out"
            found = store.replay(store.position - 1, into=into)
            check_views(store, into, after[store.position], store.position)


def perform(manager, act, task, number):
    """Do something if it can be done."""
    living = list(manager.iterate(task_id=task))
    data = {"n": number, "noise": "x" * (number * 40)}
    if act == "create" or not living:
        manager.create_checkpoint(task, "T", number + 1, data=data, worker_id=f"w{number % 2}")
        return
    last = living[-1]
    name, ended = last.checkpoint_id, last.state.value in ("completed", "failed")
    if act == "batch":
        with manager.batch() as batch:
            for _ in range(2):
                batch.create_checkpoint(task, "T", 1, data=data, activate=True)
    elif act == "delete":
        manager.delete_checkpoint(name)
    elif act == "end":
        manager.delete_task(task)
    elif act == "restore" or ended:
        manager.restore_checkpoint(name)
    elif act == "update":
        manager.update_checkpoint(name, data=data)
    elif act == "complete":
        manager.complete_checkpoint(name, data)
    else:
        manager.fail_checkpoint(name, {"message": "x"})


def check_views(store, into, checkpoints, position):
    """Compare a folder of views with what the manager listed."""
    files = {path: json.loads(content) for path, content in on_disk(into / "files").items()}
    index = files.pop("index.json")
    assert {fields["checkpoint_id"]: fields for fields in files.values()} == {
        fields["checkpoint_id"]: json.loads(json.dumps(fields)) for fields in checkpoints
    }
    assert index["metadata"]["position"] == position
    assert sum(len(names) for names in index["by_state"].values()) == len(checkpoints)
    connection = sqlite3.connect(into / "current.sqlite")
    rows = rows_of(connection)
    connection.close()
    assert len(rows["checkpoint"]) == len(checkpoints)


# --- the views as of then -------------------------------------------------------------------------


def dump(folder):
    """Return everything in a folder of views: rows of the database, bytes of the files."""
    connection = sqlite3.connect(folder / "current.sqlite")
    rows = rows_of(connection)
    connection.close()
    return rows, on_disk(folder / "files"), (folder / "replay.json").read_bytes()


@pytest.mark.parametrize("position", [0, 1, 2, 3, 5, 6, 7, 8])
def test_replaying_twice_gives_identical_views(filled, store, tmp_path, position):
    for name in ("one", "other"):
        found = store.replay(position, into=tmp_path / name)
        assert found.into == str((tmp_path / name).resolve())
    assert dump(tmp_path / "one") == dump(tmp_path / "other")
    assert sorted(os.listdir(tmp_path / "one")) == ["current.sqlite", "files", "replay.json"]
    assert sorted(os.listdir(tmp_path / "one" / "files")) == [
        "active",
        "completed",
        "failed",
        "index.json",
    ]
    manifest = json.loads((tmp_path / "one" / "replay.json").read_text())
    assert (manifest["store"], manifest["position"]) == (store.id, position)
    assert manifest["leaf"] == found.leaf.hex()


def test_the_present_is_what_the_store_s_own_views_show(filled, store, tmp_path):
    view = FileView(store)
    view.refresh()
    store.replay(into=tmp_path / "out")
    assert on_disk(tmp_path / "out" / "files") == on_disk(view.folder)
    connection = sqlite3.connect(tmp_path / "out" / "current.sqlite")
    mine, theirs = rows_of(connection), rows_of(store.view()._database.reader)
    connection.close()
    for name in ("checkpoint", "tombstone", "command", "task_end", "standing"):
        assert mine[name] == theirs[name], name


def test_a_rebuild_of_the_store_s_views_is_identical_too(filled, store):
    view = FileView(store)
    view.refresh()
    before = rows_of(store.view()._database.reader), on_disk(view.folder)
    store.rebuild_views()
    view.rebuild()
    after = rows_of(store.view()._database.reader), on_disk(view.folder)
    assert {k: v for k, v in before[0].items() if k != "waypoint"} == {
        k: v for k, v in after[0].items() if k != "waypoint"
    }
    assert before[1] == after[1]


def test_an_empty_folder_is_taken(filled, store, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    store.replay(3, into=tmp_path / "out")
    assert (tmp_path / "out" / "files" / "active" / "checkpoint_b.json").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ArgumentError):
        store.replay(3, into=".")
    store.replay(3, into="with [brackets]*")
    store.replay(8, into=str(tmp_path / "text"))


def test_before_the_first_event(filled, store, tmp_path):
    store.replay(datetime(2000, 1, 1, tzinfo=UTC), into=tmp_path / "out")
    rows, files, manifest = dump(tmp_path / "out")
    assert rows["checkpoint"] == []
    assert set(files) == {"index.json"}
    assert json.loads(manifest)["position"] is None


def test_folders_that_are_refused(filled, store, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(store.path)
    for into in (
        tmp_path / "full",
        tmp_path / "file",
        tmp_path / "none" / "out",
        store.path,
        store.path / "views" / "out",
        tmp_path / "link" / "out",
        tmp_path,
        "a\0b",
        7.5,
    ):
        with pytest.raises(ArgumentError):
            store.replay(3, into=into)
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    assert left_over(tmp_path) == []


def left_over(folder):
    return [name for name in os.listdir(folder) if name.endswith(".replay.tmp")]


def test_a_folder_that_was_filled_meanwhile_is_left_alone(filled, store, tmp_path, monkeypatch):
    from ckptlog.repository import replay as module

    manifest = module._manifest

    def filling(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        return manifest(*arguments)

    monkeypatch.setattr(module, "_manifest", filling)
    with pytest.raises(CheckpointStorageError):
        store.replay(3, into=tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["notes.txt"]
    assert left_over(tmp_path) == []


class Killed(BaseException):
    """As Ctrl-C, which the test's own runner would take."""


@pytest.mark.parametrize("error", [CheckpointStorageError("full"), Killed()], ids=repr)
def test_a_failure_leaves_nothing(filled, store, tmp_path, monkeypatch, error):
    def failing(*arguments):
        raise error

    monkeypatch.setattr("ckptlog.views.files.FilesView.apply", failing)
    with pytest.raises((CheckpointStorageError, Killed)):
        store.replay(3, into=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert left_over(tmp_path) == []


def test_damage(filled, store, tmp_path):
    target = store.event_at(6)
    with flipped(store.path / target.container, target.offset + 30):
        with pytest.raises(LogCorruptionError):
            store.replay(8, into=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        # What is damaged lies behind these.
        for until in range(6):
            assert store.replay(until, into=tmp_path / f"out {until}").position == until
    assert left_over(tmp_path) == []


def test_what_lies_beside_is_left_alone(filled, store, tmp_path):
    for name in ("other.replay.tmp", ".out.notes", "out.replay.tmp", ".outer.7.replay.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.7.replay.tmp").mkdir()
    (tmp_path / ".out.8.replay.tmp").symlink_to(tmp_path / ".out.notes")
    store.replay(3, into=tmp_path / "out")
    assert sorted(name for name in os.listdir(tmp_path) if "out" in name or "other" in name) == [
        ".out.8.replay.tmp",
        ".out.notes",
        ".outer.7.replay.tmp",
        "other.replay.tmp",
        "out",
        "out.replay.tmp",
    ]


def test_a_damaged_payload_hides_its_own_checkpoint_only(manager, store, tmp_path, small_packs):
    good = manager.create_checkpoint("t", "T", 1, data={"n": 1})
    bad = manager.create_checkpoint("t", "T", 2, metadata={"noise": os.urandom(300).hex()})
    (pack,) = store.path.glob("packs/*.pack")
    store.blobs.close()  # nothing is remembered
    with flipped(pack, pack.stat().st_size // 2):
        found = store.replay(into=tmp_path / "out")
    assert len(found.entries) == 2
    rows, files, _ = dump(tmp_path / "out")
    assert len(rows["checkpoint"]) == 2
    assert json.loads(files["index.json"])["metadata"]["unreadable"] == [bad]
    assert f"active/checkpoint_{good}.json" in files


def test_a_store_for_reading_only_can_be_replayed(filled, store, tmp_path):
    with ckptlog.open(store.path, read_only=True) as reader:
        reader.replay(3, into=tmp_path / "out")
    assert (tmp_path / "out" / "files" / "index.json").exists()


KILLED = """
import sys
import ckptlog
from ckptlog.views import files
apply = files.FilesView.apply
def slow(*arguments):
    apply(*arguments)
    print("half way", flush=True)
    sys.stdin.read()
files.FilesView.apply = slow
with ckptlog.open(sys.argv[1]) as store:
    store.replay(into=sys.argv[2])
"""


def test_killed_half_way(filled, store, tmp_path):
    into = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.path), str(into)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=os.getcwd(),
    ) as process:
        assert process.stdout.readline() == b"half way\n"
        # Another one at the same time takes its folder for what it is.
        store.replay(into=into)
        assert len(left_over(tmp_path)) == 1
        shutil.rmtree(into)
        process.send_signal(signal.SIGKILL)
    assert not into.exists()
    assert len(left_over(tmp_path)) == 1
    store.replay(into=into)
    assert left_over(tmp_path) == []
    assert (into / "replay.json").exists()


def test_replay_sees_what_others_have_written(filled, store):
    with ckptlog.CheckpointManager(store.path) as other:
        name = other.create_checkpoint("late", "L", 1)
    assert told(store.replay())[-1][0] == name
    assert time.time() > 0
