"""Threads of a real SqliteSaver come over whole, go on here, and come over once."""

from __future__ import annotations

import enum
import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command, Send

import ckptlog
from ckptlog.errors import ArgumentError, FormatError, SettingsError
from ckptlog.integrations.langgraph import CkptlogSaver, rereading
from ckptlog.integrations.langgraph.migration import import_sqlite, ordered
from ckptlog.integrations.langgraph.name import checkpoint_of
from ckptlog.integrations.langgraph.original import Key
from tests.integrations.langgraph.test_graph import QUESTION, build
from tests.integrations.langgraph.thread import checkpoint, comparable, config, put

THREADS = ("one", "two", "näme with blanks ", "x" * 300)


class Colour(enum.Enum):
    RED = "red"


class Plan(NamedTuple):
    goal: str
    colour: Colour


@pytest.fixture
def old(tmp_path):
    """A database with a graph's threads: waiting, finished, forked."""
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        graph = build(saver)
        for thread in THREADS:
            graph.invoke(QUESTION, config(thread))
        graph.invoke(Command(resume=True), config("two"))
        early = list(graph.get_state_history(config("two")))[-2]
        forked = graph.update_state(early.config, {"steps": ["another way"]})
        graph.invoke(None, forked)
    return path


@pytest.fixture
def store(tmp_path):
    with ckptlog.open(tmp_path / "store", create=True) as opened:
        yield opened


def all_of(saver):
    """Everything that a saver lists, as plain data, by thread, namespace and id."""
    found = [comparable(one) for one in saver.list(None)]
    return sorted(found, key=repr)


def both(path, store, **options):
    with SqliteSaver.from_conn_string(str(path)) as there:
        return all_of(there), all_of(CkptlogSaver(store, **options))


def whole(report):
    assert (report.failed, report.faults, report.verified) == (0, [], report.checkpoints)
    return report


def change(path, statement, *arguments):
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement, arguments).rowcount > 0
    connection.close()


def digest(folder):
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


# --- whole --------------------------------------------------------------------------------------


def test_everything_comes_over_as_it_was(old, store):
    before = digest(old.parent)
    report = whole(import_sqlite(store, old))
    assert digest(old.parent) == before  # nothing changed, and no -wal or -shm beside it
    assert report.threads == len(THREADS)
    assert report.copied == report.checkpoints > 30
    there, here = both(old, store)
    assert there == here
    with sqlite3.connect(old) as connection:
        (writes,) = connection.execute("SELECT count(*) FROM writes").fetchone()
        # Paths and indices too, which a tuple does not show.
        rows = connection.execute(
            "SELECT task_path, task_id, idx, channel FROM writes WHERE thread_id = 'two' "
            "AND checkpoint_ns = '' ORDER BY checkpoint_id, task_path, task_id, idx"
        ).fetchall()
    connection.close()
    assert report.writes == writes > 50
    found = []
    for one in reversed(list(CkptlogSaver(store).list(config("two")))):
        for task, index, channel, _, path in stored_writes(store, "two", one.checkpoint["id"]):
            found.append((path, task, index, channel))
    assert found == rows
    assert not store.verify().problems


def stored_writes(store, thread, identifier):
    entry, records = store.read(checkpoint_of(thread, "", 0, identifier))
    return json.loads(store.blobs.wire(entry.event.data, records))["writes"]


def test_a_waiting_thread_resumes_here_where_it_stood(old, store):
    whole(import_sqlite(store, old))
    with CkptlogSaver.open(store.path) as saver, SqliteSaver.from_conn_string(str(old)) as there:
        results = [
            build(one).invoke(Command(resume=True), config("one"))["steps"]
            for one in (saver, there)
        ]
        assert results[0] == results[1]
        assert results[0][-1] == "finished"
        history = list(build(saver).get_state_history(config("two")))
        assert len(history) == len(list(build(there).get_state_history(config("two"))))


