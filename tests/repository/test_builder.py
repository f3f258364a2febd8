"""Views built in bulk through the store: the same answers, nothing lost, the log read once."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from fcntl import LOCK_EX, flock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlog
from ckptlog import CheckpointConfiguration, CheckpointManager, LogCorruptionError
from ckptlog.blobs.pack import read_index
from ckptlog.errors import CheckpointError, FullError
from ckptlog.repository import builder as builder_module
from ckptlog.repository.builder import Builder
from ckptlog.storage import files
from ckptlog.views.current import CurrentView
from ckptlog.views.query import Filter

VIEW = "views/current.sqlite"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


@pytest.fixture
def every_size(monkeypatch):
    """Let small stores be built as large ones are."""
    monkeypatch.setattr(builder_module, "_EVENTS_MIN", 1)


def configured(durability, **options):
    return CheckpointConfiguration(durability=durability, cleanup_interval_hours=0, **options)


def fill(manager, count=60):
    """Write a bit of everything over several segments; return the ids."""
    manager.store.log._segment_bytes = 20_000
    names = []
    for step in range(1, count + 1):
        data = {"text": "x" * (step * 37 % 3000), "n": step}
        names.append(manager.create_checkpoint(f"t{step % 4}", f"T{step % 7}", step, data=data))
        if step % 3 == 0:
            manager.complete_checkpoint(names[-2])
        if step % 5 == 0:
            manager.delete_checkpoint(names[-3])
    manager.delete_task("t3")
    with manager.batch() as batch:
        names += [batch.create_checkpoint("t3", "B", step) for step in range(1, 6)]
    manager.create_checkpoint("big", "Big", 1, data={"bytes": os.urandom(2_000_000)})
    return names


def told(store):
    """Return all that the views answer."""
    view = store.view()
    events = list(store.events())
    rows = view.select(Filter(), limit=10_000)
    packs = [read_index(pack, store.info.id_bytes) for pack in store.path.glob("packs/*.pack")]
    own = [commit.placements for commit in store.log.reader.commits()]
    digests = [place.digest for places in (*own, *packs) for place in places]
    return {
        "mark": view.mark,
        "totals": view.totals(),
        "rows": rows,
        "each": [view.row(entry.event.subject.checkpoint) for entry in events],
        "states": view.counts_by_state(),
        "tasks": view.tasks(),
        "ends": [view.task_deleted_at(f"t{number}") for number in range(5)],
        "commands": [view.command(entry.event.id) for entry in events],
        "id_time_max": view.id_time_max,
        "chunks": {digest: store.index.get(digest) for digest in digests},
        "indexed": store.index.position,
        "leaves": (store.path / "views/tree/leaves").read_bytes(),
        "check": view.check(),
    }


def slowly(store, folder):
    """Return what a view says that took the commits one by one."""
    view = CurrentView.open(folder / "current.sqlite", store.info.id_bytes)
    for commit in store.log.reader.commits():
        assert view.apply([commit], store._keeper._meta_of)
    found = (view.mark, view.totals(), view.select(Filter(), limit=10_000), view.tasks())
    view.close()
    return found


# --- the same answers -----------------------------------------------------------------------------

ACTS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "complete", "fail", "delete", "task", "batch", "big"]),
        st.integers(0, 7),
    ),
    max_size=25,
)


def act_on(manager, names, act, number):
    name = names[number % len(names)] if names else "none"
    try:
        if act == "create":
            names.append(
                manager.create_checkpoint(f"t{number % 3}", f"T{number}", 1, data={"n": number})
            )
        elif act == "update":
            manager.update_checkpoint(name, metadata={"n": number}, data={"n": [number] * 90})
        elif act == "complete":
            manager.complete_checkpoint(name)
        elif act == "fail":
            manager.fail_checkpoint(name, {"type": "E", "message": "m" * 5000})
        elif act == "delete":
            manager.delete_checkpoint(name)
        elif act == "task":
            manager.delete_task(f"t{number % 3}")
        elif act == "batch":
            with manager.batch() as batch:
                names += [batch.create_checkpoint("b", "B", step + 1) for step in range(number + 1)]
        else:
            names.append(manager.create_checkpoint("t", "T", 1, data={"b": os.urandom(1_100_000)}))
    except CheckpointError:  # not legal just now
        pass


@settings(max_examples=25)
@given(acts=ACTS, stretch=st.sampled_from([1, 5, 4096]), opens=st.booleans())
def test_a_rebuild_of_any_log_gives_the_same_answers(tmp_path_factory, acts, stretch, opens):
    path = tmp_path_factory.mktemp("any") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptlog.views.rebuild._STRETCH_EVENTS", stretch)
        patch.setattr("ckptlog.blobs.sheaf._ENTRIES_MAX", stretch * 3)
        patch.setattr(builder_module, "_EVENTS_MIN", 1)
        with CheckpointManager(path) as manager:
            manager.store.log._segment_bytes = 4000
            names: list[str] = []
            for act, number in acts:
                act_on(manager, names, act, number)
            store = manager.store
            store.view()
            expected = told(store) if acts and store.position else None
            if not opens:
                assert store.rebuild_views() == store.position
                if expected:
                    assert told(store) == expected
                    assert slowly(store, path.parent)[2] == expected["rows"]
        if opens:
            shutil.rmtree(path / "views")
            (path / "views").mkdir()
        with ckptlog.open(path) as store:
            if expected:
                assert told(store) == expected
            assert store.verify().ok
    assert not (path / "views/anew").exists()


def test_it_says_what_a_view_says_that_took_commits_one_by_one(path, tmp_path):
    with CheckpointManager(path) as manager:
        fill(manager)
        store = manager.store
        before = told(store)
        assert store.rebuild_views() == store.position
        assert told(store) == before
        view = store.view()
        assert (view.mark, view.totals(), view.select(Filter(), limit=10_000), view.tasks()) == (
            slowly(store, tmp_path / "slow")
        )
        assert view.notes == ()
        name = manager.create_checkpoint("after", "A", 1)
        assert manager.get_latest_checkpoint("after").checkpoint_id == name
    with ckptlog.open(path) as store:
        assert store.view().notes == ()
        assert store.verify().ok


# --- how it is done, seen from outside --------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """Length of everything that is read of logs and packs, in a list that grows."""
    lengths: list[int] = []
    real = files.read_at

    def read_at(fd, length, offset):
        data = real(fd, length, offset)
        lengths.append(len(data))
        return data

    monkeypatch.setattr(files, "read_at", read_at)
    return lengths


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Make a closed store of some ten thousand events in several segments."""
    path = tmp_path_factory.mktemp("long") / "s"
    with CheckpointManager(path, config=configured("interval")) as manager:
        manager.store.log._segment_bytes = 1_000_000
        for group in range(50):
            with manager.batch() as batch:
                for step in range(1, 201):
                    title = f"T {group} {step}"
                    batch.create_checkpoint(f"t{step % 50}", title, step, data={"n": step})
    return path


