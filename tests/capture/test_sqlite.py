"""A database as a component: dedup by page, no reading for nothing, restores that can be killed."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog import Capturer, CheckpointManager, Recovery
from ckptlog.capture import database
from ckptlog.capture.callables import CallableComponent
from ckptlog.capture.sqlite import SqliteComponent
from ckptlog.errors import ForeignPayloadError, FullError, SourceBusyError, SourceError
from tests.capture.planted import Direct
from tests.capture.test_database import dump, make
from tests.tmpfs import mounted


def connected(path):
    return closing(sqlite3.connect(path, isolation_level=None))


def execute(path, *statements):
    with connected(path) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_changed_pages_alone_are_stored(tmp_path, journal):
    path = make(tmp_path / "a.db", journal, rows=2000)
    direct = Direct(SqliteComponent("db", path))
    direct.capture()
    first, direct.handed = direct.handed, 0
    execute(path, "UPDATE account SET money = 5 WHERE id = 3")
    direct.capture()
    assert first > 400
    assert direct.handed < 20


def test_another_process_finds_the_pages_again(tmp_path):
    path = make(tmp_path / "a.db", rows=2000)
    direct = Direct(SqliteComponent("db", path))
    first = direct.capture()
    direct.component, direct.handed = SqliteComponent("db", path), 0
    assert direct.capture().reference == first.reference
    assert direct.handed == 0


def test_an_untouched_database_is_not_read(tmp_path, monkeypatch):
    path = make(tmp_path / "a.db", rows=50)
    for name in ("a.db", "a.db-wal"):
        if (tmp_path / name).exists():
            os.utime(tmp_path / name, (1, 1))
    direct = Direct(SqliteComponent("db", path))
    monkeypatch.setattr(time, "time_ns", lambda: 2**62)  # the clock has gone on
    first = direct.capture()

    def refuse(*_, **__):
        raise AssertionError("the database was opened")

    with monkeypatch.context() as patched:
        patched.setattr(database, "open_database", refuse)
        assert direct.capture().reference == first.reference
        direct.before = None  # another history: what is remembered is of no use
        with pytest.raises(AssertionError):
            direct.capture()
    execute(path, "DELETE FROM entry")
    direct.before = first
    assert direct.capture().reference != first.reference


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("is_written", [True, False])
def test_what_is_remembered_of_another_capture_is_looked_at_again(
    tmp_path, monkeypatch, journal, is_written
):
    """The newest capture was deleted: what was written behind the barrier is not of its moment."""
    path = make(tmp_path / "a.db", journal, rows=50)
    component = SqliteComponent("db", path)
    monkeypatch.setattr(time, "time_ns", lambda: 2**62)  # the clock has gone on
    with CheckpointManager(str(tmp_path / "store")) as manager:
        capturer = Capturer(manager, "system", [component])
        capturer.capture()
        execute(path, "UPDATE account SET money = 4 WHERE id = 3")
        manager.delete_checkpoint(capturer.capture().id)
        cuts = []

        class Other:
            """Goes on when the cut lets it, and is captured with the database."""

            name, stability = "other", "copied"
            money = 4

            def capture(self):
                return self.money

            def commit(self):
                cuts.append(1)
                if is_written and len(cuts) == 1:
                    self.money = 5
                    execute(path, "UPDATE account SET money = 5 WHERE id = 3")

            def restore(self, payload):
                pass

        both = Capturer(manager, "system", [component, Other()])
        stored = both.stored(both.capture())
        money = stored["other"].value()
        component.at(tmp_path / "copy.db").restore(stored["db"])
    with connected(tmp_path / "copy.db") as connection:
        found = connection.execute("SELECT money FROM account WHERE id = 3").fetchone()
    assert found == (money,)
    assert len(cuts) == 1 + is_written  # nothing is taken again for nothing


def test_a_young_database_is_read_though_its_times_are_the_same(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=50)
    direct = Direct(SqliteComponent("db", path))
    first = direct.capture()
    found = path.stat()
    execute(path, "UPDATE account SET money = 5 WHERE id = 3")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert direct.capture().reference != first.reference


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_every_page_size(tmp_path, page_size):
    path = make(tmp_path / "a.db", rows=300, page_size=page_size)
    direct = Direct(SqliteComponent("db", path))
    payload = direct.capture()
    assert payload.get("page_size").value() == page_size
    seen = dump(path)
    execute(path, "DELETE FROM entry", "DROP TABLE account")
    direct.component.restore(payload)
    assert dump(path) == seen


def test_growing_shrinking_and_vacuuming(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=500)
    direct = Direct(SqliteComponent("db", path))
    states = []
    for statement in (
        "SELECT 1",
        "INSERT INTO entry SELECT one, other, text FROM entry",
        "DELETE FROM entry WHERE one % 3 > 0",
        "VACUUM",
        "PRAGMA page_size=8192",
        "VACUUM",
        "CREATE TABLE late (x PRIMARY KEY) WITHOUT ROWID",
    ):
        with connected(path) as connection:
            connection.execute(statement)
            if statement.startswith("PRAGMA"):
                connection.execute("VACUUM")
        states.append((direct.capture(), dump(path)))
    for payload, seen in reversed(states):
        direct.component.restore(payload)
        assert dump(path) == seen


def test_an_empty_file(tmp_path):
    path = tmp_path / "a.db"
    path.touch()
    direct = Direct(SqliteComponent("db", path))
    payload = direct.capture()
    execute(path, "CREATE TABLE t (x)")
    direct.component.restore(payload)
    assert dump(path) == ["BEGIN TRANSACTION;", "COMMIT;"]


def test_it_goes_elsewhere_with_its_journal_mode(tmp_path):
    path = make(tmp_path / "a.db", "wal", rows=20)
    part = SqliteComponent("db", path)
    payload = Direct(part).capture()
    other = part.at(tmp_path / "deep" / "b.db")
    other.restore(payload)
    assert other.verify_restored() == []
    assert dump(tmp_path / "deep" / "b.db") == dump(path)
    with connected(tmp_path / "deep" / "b.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_database_that_is_made_anew_is_as_private_as_it_was(tmp_path, mode):
    path = make(tmp_path / "a.db", "delete", rows=20)
    path.chmod(mode)
    part = SqliteComponent("db", path)
    direct = Direct(part)
    payload = direct.capture()
    path.unlink()
    part.restore(payload)
    part.at(tmp_path / "b.db").restore(payload)
    assert [one.stat().st_mode & 0o7777 for one in (path, tmp_path / "b.db")] == [mode] * 2
    path.chmod(0o400)  # which is no change of a live one's content
    assert part.plan(payload).changes == ()
    assert direct.capture().get("mode").value() == 0o400


def test_a_link_stays_where_what_it_names_is_made_anew(tmp_path):
    real, path = tmp_path / "deep" / "real.db", tmp_path / "a.db"
    real.parent.mkdir()
    make(real, "delete", rows=20)
    before = dump(real)
    path.symlink_to("deep/real.db")
    part = SqliteComponent("db", path)
    payload = Direct(part).capture()
    for damage in (real.unlink, lambda: real.write_bytes(b"no database" * 99)):
        damage()
        part.restore(payload)
        assert path.is_symlink()
        assert dump(real) == before
    assert sorted(os.listdir(real.parent)) == ["real.db", "real.db.damaged-1"]


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("encodings", [("UTF-8", "UTF-16le"), ("UTF-16be", "UTF-8")])
def test_a_database_of_another_text_encoding(tmp_path, journal, encodings):
    path = tmp_path / "a.db"
    direct = Direct(SqliteComponent("db", path))
    kept = []
    for encoding in encodings:
        path.unlink(missing_ok=True)
        with connected(path) as connection:
            connection.execute(f"PRAGMA encoding='{encoding}'")
            connection.execute("CREATE TABLE t (x)")
            connection.execute("INSERT INTO t VALUES ('a text')")
            connection.execute(f"PRAGMA journal_mode={journal}")
        kept.append((direct.capture(), encoding))
    for payload, encoding in kept:
        direct.component.restore(payload)
        assert direct.component.verify_restored() == []
        with connected(path) as connection:
            assert connection.execute("SELECT x FROM t").fetchone() == ("a text",)
            assert connection.execute("PRAGMA encoding").fetchone() == (encoding,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)


def test_attached_databases_are_components_of_their_own(tmp_path):
    one, other = make(tmp_path / "a.db"), make(tmp_path / "b.db")
    with connected(one) as connection:
        connection.execute("ATTACH ? AS b", (str(other),))
        connection.execute("INSERT INTO b.entry VALUES (1, 2, 'x')")
        payloads = [Direct(SqliteComponent(path.stem, path)).capture() for path in (one, other)]
        seen = [dump(one), dump(other)]
        connection.execute("DELETE FROM entry")
        connection.execute("DELETE FROM b.entry")
        connection.execute("DELETE FROM b.account")
        for path, payload in zip((one, other), payloads, strict=True):
            SqliteComponent(path.stem, path).restore(payload)
        assert connection.execute("SELECT count(*) FROM b.entry").fetchone() == (1,)
    assert [dump(one), dump(other)] == seen


def test_what_is_no_database_is_told_with_the_component(tmp_path):
    part = SqliteComponent("orders", tmp_path / "a.db")
    with pytest.raises(SourceError, match="There is no database"):
        part.capture()
    assert os.listdir(tmp_path) == []
    (tmp_path / "a.db").write_bytes(os.urandom(4096))
    with pytest.raises(SourceError, match="encrypted"):
        part.capture()


def test_a_locked_database_is_told(tmp_path):
    path = make(tmp_path / "a.db", "delete")
    with connected(path) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceBusyError):
            SqliteComponent("db", path, busy_timeout_s=0.05).capture()
        holder.execute("ROLLBACK")
    SqliteComponent("db", path).capture().close()


def test_a_crashed_writers_journal_is_rolled_back_first(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=300)
    seen = dump(path)
    child = os.fork()
    if not child:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.execute("UPDATE entry SET text = zeroblob(900)")
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "a.db-journal").exists()
    payload = Direct(SqliteComponent("db", path)).capture()
    SqliteComponent("db", tmp_path / "b.db").restore(payload)
    assert dump(tmp_path / "b.db") == seen


def test_a_damaged_capture_changes_nothing(tmp_path):
    path = make(tmp_path / "a.db", rows=50)
    direct = Direct(SqliteComponent("db", path))
    payload = direct.capture()
    execute(path, "DELETE FROM entry")
    seen = dump(path)
    digest = max(direct.chunks, key=lambda one: len(direct.chunks[one][1]))
    domain, raw = direct.chunks[digest]
    direct.chunks[digest] = domain, b"\xff" * len(raw)
    with pytest.raises(Exception, match=r"not sound|damaged|hash|no SQLite"):
        direct.component.restore(payload)
    assert dump(path) == seen


def test_no_file_is_left_in_the_temporary_folder(tmp_path):
    path = make(tmp_path / "a.db", rows=50)
    folder = tmp_path / "temporary"
    folder.mkdir()
    part = SqliteComponent("db", path, temporary_folder=str(folder))
    payload = Direct(part).capture()
    part.plan(payload)
    part.restore(payload)
    assert os.listdir(folder) == []


@pytest.mark.root
def test_a_full_temporary_folder_is_told_and_not_the_databases(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=2000)
    payload = Direct(SqliteComponent("db", path)).capture()
    with mounted(tmp_path / "small", 64 * 1024) as folder:
        part = SqliteComponent("db", path, temporary_folder=str(folder))
        for act in (Direct(part).capture, lambda: part.restore(payload)):
            with pytest.raises(FullError, match=f"temporary database in {folder} failed"):
                act()
            assert os.listdir(folder) == []


def test_descriptors_do_not_grow(tmp_path):
    path = make(tmp_path / "a.db", rows=50)
    part = SqliteComponent("db", path)
    direct = Direct(part)
    direct.component.restore(direct.capture())
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        execute(path, f"INSERT INTO entry VALUES ({number}, 0, 'x')")
        direct.capture()
        part.capture().close()
        part.restore(direct.before)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_plan_tells_tables_rows_and_pages(tmp_path):
    path = make(tmp_path / "a.db", rows=50)
    part = SqliteComponent("db", path)
    payload = Direct(part).capture()
    execute(
        path,
        "CREATE TABLE late (x)",
        "DROP TABLE account",
        "DELETE FROM entry WHERE one < 7",
        "UPDATE entry SET other = 9 WHERE one = 20",
        "CREATE VIEW v AS SELECT 1",
    )
    plan = part.plan(payload)
    assert [(one.kind, one.path) for one in plan.changes] == [
        ("add", "table account"),
        ("change", "table entry: 43 rows now, 50 then; 8 come, 1 go"),
        ("remove", "table late"),
        ("remove", "view v"),
    ]
    assert "pages" in plan.summary
    assert part.at(tmp_path / "none.db").plan(payload).changes[0].kind == "add"
    (tmp_path / "odd.db").write_bytes(os.urandom(4096))
    assert "set aside" in part.at(tmp_path / "odd.db").plan(payload).summary


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE n SET x = 2 WHERE rowid = 2",  # 1 1 2 becomes 1 2 2: the same set
        "UPDATE n SET x = 1.0 WHERE rowid = 1",
        "UPDATE w SET x = 'A'",
        "PRAGMA user_version = 7",
    ],
)
def test_a_plan_tells_what_rows_do_not(tmp_path, statement, journal):
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as live:
        live.execute(f"PRAGMA journal_mode={journal}")
        live.execute("CREATE TABLE n (x)")
        live.execute("INSERT INTO n VALUES (1), (1), (2)")
        live.execute("CREATE TABLE w (x TEXT COLLATE NOCASE)")
        live.execute("INSERT INTO w VALUES ('a')")
        part = SqliteComponent("db", path)
        with CheckpointManager(tmp_path / "store") as manager:
            recovery = Recovery(Capturer(manager, "sys", [part]))
            info = recovery.capturer.capture()

            def plan():
                return recovery.recover(info.id, dry_run=True).plans["db"]

            assert (plan().changes, plan().summary) == ((), "nothing to change")
            live.execute(statement)
            (change,) = plan().changes
            assert (change.kind, change.path, change.bytes) == ("change", "1 of 3 pages", 4096)
            recovery.recover(info.id)
            assert plan().changes == ()


def test_a_plan_of_other_definitions_and_virtual_tables(tmp_path):
    path = tmp_path / "a.db"
    execute(path, "CREATE VIRTUAL TABLE words USING fts5(text)", "CREATE TABLE t (x)")
    execute(path, "INSERT INTO words VALUES ('one two')", "CREATE INDEX i ON t (x)")
    part = SqliteComponent("db", path)
    payload = Direct(part).capture()
    assert part.plan(payload).changes == ()
    execute(path, "DROP TABLE t", "CREATE TABLE t (x, y)", "DELETE FROM words")
    paths = [one.path for one in part.plan(payload).changes]
    assert "table t: another definition" in paths
    assert "index i" in paths
    part.restore(payload)
    with connected(path) as connection:
        found = connection.execute("SELECT * FROM words WHERE words MATCH 'two'").fetchall()
    assert found == [("one two",)]


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": 1000}, {"page_count": 0}, {"pages": "text"}, {"journal": "x"}, {"more": 1},
        {"mode": "600"}, {"mode": 0o10000}, {"mode": -1}, {"form": "sqlite-1"}, {"form": 2},
    ],
)  # fmt: skip
def test_impossible_payloads_are_refused(tmp_path, change):
    sound = {
        "form": "sqlite-2",
        "journal": "wal",
        "mode": 0o600,
        "page_count": 1,
        "page_size": 4096,
        "pages": [bytes(4096)],
    }
    part = SqliteComponent("db", tmp_path / "a.db")
    assert part.validate(stored(sound)) == []
    with pytest.raises(ForeignPayloadError):
        part.restore(stored(sound | change))
    with pytest.raises(SourceError, match=r"no SQLite database|not sound"):
        part.restore(stored(sound))
    assert os.listdir(tmp_path) == []


def test_a_payload_without_a_mode_is_restored(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=20)
    part = SqliteComponent("db", path)
    former = {key: one.value() for key, one in Direct(part).capture().items() if key != "mode"}
    seen = dump(path)
    path.unlink()
    part.restore(stored({**former, "form": "sqlite-1"}))
    assert dump(path) == seen


def stored(value):
    """Return a payload that holds a value."""
    direct = Direct(CallableComponent("db", lambda: value, print))
    return direct.capture()


STATEMENTS = st.sampled_from(
    [
        "INSERT INTO entry VALUES (random(), 1, hex(randomblob(400)))",
        "DELETE FROM entry WHERE rowid % 3 = 0",
        "UPDATE entry SET text = hex(randomblob(900)) WHERE rowid % 5 = 1",
        "CREATE TABLE IF NOT EXISTS more (x PRIMARY KEY, y)",
        "INSERT OR REPLACE INTO more VALUES (abs(random()) % 9, 2)",
        "DROP TABLE IF EXISTS more",
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "capture",
        "restore",
    ]
)


@settings(max_examples=15)
@given(
    acts=st.lists(STATEMENTS, min_size=3, max_size=20), journal=st.sampled_from(["wal", "delete"])
)
def test_any_history(acts, journal, tmp_path_factory):
    path = make(tmp_path_factory.mktemp("any") / "a.db", journal, rows=30)
    direct = Direct(SqliteComponent("db", path))
    kept = []
    with connected(path) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for number, act in enumerate(acts):
            if act == "capture":
                kept.append((direct.capture(), dump(path)))
            elif act == "restore":
                if kept:
                    payload, seen = kept[number % len(kept)]
                    direct.component.restore(payload)
                    assert dump(path) == seen
                    assert list(connection.iterdump()) == seen
            else:
                try:
                    connection.execute(act)
                except sqlite3.OperationalError as error:
                    assert "no such table: more" in str(error)