def test_the_order_is_parents_first():
    class Source:
        rows: ClassVar = {
            "1": "",
            "2": "4",
            "3": "2",
            "4": "1",
            "5": "9",
            "6": "7",
            "7": "6",
            "8": "8",
        }

        def page(self, key, after):
            names = [name for name in sorted(self.rows) if name > (after or "")]
            return [(name, self.rows[name]) for name in names[:3]]

        def parent(self, key, identifier):
            return self.rows.get(identifier)

    found = list(ordered(Source(), Key("t", "")))
    assert sorted(found) == sorted(Source.rows)
    assert found.index("4") < found.index("2") < found.index("3")


# --- again --------------------------------------------------------------------------------------


def test_twice_changes_nothing(old, store):
    first = whole(import_sqlite(store, old))
    position = store.position
    again = whole(import_sqlite(store, old))
    assert (again.copied, again.unchanged, again.writes) == (0, first.copied, 0)
    assert store.position == position


def test_a_dry_run_stores_nothing_and_tells_the_same(old, store):
    dry = import_sqlite(store, old, is_dry_run=True)
    assert store.position == 0
    real = whole(import_sqlite(store, old))
    names = ("threads", "checkpoints", "copied", "writes", "copied_bytes", "failed")
    assert [getattr(dry, name) for name in names] == [getattr(real, name) for name in names]


def test_what_the_source_has_got_since_comes_over_alone(old, store):
    first = whole(import_sqlite(store, old))
    with SqliteSaver.from_conn_string(str(old)) as saver:
        build(saver).invoke(Command(resume=True), config("one"))
        build(saver).invoke(QUESTION, config("new"))
    again = whole(import_sqlite(store, old))
    assert again.unchanged + again.completed == first.copied
    assert again.completed > 0  # the answer is a write of a checkpoint that was there
    assert again.copied == again.checkpoints - first.checkpoints > 0
    there, here = both(old, store)
    assert there == here


def test_a_thread_that_went_on_here_is_left_alone(old, store):
    whole(import_sqlite(store, old))
    with CkptlogSaver.open(store.path) as saver:
        build(saver).invoke(Command(resume=True), config("one"))
        before = all_of(saver)
        assert whole(import_sqlite(saver.store, old)).copied == 0
        assert all_of(saver) == before


def test_another_value_is_told_and_not_overwritten(old, store):
    whole(import_sqlite(store, old))
    change(
        old,
        "UPDATE checkpoints SET metadata = '{\"step\": 9}' WHERE thread_id = 'one' AND checkpoint_ns = ''",
    )
    before = all_of(CkptlogSaver(store))
    report = import_sqlite(store, old)
    assert report.by_code == {"import.differs": report.failed}
    assert report.failed > 2
    assert {fault.path for fault in report.faults} == {"metadata"}
    assert all_of(CkptlogSaver(store)) == before


def test_another_write_or_parent_is_told_too(tmp_path, store):
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        where = put(saver, config("t"), {"n": 0})
        saver.put_writes(where, [("n", 1), ("m", 2)], "task")
        put(saver, where, {"n": 1})
    whole(import_sqlite(store, path))
    change(path, "UPDATE writes SET type = 'null' WHERE idx = 1")
    change(
        path, "UPDATE checkpoints SET parent_checkpoint_id = NULL WHERE parent_checkpoint_id > ''"
    )
    report = import_sqlite(store, path)
    assert [fault.path for fault in report.faults] == ["writes[1]", "parent"]
    assert report.by_code == {"import.differs": 2}


def test_what_is_read_and_cannot_be_stored_is_told_with_its_path(tmp_path, store):
    path, deep = tmp_path / "old.sqlite", []
    for _ in range(210):
        deep = [deep]
    with SqliteSaver.from_conn_string(str(path)) as saver:
        put(saver, config("a"), {"deep": deep})
        put(saver, config("b"), {"n": 0})
    for is_dry_run in (True, False):
        report = import_sqlite(store, path, is_dry_run=is_dry_run)
        assert (report.copied, report.by_code) == (1, {"argument.unstorable": 1})
        assert "channel_values.deep[0][0]" in report.faults[0].path + report.faults[0].message