def log_bytes(path):
    return sum(file.stat().st_size for file in path.glob("log/*.seg"))


@pytest.mark.parametrize("missing", [None, "views/current.sqlite", "views"])
def test_the_log_is_read_once_and_in_large_pieces(path, long, missing, reads):
    """Commit by commit each title would be looked up by itself."""
    shutil.copytree(long, path)
    if missing == "views":
        shutil.rmtree(path / missing)
    elif missing:
        (path / missing).unlink()
    with ckptlog.open(path) as store:
        if missing is None:
            reads.clear()
            assert store.rebuild_views() == 10_000
        assert sum(reads) < 1.2 * sum(file.stat().st_size for file in path.glob("log/*.seg"))
        assert len(reads) < 200
        assert store.view().mark.position == 10_000
        assert all(row.meta for row in store.view().select(Filter(), limit=100))


def test_a_damaged_view_is_replaced_in_the_same_way(path, long, reads):
    shutil.copytree(long, path)
    with ckptlog.open(path) as store:
        reads.clear()
        connection = sqlite3.connect(path / VIEW)
        connection.execute("UPDATE checkpoint SET body = x'00' WHERE origin = 77")
        connection.commit()
        connection.close()
        entry = store.event_at(77)
        assert store.newest(entry.event.subject.checkpoint).event == entry.event
        assert len(reads) < 200
        assert store.view().check() == []


