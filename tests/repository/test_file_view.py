"""The file view of a real store: current, healed, and whole whoever is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import ckptlog
from ckptlog.errors import (
    LockTimeoutError,
    LogCorruptionError,
    ReadOnlyError,
)
from ckptlog.repository.file_view import FileView
from ckptlog.storage.environment import Environment
from ckptlog.storage.tree import Tree
from ckptlog.views.document import name_of
from ckptlog.views.register import index_of
from tests.repository.damage import flipped
from tests.views.test_files import on_disk


@pytest.fixture
def manager(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s", actor="ada") as manager:
        yield manager


@pytest.fixture
def store(manager):
    return manager.store


@pytest.fixture
def view(store):
    return FileView(store)


def expected(manager):
    """Return the files by what the manager says: checkpoint by checkpoint."""
    files, rows = {}, []
    for checkpoint in manager.iterate():
        state = checkpoint.state.value
        folder = state if state in ("completed", "failed") else "active"
        path = f"{folder}/{name_of(checkpoint.checkpoint_id)}"
        files[path] = json.loads(json.dumps(checkpoint.to_dict()))
        rows.append(checkpoint)
    last = list(manager.store.events(max(0, manager.store.position - 1)))
    files["index.json"] = {
        "by_task": grouped(rows, "task_id"),
        "by_worker": grouped([row for row in rows if row.worker_id], "worker_id"),
        "by_state": {
            state: [row.checkpoint_id for row in rows if row.state.value == state]
            for state in ("created", "active", "completed", "failed", "restored")
        },
        "metadata": {
            "last_updated": last[0].event.time if last else None,
            "total_checkpoints": len(rows),
            "position": manager.store.position,
        },
    }
    return files


def grouped(rows, name):
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(getattr(row, name), []).append(row.checkpoint_id)
    return found


def shown(view):
    return {path: json.loads(content) for path, content in on_disk(view.folder).items()}


def work(manager, seed=1, rounds=40):
    """Change a store at random, all kinds of changes."""
    dice = random.Random(seed)
    for number in range(rounds):
        task = f"task {dice.randrange(4)}"
        living = [one.checkpoint_id for one in manager.iterate()]
        name = dice.choice(living) if living else None
        act = dice.randrange(8)
        if name is None or act <= 2:
            manager.create_checkpoint(
                task,
                "T",
                number + 1,
                data={"n": number},
                worker_id=dice.choice([None, "w/1", "w2"]),
            )
            continue
        state = manager.get_checkpoint(name).state.value
        if state in ("completed", "failed"):
            manager.restore_checkpoint(name)
        elif act == 3:
            manager.update_checkpoint(name, data={"n": number})
        elif act == 4:
            manager.complete_checkpoint(name)
        elif act == 5:
            manager.fail_checkpoint(name)
        elif act == 6:
            manager.delete_checkpoint(name)
        elif number % 10 == 0:
            manager.delete_task(task)


@pytest.mark.parametrize("seed", range(3))
def test_files_are_what_the_store_says(manager, view, seed):
    dice = random.Random(seed)
    for round_ in range(6):
        work(manager, seed=seed * 100 + round_, rounds=dice.randrange(20))
        done = view.refresh()
        assert done.position == manager.store.position
        assert shown(view) == expected(manager)
    incremental = on_disk(view.folder)
    done = view.rebuild()
    assert (done.is_rebuilt, done.events) == (True, manager.store.position)
    assert on_disk(view.folder) == incremental
    shutil.rmtree(view.folder)
    assert FileView(manager.store).refresh().is_rebuilt
    assert on_disk(view.folder) == incremental


def test_nothing_new_writes_nothing(manager, view):
    work(manager)
    view.refresh()
    before = {
        entry.path: entry.stat().st_mtime_ns for entry in os.scandir(view.folder) if entry.is_file()
    }
    done = view.refresh()
    assert (done.events, done.written, done.removed, done.repaired) == (0, 0, 0, 0)
    assert FileView(manager.store).refresh().written == 0
    after = {
        entry.path: entry.stat().st_mtime_ns for entry in os.scandir(view.folder) if entry.is_file()
    }
    assert {path: t for path, t in before.items() if ".lock" not in path} == {
        path: t for path, t in after.items() if ".lock" not in path
    }


def test_counts(manager, view):
    name = manager.create_checkpoint("t", "T", 1)
    assert view.is_behind()
    assert view.refresh().written == 1
    assert not view.is_behind()
    manager.complete_checkpoint(name)
    other = manager.create_checkpoint("t", "T", 2)
    manager.delete_checkpoint(other)
    done = view.refresh()
    assert (done.events, done.written, done.removed, done.position) == (3, 1, 1, 4)


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc/x", "/abs", "a\\b", "x" * 512, "ü" * 300, "a b", ".hidden", "-rf", "con"],
)
def test_hostile_ids_stay_in_their_folder(manager, view, tmp_path, name):
    manager.create_checkpoint("../t", "T", 1, checkpoint_id=name, worker_id="../w")
    view.refresh()
    assert shown(view) == expected(manager)
    (path,) = (view.folder / "active").iterdir()
    assert path.resolve().parent == (view.folder / "active").resolve()
    assert json.loads(path.read_text())["checkpoint_id"] == name
    manager.delete_checkpoint(name)
    view.refresh()
    assert list((view.folder / "active").iterdir()) == []


# --- what is found --------------------------------------------------------------------------------


def test_a_file_that_is_missing_is_written_again(manager, view):
    work(manager)
    view.refresh()
    wanted = on_disk(view.folder)
    victims = [path for path in wanted if path != "index.json"][:3]
    for path in victims:
        (view.folder / path).unlink()
    (view.folder / "active" / "checkpoint_stranger.json").write_text("{}")
    assert view.refresh().repaired == 0  # the same process has no reason to look
    done = FileView(manager.store).refresh()
    assert (done.repaired, done.is_rebuilt) == (3, False)
    assert on_disk(view.folder) == wanted


@pytest.mark.parametrize("content", [None, "{}"])
def test_an_index_that_is_not_as_it_was_left_is_written_again(manager, view, content):
    work(manager)
    view.refresh()
    wanted = on_disk(view.folder)
    index = view.folder / "index.json"
    index.unlink()
    if content is not None:
        index.write_text(content)
    next((view.folder / "active").glob("*.json")).unlink()
    done = view.refresh()
    assert (done.repaired, done.is_rebuilt) == (2, False)
    assert on_disk(view.folder) == wanted
    assert view.refresh().repaired == 0


def test_a_torn_file_is_found_when_asked_for_and_after_a_reboot(manager, view, monkeypatch):
    work(manager)
    view.refresh()
    wanted = on_disk(view.folder)
    path = next(view.folder / one for one in wanted if one != "index.json")
    path.write_bytes(b"\0" * 20)
    assert FileView(manager.store).refresh().repaired == 0
    assert view.refresh(is_thorough=True).repaired == 1
    assert on_disk(view.folder) == wanted
    path.write_bytes(b"")
    monkeypatch.setattr(Environment, "boot", lambda self: b"another boot....")
    done = FileView(manager.store).refresh()
    assert (done.repaired, done.is_rebuilt) == (1, False)
    assert on_disk(view.folder) == wanted
    path.write_bytes(b"")
    assert FileView(manager.store).refresh().repaired == 0  # it is of this boot now


def test_after_a_reboot_a_sound_view_is_compared_once(manager, view, monkeypatch):
    work(manager)
    view.refresh()
    monkeypatch.setattr(Environment, "boot", lambda self: b"another boot....")
    other = FileView(manager.store)
    assert other.refresh().repaired == 0
    assert other._view.is_of_this_boot


@pytest.mark.parametrize("position", [0, 10**6])
def test_a_register_that_names_other_events_is_not_believed(manager, view, position):
    import msgspec

    work(manager)
    view.refresh()
    register = view._view.register
    row = register.in_order()[-1]
    register.put(msgspec.structs.replace(row, position=position))
    view._view._save()
    (view.folder / row.path).unlink()
    other = FileView(manager.store)
    assert other.refresh().is_rebuilt
    assert shown(other) == expected(manager)


def test_a_view_at_rest_holds_no_descriptor(manager, view):
    work(manager)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        FileView(manager.store).refresh()
    manager.store.timeout_s = 0.0
    other = FileView(manager.store)
    with view._held(), pytest.raises(LockTimeoutError):
        other.refresh()
    assert len(os.listdir("/proc/self/fd")) == before


def test_counts_of_a_long_way(manager, view, monkeypatch):
    monkeypatch.setattr("ckptlog.repository.file_view.CHANGES_MAX", 3)
    names = [manager.create_checkpoint("t", "T", step) for step in range(1, 11)]
    assert view.refresh().written == 10
    for name in names:
        manager.delete_checkpoint(name)
    assert view.refresh().removed == 10


def test_where_boots_are_not_told_apart_every_opening_compares(manager, monkeypatch):
    monkeypatch.setattr(Environment, "boot", lambda self: bytes(16))
    work(manager)
    view = FileView(manager.store)
    view.refresh()
    path = next((view.folder / "active").iterdir())
    path.write_bytes(b"")
    assert view.refresh().repaired == 0
    assert FileView(manager.store).refresh().repaired == 1
    assert shown(view) == expected(manager)


@pytest.mark.parametrize("content", [b"", b"nonsense", None, "cut"], ids=str)
def test_a_torn_register_has_everything_built_anew(manager, view, content):
    work(manager)
    view.refresh()
    wanted = on_disk(view.folder)
    register = view.folder / ".register"
    if content is None:
        register.unlink()
    else:
        register.write_bytes(register.read_bytes()[:-3] if content == "cut" else content)
    (view.folder / "failed" / "checkpoint_stranger.json").write_text("{}")
    (view.folder / "failed" / "notes.txt").write_text("mine")
    assert view.refresh().is_rebuilt
    assert on_disk(view.folder) == {**wanted, "failed/notes.txt": b"mine"}


def test_the_view_of_another_store_is_replaced(manager, view, tmp_path):
    work(manager)
    view.refresh()
    with ckptlog.CheckpointManager(tmp_path / "other") as other:
        other.create_checkpoint("elsewhere", "E", 1)
        shutil.copytree(view.folder, tmp_path / "other" / "views" / "files")
        theirs = FileView(other.store)
        assert theirs.refresh().is_rebuilt
        assert shown(theirs) == expected(other)


def test_the_view_of_another_history_is_replaced(tmp_path):
    """The store is set back to a copy and written on: positions fit, the events do not."""
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
    shutil.copytree(tmp_path / "s", tmp_path / "backup")
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 2, checkpoint_id="before")
        FileView(manager.store).refresh()
    shutil.move(tmp_path / "s" / "views" / "files", tmp_path / "files")
    shutil.rmtree(tmp_path / "s")
    shutil.copytree(tmp_path / "backup", tmp_path / "s")
    shutil.copytree(tmp_path / "files", tmp_path / "s" / "views" / "files")
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        view = FileView(manager.store)
        assert view.refresh().is_rebuilt  # from the future
        assert shown(view) == expected(manager)
        for step in (2, 3):
            manager.create_checkpoint("t", "T", step, checkpoint_id=f"after {step}")
        shutil.rmtree(view.folder)
        shutil.copytree(tmp_path / "files", view.folder)
        assert FileView(manager.store).refresh().is_rebuilt  # from another past
        assert shown(view) == expected(manager)
        assert not (view.folder / "active" / "checkpoint_before.json").exists()
        # A process that had the view open notices too.
        shutil.rmtree(view.folder)
        shutil.copytree(tmp_path / "files", view.folder)
        assert view.refresh().is_rebuilt
        assert shown(view) == expected(manager)


def test_a_build_that_was_cut_off_goes_on(manager, view, monkeypatch):
    work(manager, rounds=60)
    monkeypatch.setattr("ckptlog.repository.file_view.CHANGES_MAX", 5)
    applied = []
    take_in = view._view.take_in

    def dying(*arguments):
        applied.append(1)
        if len(applied) == 3:
            raise KeyboardInterrupt
        take_in(*arguments)

    monkeypatch.setattr(view._view, "take_in", dying)
    with pytest.raises(KeyboardInterrupt):
        view.refresh()
    (view.folder / "active" / "checkpoint_stranger.json").write_text("{}")
    other = FileView(manager.store)
    done = other.refresh()
    assert done.is_rebuilt is False
    assert 0 < done.events < manager.store.position
    assert shown(other) == expected(manager)
    # A build that another boot cut off is begun anew.
    view = FileView(manager.store)
    view._view.clear()
    monkeypatch.setattr(Environment, "boot", lambda self: b"another boot....")
    assert FileView(manager.store).refresh().is_rebuilt
    assert shown(view) == expected(manager)


# --- an index that is written now and then --------------------------------------------------------


@pytest.fixture
def resting(manager, view, monkeypatch):
    """A view of ten checkpoints, which for its size has written the index a moment ago."""
    monkeypatch.setattr("ckptlog.repository.file_view._EAGER_MAX", 5)
    for number in range(10):
        manager.create_checkpoint("t", "T", 1, checkpoint_id=f"c{number}", data={"n": 0})
    view.refresh()
    view._rests_until_s = float("inf")
    return view


def lazily(manager, view):
    """Change, move, end and make checkpoints; return what index and register were before."""
    before = [(view.folder / name).read_bytes() for name in ("index.json", ".register")]
    for number in range(3):
        manager.update_checkpoint("c1", data={"n": number})
        assert view.refresh(is_lazy=True).written == 1
    manager.complete_checkpoint("c2")
    manager.delete_checkpoint("c3")
    manager.create_checkpoint("t", "T", 1, checkpoint_id="late")
    view.refresh(is_lazy=True)
    return before


def test_a_lazy_refresh_writes_the_files_and_leaves_the_rest(manager, resting):
    before = lazily(manager, resting)
    assert [(resting.folder / name).read_bytes() for name in ("index.json", ".register")] == before
    wanted, found = expected(manager), shown(resting)
    # The index still names the one that is gone: so its file is there.
    assert set(found) - set(wanted) == {"active/checkpoint_c3.json"}
    assert {path: found[path] for path in wanted if path != "index.json"} == {
        path: content for path, content in wanted.items() if path != "index.json"
    }
    assert resting.position == manager.store.position


@pytest.mark.parametrize("how", ["refresh", "rested", "thorough", "rebuild", "touched"])
def test_what_was_left_is_done_by_a_later_one(manager, resting, how):
    lazily(manager, resting)
    if how == "refresh":
        resting.refresh()
    elif how == "rested":
        resting._rests_until_s = 0
        resting.refresh(is_lazy=True)
    elif how == "thorough":
        resting.refresh(is_thorough=True)
    elif how == "rebuild":
        resting.rebuild()
    else:
        (resting.folder / "index.json").write_text("{}")
        resting.refresh(is_lazy=True)
    assert shown(resting) == expected(manager)
    assert FileView(manager.store).refresh(is_thorough=True).repaired == 0


def test_somebody_else_who_comes_meanwhile_takes_nothing_away(manager, resting, monkeypatch):
    """Also what a process that was killed then has left: files that no register knows."""
    lazily(manager, resting)
    taken = []
    remove = Tree.remove
    monkeypatch.setattr(
        Tree, "remove", lambda tree, path: (taken.append(path), remove(tree, path))[1]
    )
    done = FileView(manager.store).refresh()
    assert (done.repaired, done.is_rebuilt) == (0, False)
    assert "active/checkpoint_late.json" not in taken
    assert "completed/checkpoint_c2.json" not in taken
    assert shown(resting) == expected(manager)
    manager.update_checkpoint("c1", data={"n": 9})
    resting.refresh(is_lazy=True)
    resting.refresh()
    assert shown(resting) == expected(manager)


def is_current(manager, view):
    """Say whether a view is; a file that is renamed under our hands is not there yet."""
    try:
        return shown(view) == expected(manager)
    except FileNotFoundError:
        return False


def test_the_thread_writes_what_was_left(manager, resting):
    lazily(manager, resting)
    stop = threading.Event()
    thread = threading.Thread(target=resting.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 30
    while not is_current(manager, resting):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop.set()
    thread.join()


def test_a_small_index_is_written_with_each_step(manager, view):
    for number in range(4):
        manager.create_checkpoint("t", "T", 1, checkpoint_id=f"c{number}")
        view.refresh(is_lazy=True)
        assert shown(view) == expected(manager)


# --- damage and refusals --------------------------------------------------------------------------


def test_a_damaged_payload_hides_its_own_checkpoint_only(manager, view, small_packs):
    good = manager.create_checkpoint("t", "T", 1, data={"n": 1})
    bad = manager.create_checkpoint("t", "T", 2, data={"noise": os.urandom(300).hex()})
    (pack,) = manager.store.path.glob("packs/*.pack")
    manager.store.blobs.close()  # nothing is remembered
    with flipped(pack, pack.stat().st_size // 2):
        assert view.refresh().written == 2
        assert set(on_disk(view.folder)) == {f"active/{name_of(good)}", "index.json"}
        index = shown(view)["index.json"]
        assert index["metadata"]["unreadable"] == [bad]
        assert index["by_task"] == {"t": [good, bad]}
    assert view.refresh(is_thorough=True).repaired == 1
    assert shown(view) == expected(manager)


def test_trouble_that_is_not_about_a_payload_hides_nothing(manager, view, monkeypatch):
    from ckptlog.errors import InputOutputError, StoreClosedError

    name = manager.create_checkpoint("t", "T", 1)
    view.refresh()
    wanted = on_disk(view.folder)
    manager.complete_checkpoint(name)
    for error in (InputOutputError("too many open files"), StoreClosedError("closed")):

        def failing(reference, error=error):
            raise error

        monkeypatch.setattr(manager.store, "wire", failing)
        with pytest.raises(type(error)):
            view.refresh()
        assert on_disk(view.folder) == wanted
    monkeypatch.undo()
    view.refresh()
    assert shown(view) == expected(manager)


def test_a_rebuild_from_a_damaged_log_leaves_what_is_there(manager, view):
    work(manager)
    view.refresh()
    wanted = on_disk(view.folder)
    entry = manager.store.event_at(3)
    with (
        flipped(manager.store.path / entry.container, entry.offset + 40),
        pytest.raises(LogCorruptionError),
    ):
        view.rebuild()
    assert on_disk(view.folder) == wanted
    assert FileView(manager.store).refresh().is_rebuilt is False


def test_a_damaged_log_is_shown_up_to_the_damage(manager, view):
    names = [manager.create_checkpoint("t", "T", step) for step in range(1, 6)]
    entry = manager.store.event_at(3)
    with flipped(manager.store.path / entry.container, entry.offset + 40):
        with pytest.raises(LogCorruptionError):
            view.refresh()
        assert {path for path in on_disk(view.folder) if path != "index.json"} == {
            f"active/{name_of(name)}" for name in names[:3]
        }
        with pytest.raises(LogCorruptionError):
            view.refresh()
    view.refresh()
    assert shown(view) == expected(manager)


def test_a_store_for_reading_only(manager, view):
    work(manager)
    view.refresh()
    before = on_disk(view.folder)
    with ckptlog.open(manager.store.path, read_only=True) as store:
        for act in (FileView(store).refresh, FileView(store).rebuild):
            with pytest.raises(ReadOnlyError):
                act()
    assert on_disk(view.folder) == before


def test_a_folder_that_cannot_be_made(manager):
    from ckptlog.errors import CheckpointStorageError

    (manager.store.path / "views" / "files").write_text("in the way")
    with pytest.raises(CheckpointStorageError):
        FileView(manager.store).refresh()


def test_one_process_at_a_time(manager, view, monkeypatch):
    work(manager)
    view.refresh()
    script = f"""