def test_a_full_quota_ends_it_and_the_next_run_goes_on(old, tmp_path):
    from ckptlog.errors import QuotaError

    small = ckptlog.CheckpointConfiguration(max_storage_size_gb=0.001)
    with ckptlog.CheckpointManager(tmp_path / "store", config=small) as manager:
        manager.create_checkpoint("t", "T", 1, data={"fills": os.urandom(2_000_000)})
        with pytest.raises(QuotaError):
            import_sqlite(manager, old)
    with ckptlog.open(tmp_path / "store") as store:
        report = whole(import_sqlite(store, old))
        assert report.copied == report.checkpoints


def test_what_was_deleted_here_stays_deleted_unless_named(old, store):
    first = whole(import_sqlite(store, old))
    saver = CkptlogSaver(store)
    saver.delete_thread("one")
    saver.prune(["two"])
    report = import_sqlite(store, old)
    assert (report.copied, report.failed) == (0, 0)
    assert report.deleted + report.unchanged == first.checkpoints
    assert saver.get_tuple(config("one")) is None
    named = import_sqlite(store, old, threads=["one"])
    assert (named.copied, named.threads) == (named.checkpoints, 1)
    assert saver.get_tuple(config("one")) is not None
    assert whole(import_sqlite(store, old, threads=["one"])).copied == 0


def test_only_the_threads_that_are_named(old, store):
    report = whole(import_sqlite(store, old, threads=["two", "one", "two"]))
    assert report.threads == 2
    assert {one.config["configurable"]["thread_id"] for one in CkptlogSaver(store).list(None)} == {
        "one",
        "two",
    }
    with pytest.raises(ArgumentError, match="no thread 'three'"):
        import_sqlite(store, old, threads=["näme with blanks ", "three"])
    assert CkptlogSaver(store).get_tuple(config("näme with blanks ")) is None


@pytest.mark.unmeasured
def test_kills_in_the_middle_lose_and_double_nothing(old, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.integrations.langgraph.importer",
        str(tmp_path / "s"),
        str(old),
    ]
    chance, kills = random.Random(7), 0
    for _ in range(60):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        for _ in range(chance.randrange(1, 12) if kills < 5 else 10_000):
            if not line or line.startswith("end"):
                break
            line = process.stdout.readline()
        if line.startswith("end"):
            process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills == 5
    _, failed, checkpoints, verified = line.split()
    assert (failed, checkpoints) == ("0", verified)
    with ckptlog.open(tmp_path / "s") as store:
        there, here = both(old, store)
        assert there == here
        created = [one for one in store.events() if one.event.type == "checkpoint.created"]
        assert len(created) == int(checkpoints)
        assert not store.verify().problems


def test_a_process_may_write_to_the_source_meanwhile(tmp_path, store):
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        stop, written = threading.Event(), []

        def write():
            where = config("live")
            while not stop.is_set() and len(written) < 400:
                where = put(saver, where, {"n": len(written), "text": "x" * 2000})
                saver.put_writes(where, [("n", 1), ("m", [2])], "task", "~path")
                written.append(where)

        put(saver, config("quiet"), {"n": 0})
        writer = threading.Thread(target=write)
        writer.start()
        reports = []
        while len(reports) < 3 or len(written) < 60:
            reports.append(import_sqlite(store, path))
        stop.set()
        writer.join()
        assert not any(report.failed for report in reports)
        whole(import_sqlite(store, path))
    there, here = both(path, store)
    assert there == here


def test_a_writer_that_comes_during_a_quiet_reading_is_noticed(old, store):
    """The file is read without locks while nobody has it open; then somebody has."""
    before = len(list((old.parent).glob("old.sqlite*")))
    assert before == 1
    opened = []

    def come(done, total):
        if done == 5:
            opened.append(SqliteSaver(sqlite3.connect(old)))
            put(opened[0], config("zz late"), {"n": 1})
            opened[0].conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    report = whole(import_sqlite(store, old, progress=come))
    opened[0].conn.close()
    assert CkptlogSaver(store).get_tuple(config("zz late")) is not None
    assert report.threads == len(THREADS) + 1