def test_the_view_that_is_there_answers_until_the_new_one_is_whole(path, monkeypatch):
    """And writers go on: with more than waits in memory at other times."""
    seen = {}
    real = Builder.make
    with CheckpointManager(path) as manager, CheckpointManager(path) as other:
        fill(manager)
        store = manager.store
        store.view()
        file = (path / VIEW).stat().st_ino

        def write():
            names = [manager.create_checkpoint("beside", "B", step) for step in range(1, 700)]
            seen["found"] = manager.get_checkpoint(names[-1]).step_number
            seen["other"] = len(list(other.iterate(task_id="t3")))
            seen["file"] = (path / VIEW).stat().st_ino

        def make(self, folder, end, taken, **options):
            made = real(self, folder, end, taken, **options)
            thread = threading.Thread(target=write)
            thread.start()
            thread.join(60)
            seen["is_done"] = not thread.is_alive()
            return made

        monkeypatch.setattr(Builder, "make", make)
        store.rebuild_views()
        assert seen == {"is_done": True, "found": 699, "other": 5, "file": file}
        assert (path / VIEW).stat().st_ino != file
        for each in (manager, other):
            assert len(list(each.iterate(task_id="beside"))) == 699
            assert each.validate_checkpoint_integrity() == []


# --- writers beside it ------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_writers_beside_rebuilds_lose_nothing(path, durability, every_size):
    names: dict[int, list[str]] = {}
    stop = threading.Event()
    with (
        CheckpointManager(path, config=configured(durability)) as manager,
        CheckpointManager(path) as other,
    ):
        fill(manager, 20)

        def write(number, through):
            own = names[number] = []
            while not stop.is_set():
                step = len(own) + 1
                own.append(
                    through.create_checkpoint(
                        f"w{number}", "W", step, data={"n": step}, command_id=f"{number}-{step}"
                    )
                )
                if step % 2:
                    through.complete_checkpoint(own[-1])

        threads = [
            threading.Thread(target=write, args=(number, through))
            for number, through in enumerate((manager, manager, other))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                manager.store.rebuild_views()
                other.store.rebuild_views()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for number, own in names.items():
            assert own
            for each in (manager, other):
                found = list(each.iterate(task_id=f"w{number}"))
                assert [one.checkpoint_id for one in found] == own
                assert [one.step_number for one in found] == list(range(1, len(own) + 1))
                assert each.get_checkpoint(own[-1]).data == {"n": len(own)}
            again = manager.create_checkpoint(
                f"w{number}", "W", 1, data={"n": 1}, command_id=f"{number}-1"
            )
            assert again == own[0]
        assert manager.validate_checkpoint_integrity() == []
        states = Counter(one.event.state for one in manager.store.events())
        assert states["completed"] >= sum(len(own) // 2 for own in names.values())
    with ckptlog.open(path) as store:
        assert store.verify().ok


def test_what_is_acknowledged_and_not_durable_yet_stays_known(path):
    with CheckpointManager(path, config=configured("interval", interval_s=60.0)) as manager:
        fill(manager, 10)
        manager.store.log.flush()
        late = manager.create_checkpoint("late", "L", 1, data={"n": 1}, command_id="late")
        assert manager.store.log.is_lagging
        assert manager.store.rebuild_views() == manager.store._keeper.ledger.position
        assert manager.get_latest_checkpoint("late").checkpoint_id == late
        assert manager.get_checkpoint(late).data == {"n": 1}
        again = manager.create_checkpoint("late", "L", 1, data={"n": 1}, command_id="late")
        assert again == late


WRITES = """
import sys
from ckptlog import CheckpointManager
with CheckpointManager(sys.argv[1]) as manager:
    print("ready", flush=True)
    for step in range(1, int(sys.argv[2]) + 1):
        manager.create_checkpoint("child", "C", step, data={"n": step})
    for _ in range(3):
        manager.store.rebuild_views()
"""


def test_processes_that_write_and_rebuild_at_once(path):
    with CheckpointManager(path) as manager:
        fill(manager, 20)
        command = [sys.executable, "-c", WRITES, str(path), "300"]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        while any(child.poll() is None for child in children):
            manager.store.rebuild_views()
            manager.create_checkpoint("parent", "P", 1)
        for child in children:
            child.communicate()
        assert [child.returncode for child in children] == [0, 0]
        assert manager.store.view().count(Filter(task="child")) == 600
        assert manager.validate_checkpoint_integrity() == []
    assert not (path / "views/anew").exists()


# --- what goes wrong --------------------------------------------------------------------------------


def damage_log(path):
    segment = sorted(path.glob("log/*.seg"))[2]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)


def test_a_damaged_log_is_refused_and_everything_stays(path):
    with CheckpointManager(path) as manager:
        fill(manager)
        manager.store.view()
    with CheckpointManager(path) as manager:
        before = [one.checkpoint_id for one in manager.iterate()]
        damage_log(path)
        files = {
            file: file.read_bytes()
            for file in path.glob("views/**/*")
            if file.is_file() and file.suffix != ".sqlite-shm"
        }
        inode = (path / VIEW).stat().st_ino
        with pytest.raises(LogCorruptionError, match="damaged at offset"):
            manager.store.rebuild_views()
        assert (path / VIEW).stat().st_ino == inode
        assert {file: file.read_bytes() for file in files if "shm" not in file.name} == {
            file: data for file, data in files.items() if "shm" not in file.name
        }
        assert manager.store.view().count(Filter()) == len(before)
        assert not (path / "views/anew").exists()


def test_views_that_are_gone_beside_a_damaged_log_are_told(path, every_size):
    with CheckpointManager(path) as manager:
        fill(manager)
    damage_log(path)
    shutil.rmtree(path / "views")
    with pytest.raises(LogCorruptionError, match="damaged at offset"):
        ckptlog.open(path)


KILLED = """
import os, signal, sys
import ckptlog
from ckptlog.blobs.index import ChunkIndex
from ckptlog.repository import builder
from ckptlog.views import database, export, schema

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

builder._EVENTS_MIN = 1
point, path = sys.argv[1:]
if point == "half":
    real = schema.drop_indexes
    schema.drop_indexes = lambda connection: (real(connection), kill())
elif point == "made":
    builder.CurrentView.adopt = kill
elif point == "unlinked":
    database.Path.rename = kill
elif point == "renamed":
    database._begin_log = kill
elif point == "put":
    ChunkIndex.adopt = kill
with ckptlog.open(path) as store:
    store.rebuild_views()
"""


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("point", ["half", "made", "unlinked", "renamed", "put"])
def test_killed_at_any_point(path, point, is_gone):
    with CheckpointManager(path) as manager:
        fill(manager, 30)
        expected = told(manager.store)
    if is_gone:
        shutil.rmtree(path / "views")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), point, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert (path / "views/anew").exists()
    with CheckpointManager(path) as manager:
        assert not (path / "views/anew").exists()
        assert told(manager.store) == expected
        assert manager.store.rebuild_views() == manager.store.position
        assert told(manager.store) == expected
        assert manager.store.verify().ok