import fcntl, sys
file = open({str(view.folder / ".lock")!r}, "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        monkeypatch.setattr(manager.store, "timeout_s", 0.05)
        with pytest.raises(LockTimeoutError) as caught:
            view.refresh()
        assert str(process.pid) in caught.value.message
        process.stdin.close()
    view.refresh()


# --- following ------------------------------------------------------------------------------------


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_follower_keeps_the_files_current(manager, view):
    stop, told = threading.Event(), []
    thread = threading.Thread(target=view.run, args=(stop,), kwargs={"tell": told.append})
    thread.start()
    try:
        for seed in range(3):
            work(manager, seed=seed, rounds=10)
            wait_for(lambda: view.position == manager.store.position)
            assert shown(view) == expected(manager)
    finally:
        stop.set()
        thread.join()
    assert sum(done.events for done in told) == manager.store.position


def test_a_follower_goes_on_after_trouble(manager, view, monkeypatch, caplog):
    monkeypatch.setattr("ckptlog.repository.file_view._PAUSE_MAX_S", 0.01)
    manager.create_checkpoint("t", "T", 1)
    blocked = manager.store.path / "views" / "files"
    blocked.write_text("in the way")
    stop = threading.Event()
    thread = threading.Thread(target=view.run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: "was not refreshed" in caplog.text)
        assert "storage.io" in caplog.text
        blocked.unlink()
        wait_for(lambda: view.position == 1)
    finally:
        stop.set()
        thread.join()
    assert shown(view) == expected(manager)


WORKER = """
import random, sys, threading
import ckptlog
from ckptlog.repository.file_view import FileView
from tests.repository.test_file_view import work
path, seed = sys.argv[1], int(sys.argv[2])
with ckptlog.CheckpointManager(path) as manager:
    view = FileView(manager.store)
    view.refresh()
    print("ready", flush=True)
    while True:
        seed += 1
        work(manager, seed=seed, rounds=3)
        view.refresh()
"""


def kill_loop(tmp_path, rounds, *, workers=1):
    dice = random.Random(rounds)
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        work(manager, rounds=10)
    folder = path / "views" / "files"
    for round_ in range(rounds):
        words = [sys.executable, "-c", WORKER, str(path)]
        processes = [
            subprocess.Popen(
                [*words, str(1000 * round_ + 100 * number)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=os.getcwd(),
            )
            for number in range(workers)
        ]
        for process in processes:
            assert process.stdout.readline() == b"ready\n", process.stderr.read()
        time.sleep(dice.random() * 0.15)
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.communicate()
        for found in on_disk(folder).values():
            json.loads(found)  # whole
        if round_ % 2:
            with ckptlog.CheckpointManager(path) as manager:
                view = FileView(manager.store)
                done = view.refresh()
                assert not done.is_rebuilt
                assert shown(view) == expected(manager)
                assert not list((folder / ".new").iterdir())


@pytest.mark.unmeasured
def test_killed_while_materialising(tmp_path):
    kill_loop(tmp_path, 8)


@pytest.mark.unmeasured
def test_two_killed_while_materialising(tmp_path):
    kill_loop(tmp_path, 4, workers=2)


@pytest.mark.thorough
def test_killed_while_materialising_again_and_again(tmp_path):
    kill_loop(tmp_path, 60, workers=2)


def test_the_index_is_that_of_the_rows(manager, view):
    work(manager)
    view.refresh()
    register = view._view.register
    assert shown(view)["index.json"] == index_of(
        register.in_order(), register.last_updated, register.cursor.position
    )