def test_what_a_killed_writer_left_in_its_log_comes_over_and_stays_there(tmp_path, store):
    path = tmp_path / "source" / "old.sqlite"
    path.parent.mkdir()
    script = (
        "import os, signal, sys\n"
        "from langgraph.checkpoint.sqlite import SqliteSaver\n"
        "from tests.integrations.langgraph.thread import config, put\n"
        "with SqliteSaver.from_conn_string(sys.argv[1]) as saver:\n"
        "    for number in range(5): put(saver, config('t'), {'n': number})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)])
    before = digest(path.parent)
    assert len(before["old.sqlite-wal"]) > 4096
    whole(import_sqlite(store, path))
    after = digest(path.parent)
    assert [after[name] for name in ("old.sqlite", "old.sqlite-wal")] == [
        before[name] for name in ("old.sqlite", "old.sqlite-wal")
    ]
    there, here = both(path, store)
    assert len(here) == 5
    assert there == here


# --- what cannot come over ----------------------------------------------------------------------


def test_types_that_are_not_named_are_told_with_their_path(tmp_path, store):
    path = tmp_path / "old.sqlite"
    state = {"n": 1, "plans": [{"best": Plan("x", Colour.RED)}], "ok": True}
    with SqliteSaver.from_conn_string(str(path)) as saver:
        first = put(saver, config("a"), {"n": 0})
        second = put(saver, first, state)
        put(saver, second, {"n": 2})
        saver.put_writes(put(saver, config("b"), {"n": 0}), [("n", 1), ("c", {Colour.RED})], "task")
    report = import_sqlite(store, path)
    assert (report.copied, report.failed, report.verified) == (2, 2, 2)
    assert report.by_code == {"import.unknown_type": 2}
    assert [fault.path for fault in report.faults] == [
        "checkpoint.channel_values.plans[0].best.colour",
        "writes[1].value[0]",
    ]
    assert "Colour' is not known here" in report.faults[0].message
    assert CkptlogSaver(store).get_tuple(config("b")) is None  # nothing by halves
    # Named, it comes, and as what it was.
    whole(import_sqlite(store, path, types=[Plan, Colour]))
    assert len(all_of(CkptlogSaver(store, types=[Plan, Colour]))) == 4
    found = CkptlogSaver(store, types=[Plan, Colour]).get_tuple(second)
    assert found.checkpoint["channel_values"] == state
    assert type(found.checkpoint["channel_values"]["plans"][0]["best"]) is Plan


def test_pickle_is_never_read(tmp_path, store):
    path, mark = tmp_path / "old.sqlite", tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (mark,)

    with SqliteSaver.from_conn_string(str(path)) as saver:
        put(saver, config("a"), {"n": 0})
        saver.put_writes(put(saver, config("b"), {"n": 0}), [("n", 1)], "task")
        put(saver, config("c"), {"n": 0})
    bomb = pickle.dumps(Bomb())
    change(
        path, "UPDATE checkpoints SET type = 'pickle', checkpoint = ? WHERE thread_id = 'a'", bomb
    )
    change(path, "UPDATE writes SET type = 'pickle', value = ?", bomb)
    report = import_sqlite(store, path)
    assert report.by_code == {"import.pickle": 2}
    assert [(fault.thread, fault.path) for fault in report.faults] == [
        ("a", "checkpoint"),
        ("b", "writes[0].value"),
    ]
    assert report.copied == 1
    assert not mark.exists()


def test_a_langgraph_that_builds_whatever_bytes_name_is_refused(old, store, monkeypatch):
    class Unlisted:
        """As the serialiser before langgraph-checkpoint 4.0.1."""

        def __init__(self, *, pickle_fallback=False, __unpack_ext_hook__=None):
            raise AssertionError

    monkeypatch.setattr(rereading, "_Strict", Unlisted)
    with pytest.raises(SettingsError, match="no list of classes"):
        import_sqlite(store, old)
    assert store.stats()["checkpoints"] == 0


def test_nothing_is_imported_because_bytes_say_so(tmp_path, store):
    import ormsgpack

    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        put(saver, config("a"), {"n": 0})
    mark = tmp_path / "executed"
    inner = ormsgpack.packb(("os", "mkdir", [str(mark)]))
    data = ormsgpack.packb(
        {**checkpoint({"n": 1}), "channel_values": {"n": ormsgpack.Ext(1, inner)}}
    )
    change(path, "UPDATE checkpoints SET checkpoint = ?", data)
    report = import_sqlite(store, path)
    assert report.failed == 1
    assert not mark.exists()


@pytest.mark.parametrize(
    ("column", "value", "path"),
    [
        ("checkpoint", b"\xc1", "checkpoint"),
        ("checkpoint", b"", "checkpoint"),
        ("checkpoint", None, "checkpoint"),
        ("checkpoint", "text", "checkpoint"),
        ("checkpoint", b"\x01", "checkpoint"),
        ("checkpoint", b"\x80", "checkpoint.channel_versions"),
        ("type", "msgpack+aes", "checkpoint"),
        ("type", None, "checkpoint"),
        ("type", 7, "checkpoint"),
        ("metadata", b"{", "metadata"),
        ("metadata", b"\xff", "metadata"),
        ("metadata", b"[]", "metadata"),
        ("metadata", 5, "metadata"),
        ("checkpoint_id", "another", "checkpoint.id"),
    ],
)
def test_damaged_rows_are_told_and_the_rest_comes(tmp_path, store, column, value, path):
    database = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(database)) as saver:
        for thread in "abc":
            put(saver, config(thread), {"n": 0})
    change(database, f"UPDATE checkpoints SET {column} = ? WHERE thread_id = 'b'", value)
    report = import_sqlite(store, database)
    assert (report.copied, report.failed) == (2, 1)
    assert [(fault.thread, fault.path) for fault in report.faults] == [("b", path)]