def in_the_way(path):
    (path / "views/anew").write_text("no folder")


def link(path):
    (path.parent / "precious").mkdir()
    (path.parent / "precious/mine").write_text("mine")
    os.symlink(path.parent / "precious", path / "views/anew")


@pytest.mark.parametrize("act", [in_the_way, link])
def test_without_a_place_to_build_it_goes_commit_by_commit(path, act, every_size):
    with CheckpointManager(path) as manager:
        fill(manager, 30)
        expected = told(manager.store)
        act(path)
        manager.store.rebuild_views()
        assert told(manager.store) == expected
    (path / VIEW).unlink()
    with ckptlog.open(path) as store:
        assert told(store) == expected
    if act is link:
        assert (path.parent / "precious/mine").read_text() == "mine"


def test_a_process_that_builds_for_ever_is_not_waited_for_for_ever(path, monkeypatch, every_size):
    monkeypatch.setattr(builder_module, "_WAIT_S", 0.1)
    with CheckpointManager(path) as manager:
        fill(manager, 30)
        expected = told(manager.store)
        (path / "views/anew").mkdir()
        (path / "views/anew/current.sqlite").write_text("at work")
        fd = os.open(path / "views/anew", os.O_RDONLY)
        flock(fd, LOCK_EX)
        manager.store.rebuild_views()
        assert told(manager.store) == expected
    (path / VIEW).unlink()
    with ckptlog.open(path) as store:
        assert told(store) == expected
        assert (path / "views/anew/current.sqlite").read_text() == "at work"
    os.close(fd)
    with ckptlog.open(path):
        assert not (path / "views/anew").exists()


