"""A Task Master file beside checkpoints: what is read, what is changed, what stays."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import (
    CheckpointManager,
    CheckpointState,
    LockTimeoutError,
    TaskMaster,
    TaskRecovery,
    WorkerCheckpointIntegration,
)
from ckptlog.errors import ArgumentError, BusyError
from ckptlog.integrations.task_master import document, tasks_file
from ckptlog.integrations.task_master.tasks_file import TasksFile
from ckptlog.policy import retrial

TAGGED = {
    "master": {
        "tasks": [
            {
                "id": 1,
                "title": "Parse",
                "description": "The grammar",
                "status": "pending",
                "dependencies": [],
                "priority": "high",
                "ours": {"of": ["nobody", 1.0, None], "ü": "\u2028"},
                "subtasks": [
                    {"id": 1, "title": "Words", "status": "pending", "dependencies": []},
                    {"id": 2, "title": "Clauses", "status": "done"},
                ],
            },
            {"id": "2", "title": "Print", "description": "", "status": "in-progress"},
            {"id": 3, "title": "Rest", "status": "deferred", "subtasks": []},
        ],
        "metadata": {"created": "2025-01-01T00:00:00.000Z"},
    },
    "feature": {"tasks": [{"id": 1, "title": "Other", "status": "pending"}], "more": True},
    "extra": [1, 2],
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / ".taskmaster" / "tasks" / "tasks.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(TAGGED, indent=2) + "\n")
    return path


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        yield manager


@pytest.fixture
def tasks(manager, path):
    return TaskMaster(manager, path)


def read(path):
    return json.loads(path.read_text())


def statuses(path, tag="master"):
    found = TasksFile(path, tag).entries()
    return {one.ref: one.status for one in found}


def test_tasks_and_subtasks_are_read(tasks):
    found = {one.ref: one for one in tasks.tasks()}
    assert list(found) == ["1", "1.1", "1.2", "2", "3"]
    assert (found["1"].title, found["1"].description, found["1"].subtasks) == (
        "Parse",
        "The grammar",
        2,
    )
    assert (found["1.1"].parent, found["1.1"].status, found["2"].parent) == ("1", "pending", None)
    assert found["1"].fields["ours"]["of"] == ["nobody", 1.0, None]
    assert tasks.task_id("1.1") == "master/1.1"


def test_the_file_stays_where_it_is_when_the_program_goes_elsewhere(manager, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    tasks = TaskMaster(manager, path.name)
    monkeypatch.chdir("/")
    assert len(tasks.tasks()) == 5


def test_open_tasks_seed_checkpoints_once(manager, tasks):
    seeded = tasks.seed()
    assert list(seeded) == ["1", "1.1", "2"]
    one = manager.get_checkpoint(seeded["1"])
    assert (one.task_id, one.task_title, one.step_description) == (
        "master/1",
        "Parse",
        "The grammar",
    )
    assert (one.state, one.step_number, one.total_steps) == (CheckpointState.CREATED, 1, 2)
    assert one.data["task_master"]["ours"] == TAGGED["master"]["tasks"][0]["ours"]
    assert one.data["task_master"]["ref"] == "1"
    inner = manager.get_checkpoint(seeded["1.1"])
    assert inner.parent_checkpoint_id == seeded["1"]
    before = manager.store.position
    assert tasks.seed() == {}
    assert manager.store.position == before
    assert list(tasks.seed(["3", "2"])) == ["3"]
    manager.delete_task("master/2")
    assert list(tasks.seed()) == ["2"]
    with pytest.raises(ArgumentError, match="no task '9'"):
        tasks.seed(["9"])


@pytest.mark.parametrize("length", [160, 186])
def test_a_long_tag_seeds_every_task_once(manager, tmp_path, length):
    path, tag = tmp_path / "tasks.json", "t" * length
    listed = [{"id": one, "title": f"T{one}", "status": "pending"} for one in range(1, 6)]
    path.write_text(json.dumps({tag: {"tasks": listed}}))
    tasks = TaskMaster(manager, path, tag=tag)
    assert list(tasks.seed()) == ["1", "2", "3", "4", "5"]
    assert tasks.seed() == {}


def test_a_short_command_id_is_what_it_always_was(manager, tasks):
    seeded = tasks.seed()
    for ref, name in seeded.items():
        told = manager.store.command(f"task-master/0/master/{ref}")
        assert told is not None
        assert told.subject.checkpoint == name


def test_a_seed_that_was_deleted_is_made_anew(manager, tasks, path):
    made = [tasks.seed(["2"])["2"]]
    for title in ("Print", "Print again", "Print once more"):  # the file's, or another text
        path.write_text(path.read_text().replace('"Print', f'"{title}', 1))
        manager.delete_checkpoint(made[-1])
        made.append(tasks.seed(["2"])["2"])
        assert tasks.seed(["2"]) == {}
        assert manager.get_latest_checkpoint("master/2").checkpoint_id == made[-1]
    assert len(set(made)) == 4


def test_two_that_seed_at_once_make_one(manager, tasks, path):
    other = TaskMaster(manager, path)
    threads = [threading.Thread(target=one.seed) for one in (tasks, other) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ref in ("1", "1.1", "2"):
        assert len(manager.get_task_checkpoints(tasks.task_id(ref))) == 1


def test_states_become_statuses_and_all_else_stays(manager, tasks, path):
    seeded = tasks.seed()
    assert tasks.sync() == []
    manager.update_checkpoint(seeded["1"])
    manager.complete_checkpoint(seeded["1.1"])
    manager.fail_checkpoint(seeded["2"])
    changed = {one.ref: (one.before, one.after) for one in tasks.sync()}
    assert changed == {
        "1": ("pending", "in-progress"),
        "1.1": ("pending", "done"),
        "2": ("in-progress", "pending"),
    }
    wanted = json.loads(json.dumps(TAGGED))
    first, second = wanted["master"]["tasks"][:2]
    first["status"], first["subtasks"][0]["status"] = "in-progress", "done"
    second["status"] = "pending"
    assert path.read_text() == json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
    assert tasks.sync() == []
    # Of two steps the first is complete: not done yet.
    manager.complete_checkpoint(seeded["1"])
    assert tasks.sync() == []
    manager.complete_checkpoint(manager.create_checkpoint("master/1", "Parse", 2, "", 2))
    assert [one.after for one in tasks.sync(["1"])] == ["done"]


def test_a_restored_one_is_in_progress_and_one_given_up_is_deferred(manager, tasks, path):
    name = tasks.seed(["2"])["2"]
    recovery = TaskRecovery(manager, "w", attempts_max=1, background=False)
    for action in ("begin", "retry"):
        assert recovery.claim("master/2").action == action
        manager.release_lease("master/2", force=True)
    tasks.set_status("2", "pending")
    tasks.sync()
    assert statuses(path)["2"] == "in-progress"
    assert recovery.claim("master/2").action == "give_up"
    tasks.sync()
    assert statuses(path)["2"] == "deferred"
    latest = manager.get_latest_checkpoint("master/2")
    assert latest.checkpoint_id != name
    manager.restore_checkpoint(latest.checkpoint_id)
    tasks.sync()
    assert statuses(path)["2"] == "in-progress"


@pytest.mark.parametrize("act", ["update", "fail", "complete"])
@pytest.mark.parametrize("decided", ["done", "cancelled", "review", "deferred", "blocked"])
def test_what_a_person_decided_stays(manager, tasks, path, decided, act):
    name = tasks.seed()["2"]
    tasks.set_status(2, decided)
    getattr(manager, f"{act}_checkpoint")(name)
    assert tasks.sync() == []
    assert statuses(path)["2"] == decided


def test_a_seed_is_begun_and_not_recovered(manager, tasks):
    seeded = tasks.seed()
    assert manager.find_interrupted_tasks() == []
    told = manager.find_interrupted_tasks(include_seeds=True)
    assert [(one.task_id, one.begun) for one in told] == [
        ("master/1", False), ("master/1.1", False), ("master/2", False),
    ]  # fmt: skip
    assert TaskRecovery(manager, "w").claim_next() is None
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution(tasks.task_id("2"), "Print")
    begun = manager.get_checkpoint(name)
    assert (name, begun.state) == (seeded["2"], CheckpointState.ACTIVE)
    assert begun.data["task_master"]["ref"] == "2"
    assert retrial.attempts_of(begun.metadata) == ()
    # Its worker dies: now it is interrupted, and the first recovery is the first attempt.
    manager.release_lease("master/2", force=True)
    (found,) = manager.find_interrupted_tasks()
    assert (found.task_id, found.begun, found.attempts) == ("master/2", True, ())
    other = WorkerCheckpointIntegration("w2", manager)
    again = manager.get_checkpoint(other.start_task_execution(tasks.task_id("2"), "Print"))
    assert again.state is CheckpointState.RESTORED
    assert [one.worker for one in retrial.attempts_of(again.metadata)] == ["w2"]


def test_a_tag_of_its_own(manager, tasks, path):
    other = TaskMaster(manager, path, tag="feature")
    (name,) = other.seed().values()
    assert manager.get_checkpoint(name).task_id == "feature/1"
    manager.complete_checkpoint(name)
    other.sync()
    assert statuses(path, "feature") == {"1": "done"}
    assert statuses(path)["1"] == "pending"
    with pytest.raises(ArgumentError, match="its tags are: master, feature"):
        TaskMaster(manager, path, tag="none").tasks()


def test_the_old_form(manager, tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text('{"tasks":[{"id":7,"title":"T","status":"pending"}],"x":1}')
    path.chmod(0o640)
    tasks = TaskMaster(manager, path)
    manager.update_checkpoint(tasks.seed()["7"])
    tasks.sync()
    assert read(path) == {"tasks": [{"id": 7, "title": "T", "status": "in-progress"}], "x": 1}
    assert not path.read_text().endswith("\n")
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ArgumentError, match="no tags"):
        TaskMaster(manager, path, tag="other").tasks()


def test_a_symbolic_link_stays_one(manager, path, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    TaskMaster(manager, link).set_status("1.1", "done")
    assert link.is_symlink()
    assert statuses(path)["1.1"] == "done"


def test_a_status_and_a_task_that_there_are_not(tasks, path):
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match="no status of Task Master"):
        tasks.set_status("1", "finished")
    with pytest.raises(ArgumentError, match="no task '8'"):
        tasks.set_status("8", "done")
    assert tasks.set_status("1", "pending") is False
    assert path.read_bytes() == before


# --- others at the same file ----------------------------------------------------------------------


def test_what_others_wrote_meanwhile_is_kept(manager, tasks, path, monkeypatch):
    """Between our look and our write another program adds a task and changes a status."""
    real, turns = tasks_file.file_lock, iter(range(2))

    def meddling(target, wait_s):
        if next(turns) == 0:
            document = read(path)
            document["master"]["tasks"].append({"id": 9, "title": "New", "status": "pending"})
            document["master"]["tasks"][1]["status"] = "cancelled"
            path.write_text(json.dumps(document))
        return real(target, wait_s)

    for name in tasks.seed().values():
        manager.update_checkpoint(name)
    monkeypatch.setattr(tasks_file, "file_lock", meddling)
    changed = {one.ref for one in tasks.sync()}
    assert changed == {"1", "1.1"}  # 2 was decided by the other, meanwhile
    assert statuses(path) == {
        "1": "in-progress", "1.1": "in-progress", "1.2": "done", "2": "cancelled",
        "3": "deferred", "9": "pending",
    }  # fmt: skip


def test_who_is_overtaken_for_ever_gives_up(tasks, path, monkeypatch):
    real = tasks_file.file_lock

    def meddling(target, wait_s):
        path.write_bytes(path.read_bytes() + b" ")
        return real(target, wait_s)

    monkeypatch.setattr(tasks_file, "file_lock", meddling)
    with pytest.raises(BusyError, match="changed by others 20 times"):
        tasks.set_status("1", "done")
    assert statuses(path)["1"] == "pending"


def test_many_writers_lose_nothing(manager, path):
    document = {"master": {"tasks": [{"id": one, "status": "pending"} for one in range(1, 41)]}}
    path.write_text(json.dumps(document))

    def work(refs):
        tasks = TaskMaster(manager, path)
        for ref in refs:
            tasks.set_status(ref, "done")

    threads = [threading.Thread(target=work, args=(range(at, 41, 4),)) for at in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses(path).values()) == {"done"}
    assert sorted(one.name for one in path.parent.iterdir()) == ["tasks.json"]


def test_the_lock_of_another_program_is_waited_for(manager, path):
    lock = path.with_name("tasks.json.lock")
    lock.mkdir()
    with pytest.raises(LockTimeoutError, match="locked"):
        TaskMaster(manager, path, wait_s=0.1).set_status("1", "done")
    assert statuses(path)["1"] == "pending"
    threading.Timer(0.1, lock.rmdir).start()
    assert TaskMaster(manager, path, wait_s=30).set_status("1", "done")
    assert not lock.exists()


def test_the_lock_of_a_dead_program_is_taken(manager, path):
    lock = path.with_name("tasks.json.lock")
    lock.mkdir()
    os.utime(lock, (1_700_000_000, 1_700_000_000))
    assert TaskMaster(manager, path, wait_s=5).set_status("1", "done")
    assert not lock.exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_both_kinds_of_lock_are_waited_for_and_taken_from_the_dead(manager, path, make):
    lock = path.with_name("tasks.json.lock")
    make(lock)
    with pytest.raises(LockTimeoutError):
        TaskMaster(manager, path, wait_s=0.1).set_status(1, "done")
    os.utime(lock, (1, 1))
    assert TaskMaster(manager, path, wait_s=5).set_status(1, "done")
    assert not lock.exists()


def test_the_lock_beside_a_link_counts_as_that_beside_the_file(manager, path, tmp_path):
    link = tmp_path / "tasks.json"
    link.symlink_to(path)
    for locked in (link, path):
        lock = locked.with_name("tasks.json.lock")
        lock.mkdir()
        with pytest.raises(LockTimeoutError):
            TaskMaster(manager, link, wait_s=0.1).set_status(1, "done")
        lock.rmdir()
    assert TaskMaster(manager, link).set_status(1, "done")
    assert link.is_symlink()
    assert not list(tmp_path.rglob("*.lock"))


def test_a_full_disk_leaves_the_old_file(tasks, path, monkeypatch):
    import errno

    before = path.read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(tasks_file.files, "write_all", full)
    with pytest.raises(Exception, match="No space left"):
        tasks.set_status("1", "done")
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["tasks.json"]


# --- hostile files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ('{"master": {"tasks": NaN}}', "NaN"),
        ('{"master": {"tasks": [{"id": 1, "n": 1e400}]}}', "1e400 is larger"),
        ('{"master": {"tasks": [{"id": 1, "n": -1e400}]}}', "-1e400 is larger"),
        ('{"master": {"tasks": [{"id": 1, "n": %s}]}}' % ("[" * 199 + "]" * 199), "200 deep"),
        ("[" * 100_000, "no JSON"),
        ("{}", "its tags are: none"),
        ('{"master": {"tasks": {}}}', "no list at master.tasks"),
        ('{"master": {"tasks": [1]}}', r"no object at master.tasks\[0\]"),
        ('{"master": {"tasks": [{}]}}', r"no id at master.tasks\[0\]"),
        ('{"master": {"tasks": [{"id": true}]}}', "no id at"),
        ('{"master": {"tasks": [{"id": -1}]}}', "no id at"),
        ('{"master": {"tasks": [{"id": 1.5}]}}', "no id at"),
        ('{"master": {"tasks": [{"id": 1}, {"id": "1"}]}}', "two tasks 1"),
        ('{"master": {"tasks": [{"id": 1, "subtasks": 7}]}}', r"no list at master.tasks\[0\].sub"),
        ('{"master": {"tasks": [{"id": 1, "subtasks": [{}]}]}}', r"no id at .*subtasks\[0\]"),
    ],
)
def test_what_is_no_tasks_file_is_refused_and_stays(tasks, path, text, fault):
    path.write_text(text)
    for act in (tasks.tasks, tasks.seed, tasks.sync, lambda: tasks.set_status("1", "done")):
        with pytest.raises(ArgumentError, match=fault):
            act()
    assert path.read_text() == text


def test_what_is_no_file_is_refused(tasks, path, manager, tmp_path):
    path.unlink()
    with pytest.raises(ArgumentError, match="task-master init"):
        tasks.tasks()
    os.mkfifo(path)
    with pytest.raises(ArgumentError, match="FIFO"):
        tasks.tasks()
    path.unlink()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArgumentError, match="no JSON"):
        tasks.tasks()


def test_a_file_that_is_too_large(tasks, path, monkeypatch):
    monkeypatch.setattr(tasks_file, "BYTES_MAX", 10)
    with pytest.raises(ArgumentError, match="larger than 10"):
        tasks.tasks()


def test_odd_texts_are_no_hindrance(manager, path):
    path.write_text('{"master": {"tasks": [{"id": "a b", "title": 7, "status": null}]}}')
    tasks = TaskMaster(manager, path)
    (entry,) = tasks.tasks()
    assert (entry.ref, entry.title, entry.status) == ("a b", "", "pending")
    (name,) = tasks.seed().values()
    assert manager.get_checkpoint(name).task_title == "master/a b"


def test_numbers_and_half_characters_come_back_as_they_stood(manager, path):
    numbers = [
        "0.10000000000000000555", "1E5", "1.50", "-0", "1e-400", "123456789012345678901234567890"
    ]  # fmt: skip
    parts = [f'"n{at}": {one}' for at, one in enumerate(numbers)]
    parts += [r'"cut \udc00": "x \ud83d y"', '"whole": "\U0001f600"', '"none": []', '"no": {}']
    inner = ",\n        ".join(['"id": 1', '"title": "T \\ud83d"', '"status": "pending"', *parts])
    text = '{\n  "master": {\n    "tasks": [\n      {\n        ' + inner
    text += "\n      }\n    ]\n  }\n}\n"
    path.write_text(text)
    tasks = TaskMaster(manager, path)
    assert tasks.set_status("1", "done")
    assert path.read_text() == text.replace('"pending"', '"done"')
    assert tasks.set_status("1", "pending")  # what we wrote is read again
    assert path.read_text() == text
    found = manager.get_checkpoint(tasks.seed()["1"])
    assert found.task_title == "T \ufffd"
    told = found.data["task_master"]
    assert [told["n1"], told["n2"], type(told["n2"])] == [1e5, 1.5, float]
    assert told["cut \ufffd"] == "x \ufffd y"


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters())
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda one: st.lists(one) | st.dictionaries(st.text(), one), max_leaves=20,
))  # fmt: skip
def test_texts_are_those_of_json(value):
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = re.sub("[\ud800-\udfff]", lambda one: f"\\u{ord(one[0]):04x}", text)
    assert document.written(document.read(json.dumps(value).encode())).decode() == text


def test_a_task_with_subtasks_that_a_worker_completed_is_done(manager, tasks):
    tasks.seed()
    worker = WorkerCheckpointIntegration("w", manager)
    name = worker.start_task_execution(tasks.task_id(1), "Parse")
    assert [one.after for one in tasks.sync()] == ["in-progress"]
    worker.complete_task_execution(name, {"ok": True})
    assert [(one.ref, one.after) for one in tasks.sync()] == [("1", "done")]


@pytest.mark.parametrize("path", [None, "", 5])
def test_a_path_that_is_none_is_refused(manager, path):
    with pytest.raises(ArgumentError, match="path"):
        TaskMaster(manager, path)


@pytest.mark.parametrize("refs", ["12", 12, b"1", True])
def test_refs_that_are_no_list_are_refused(manager, tasks, path, refs):
    for act in (tasks.seed, tasks.sync):
        with pytest.raises(ArgumentError, match="a list of refs is needed"):
            act(refs)
    assert list(tasks.seed([1])) == ["1"]


@pytest.mark.parametrize("wait_s", [-1, "1", None, True, float("nan")])
def test_a_time_to_wait_that_is_none_is_refused(manager, path, wait_s):
    with pytest.raises(ArgumentError, match="wait_s"):
        TaskMaster(manager, path, wait_s=wait_s)


@pytest.mark.parametrize("status", [None, "", "DONE", ["done"]])
def test_a_status_that_is_none_is_refused_by_name(tasks, status):
    with pytest.raises(ArgumentError, match="no status of Task Master"):
        tasks.set_status(1, status)


@pytest.mark.parametrize("wrong", ["a\a", "\ud800", " 1", "", "x" * 65, 10**70, -1, 1.5, None])
def test_an_id_that_no_checkpoint_can_have_is_refused_with_its_place(tasks, path, wrong):
    path.write_text(json.dumps({"master": {"tasks": [{"id": 1}, {"id": wrong}]}}))
    before = path.read_bytes()
    for act in (tasks.tasks, tasks.seed, tasks.sync):
        with pytest.raises(ArgumentError, match=r"tasks\.json has no id at master\.tasks\[1\]"):
            act()
    assert path.read_bytes() == before


@pytest.mark.root
def test_the_owner_of_the_file_stays(tasks, path):
    os.chown(path, 1234, 1235)
    path.chmod(0o640)
    assert tasks.set_status(1, "done")
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 1235, 0o640)