def test_no_byte_of_a_checkpoint_can_be_flipped_unnoticed_or_stop_the_rest(tmp_path, store):
    """LangGraph's rows have no checksums: a flip is another value, or a fault; never a crash."""
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        put(
            saver,
            config("a"),
            {"messages": [HumanMessage("hello", id="1"), AIMessage("x", id="2")]},
        )
        put(saver, config("b"), {"n": 0})
    connection = sqlite3.connect(path)
    (data,) = connection.execute(
        "SELECT checkpoint FROM checkpoints WHERE thread_id = 'a'"
    ).fetchone()
    connection.close()
    chance = random.Random(3)
    for _ in range(60):
        torn = bytearray(data)
        torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
        change(path, "UPDATE checkpoints SET checkpoint = ? WHERE thread_id = 'a'", bytes(torn))
        report = import_sqlite(store, path, threads=["a"], is_dry_run=True)
        assert report.copied + report.failed == 1


def test_an_object_that_langgraph_would_leave_bare_is_not_taken_for_its_content(tmp_path, store):
    import ormsgpack

    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        put(saver, config("a"), {"n": 0})
    made = checkpoint({"n": 1})
    for content in (
        ("uuid", "UUID", "no uuid"),
        ("decimal", "Decimal", "x"),
        ("datetime", "date", 5),
    ):
        ext = ormsgpack.Ext(0, ormsgpack.packb(content))
        packed = ormsgpack.packb({**made, "channel_values": {"n": [ext]}})
        change(path, "UPDATE checkpoints SET checkpoint = ?, checkpoint_id = ?", packed, made["id"])
        report = import_sqlite(store, path)
        assert [fault.path for fault in report.faults] == ["checkpoint.channel_values.n[0]"]


def test_a_class_that_langgraph_has_moved_is_found(tmp_path, store):
    """Send stood in langgraph.constants until 0.2.30."""
    import ormsgpack

    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        put(saver, config("a"), {"n": 0})
    made = checkpoint({"n": 1})
    for arguments in (("work", {"n": 1}), ("work",)):
        ext = ormsgpack.Ext(1, ormsgpack.packb(("langgraph.constants", "Send", arguments)))
        packed = ormsgpack.packb({**made, "channel_values": {"n": [ext]}})
        change(path, "UPDATE checkpoints SET checkpoint = ?, checkpoint_id = ?", packed, made["id"])
        report = import_sqlite(store, path, is_dry_run=len(arguments) == 1)
        assert (report.failed, report.verified) == ((0, 1) if len(arguments) == 2 else (1, 0))
    (found,) = CkptlogSaver(store).list(None)
    assert found.checkpoint["channel_values"]["n"] == [Send("work", {"n": 1})]