@pytest.mark.parametrize("where", ["view", "index", "put"])
def test_no_space_for_a_second_view(path, monkeypatch, where, every_size):
    from ckptlog.views.errors import ViewUnwritableError

    def refuse(*_, **__):
        if where == "index":
            raise FullError("No space left on the device.")
        raise ViewUnwritableError("disk full")

    target = {
        "view": "ckptlog.repository.builder.make_current",
        "index": "ckptlog.repository.indexer.Sheaf.run",
        "put": "ckptlog.views.current.database.adopt",
    }[where]
    with CheckpointManager(path) as manager:
        fill(manager, 30)
        expected = told(manager.store)
        with monkeypatch.context() as patch:
            patch.setattr(target, refuse)
            manager.store.rebuild_views()
            assert told(manager.store) == expected
        assert not (path / "views/anew").exists()
    (path / VIEW).unlink()
    monkeypatch.setattr(target, refuse)
    with ckptlog.open(path) as store:
        assert told(store) == expected


def test_a_view_of_another_process_is_used_when_the_place_is_free(path, monkeypatch, every_size):
    """Two that open a store without views: the second takes what the first has built."""
    made = []
    real = Builder.make

    def make(self, folder, end, taken, **options):
        made.append(folder)
        return real(self, folder, end, taken, **options)

    monkeypatch.setattr(Builder, "make", make)
    with CheckpointManager(path) as manager:
        fill(manager, 30)
        expected = told(manager.store)
    shutil.rmtree(path / "views")
    with ckptlog.open(path) as store, ckptlog.open(path) as other:
        assert told(store) == told(other) == expected
    assert len(made) == 1


def test_a_read_only_store_is_built_in_memory(path, every_size):
    with CheckpointManager(path) as manager:
        fill(manager, 30)
        expected = told(manager.store)
    with ckptlog.open(path, read_only=True) as store:
        assert {**told(store), "check": []} == expected
        assert store.view().kind == "memory"
    assert not (path / "views/anew").exists()


@pytest.mark.parametrize(
    ("position", "end", "is_it"),
    [(0, 4095, False), (0, 4096, True), (90_000, 100_000, False), (50_000, 100_000, True)],
)
def test_when_it_is_worth_it(position, end, is_it):
    assert builder_module.is_worth_it(position, end) is is_it