# --- what is no source --------------------------------------------------------------------------


def test_what_is_no_database_is_refused(tmp_path, store):
    path = tmp_path / "x"
    cases = {
        b"": "no table `checkpoints`",
        b"hello": "no SQLite database",
        b"SQLite format 3\0" + bytes(200): "database",
    }
    for content, said in cases.items():
        path.write_bytes(content)
        with pytest.raises((ArgumentError, FormatError), match=said):
            import_sqlite(store, path)
        assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(ArgumentError, match="no file"):
        import_sqlite(store, path)
    with pytest.raises(ArgumentError, match="directory"):
        import_sqlite(store, tmp_path)
    os.mkfifo(path)
    with pytest.raises(ArgumentError, match="FIFO"):
        import_sqlite(store, path)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE other (a)", "no table `checkpoints`"),
        ("CREATE TABLE checkpoints (id, data)", "no column"),
        ("CREATE TABLE checkpoints (thread_id, thread_ts, parent_ts, checkpoint)", "before 0.2"),
    ],
)
def test_a_database_of_something_else_is_refused(tmp_path, store, statement, said):
    path = tmp_path / "x"
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(ArgumentError, match=said):
        import_sqlite(store, path)


def test_a_torn_file_is_damage(old, store):
    data = bytearray(old.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    old.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        import_sqlite(store, old)


def test_no_rights(old, tmp_path):
    """Nobody, if we are root: root may read everything."""
    script = (
        "import os\n"
        "from ckptlog.errors import DeniedError\n"
        "from ckptlog.integrations.langgraph.sqlite import SqliteSource\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: SqliteSource({str(old)!r})\n"
        "except DeniedError as error: print(error.code)\n"
    )
    old.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "storage.denied\n", done.stderr


def test_databases_of_older_versions(tmp_path, store):
    """Without task paths, with JSON checkpoints, and metadata with LangChain's constructors."""
    path = tmp_path / "old.sqlite"
    made = checkpoint({"n": 1})
    made["channel_values"]["messages"] = [
        {
            "lc": 2,
            "type": "constructor",
            "id": ["langchain_core", "messages", "human", "HumanMessage"],
            "kwargs": {"content": "hello", "id": "7"},
        },
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {"content": "hi", "id": "8"},
        },
    ]
    metadata = {"source": "loop", "step": 1, "writes": {"n": made["channel_values"]["messages"][1]}}
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
            checkpoint_id TEXT NOT NULL, parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB,
            metadata BLOB, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id));
        CREATE TABLE writes (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '',
            checkpoint_id TEXT NOT NULL, task_id TEXT NOT NULL, idx INTEGER NOT NULL,
            channel TEXT NOT NULL, type TEXT, value BLOB,
            PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx));
        """
    )
    place = ("t", "", made["id"])
    connection.execute(
        "INSERT INTO checkpoints VALUES (?, ?, ?, NULL, 'json', ?, ?)",
        (*place, json.dumps(made).encode(), json.dumps(metadata).encode()),
    )
    connection.execute(
        "INSERT INTO writes VALUES (?, ?, ?, 'task', 3, 'n', 'json', ?)", (*place, b"[1]")
    )
    connection.commit()
    connection.close()
    whole(import_sqlite(store, path))
    found = CkptlogSaver(store).get_tuple(config("t"))
    assert [message.content for message in found.checkpoint["channel_values"]["messages"]] == [
        "hello",
        "hi",
    ]
    assert found.pending_writes == [("task", "n", [1])]
    assert found.metadata == metadata  # as today's SqliteSaver gives it
    made["channel_values"]["messages"][0]["id"] = ["os", "mkdir"]
    change(
        path,
        "UPDATE checkpoints SET checkpoint = ?, checkpoint_id = ?",
        json.dumps({**made, "id": "z"}).encode(),
        "z",
    )
    report = import_sqlite(store, path)
    assert [fault.path for fault in report.faults] == ["checkpoint.channel_values.messages[0]"]
