"""A SQLite file is copied at one moment and replaced by one transaction; locks of others stay."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from ckptlog.capture import database
from ckptlog.capture.file_digest import digest_of_file
from ckptlog.errors import DeniedError, SourceBusyError, SourceError

ACCOUNTS = 40
TOTAL = ACCOUNTS * 100

WRITER = """
import random, sqlite3, sys, time
path = sys.argv[1]
connection = sqlite3.connect(path, isolation_level=None, timeout=30)
print("ready", flush=True)
while True:
    one, other = random.sample(range(40), 2)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE account SET money = money - 7 WHERE id = ?", (one,))
    connection.execute("UPDATE account SET money = money + 7 WHERE id = ?", (other,))
    connection.execute("INSERT INTO entry VALUES (?, ?, randomblob(300))", (one, other))
    connection.execute("COMMIT")
    time.sleep(0.001)
"""

RESTORER = """
import sys
from pathlib import Path
from ckptlog.capture import database
from tests.capture.test_database import assembled
print("ready", flush=True)
sys.stdin.readline()
database.replace(Path(sys.argv[1]), assembled(Path(sys.argv[2])))
"""


def assembled(path):
    """Return a database that was captured as it is."""
    with path.open("rb") as file:
        return database.Assembled(path, digest_of_file(file.fileno()))


def make(path, journal="wal", *, rows=0, page_size=4096, fill=b"x"):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER)")
        connection.execute("CREATE TABLE entry (one, other, text)")
        connection.executemany(
            "INSERT INTO account VALUES (?, 100)", [(number,) for number in range(ACCOUNTS)]
        )
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO entry VALUES (?, ?, ?)", [(n, 0, fill * 900) for n in range(rows)]
        )
        connection.execute("COMMIT")
    return path


def dump(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(connection.iterdump())


def money(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT sum(money) FROM account").fetchone()[0]


def copied(path, target):
    """Copy a database to target through a page copy, as a capture and a restore do."""
    with closing(database.open_database(path)) as connection:
        database.begin_reading(connection, path)
        copy = database.copy_pages(connection, path)
    try:
        with database.assembled(pages(copy), copy.page_size, copy.page_count) as place:
            database.replace(target, place)
    finally:
        copy.close()


def pages(copy):
    yield from (copy.read(first, 16) for first in range(0, copy.page_count, 16))


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_copy_is_the_database(tmp_path, journal, page_size):
    path = make(tmp_path / "a.db", journal, rows=200, page_size=page_size)
    copied(path, tmp_path / "b.db")
    assert dump(tmp_path / "b.db") == dump(path)


def test_an_empty_file_is_an_empty_database(tmp_path):
    (tmp_path / "a.db").touch()
    live = make(tmp_path / "b.db")
    copied(tmp_path / "a.db", live)
    assert dump(live) == ["BEGIN TRANSACTION;", "COMMIT;"]


def test_a_name_may_hold_anything(tmp_path):
    path = make(tmp_path / "a?mode=ro#%41 ü.db", rows=3)
    copied(path, tmp_path / "b.db")
    assert dump(tmp_path / "b.db") == dump(path)
    assert os.listdir(tmp_path).count("a") == 0


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_moment_is_that_of_the_barrier(tmp_path, journal):
    path = make(tmp_path / "a.db", journal)
    before = dump(path)
    with closing(database.open_database(path)) as connection:
        database.begin_reading(connection, path)
        writer = sqlite3.connect(path, isolation_level=None, timeout=0)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM account")
        if journal == "wal":
            writer.execute("COMMIT")  # writers go on
        else:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                writer.execute("COMMIT")  # they wait until the copy is made
        copy = database.copy_pages(connection, path)
    if journal != "wal":
        writer.execute("COMMIT")
    writer.close()
    with database.assembled(pages(copy), copy.page_size, copy.page_count) as place:
        database.replace(tmp_path / "b.db", place)
    copy.close()
    assert dump(tmp_path / "b.db") == before
    assert money(path) is None


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_locks_of_this_process_survive_a_copy(tmp_path, journal):
    """Opening and closing the file by ourselves would drop every POSIX lock on it."""
    path = make(tmp_path / "a.db", journal)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("UPDATE account SET money = 0 WHERE id = 1")
        copied(path, tmp_path / "b.db")
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert "locked" in other.stderr
        holder.execute("ROLLBACK")


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sums_hold_while_other_processes_write(tmp_path, journal):
    path = make(tmp_path / "a.db", journal)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        seen = set()
        for number in range(12):
            copied(path, tmp_path / f"copy-{number}.db")
            assert money(tmp_path / f"copy-{number}.db") == TOTAL
            seen.add(len(dump(tmp_path / f"copy-{number}.db")))
            time.sleep(0.02)
        assert len(seen) > 1  # they did write meanwhile
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def test_threads_of_this_process_write_on(tmp_path):
    path = make(tmp_path / "a.db")
    stop = threading.Event()

    def write():
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            while not stop.is_set():
                one, other = random.sample(range(ACCOUNTS), 2)
                connection.execute("BEGIN IMMEDIATE")
                for sign, account in ((-3, one), (3, other)):
                    connection.execute(
                        "UPDATE account SET money = money + ? WHERE id = ?", (sign, account)
                    )
                connection.execute("COMMIT")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(12):
            copied(path, tmp_path / f"copy-{number}.db")
            assert money(tmp_path / f"copy-{number}.db") == TOTAL
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_open_connections_see_what_was_restored(tmp_path, journal):
    path = make(tmp_path / "a.db", journal, rows=50)
    old = dump(path)
    copied(path, tmp_path / "kept.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM entry")
        other.execute("CREATE TABLE late (x)")
        assert other.execute("SELECT count(*) FROM entry").fetchone() == (0,)
        copied(tmp_path / "kept.db", path)
        assert other.execute("SELECT count(*) FROM entry").fetchone() == (50,)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            other.execute("SELECT * FROM late")
        other.execute("INSERT INTO entry VALUES (1, 2, 'goes on')")
        assert other.execute("PRAGMA journal_mode").fetchone() == (journal,)
        other.execute("DELETE FROM entry WHERE text = 'goes on'")
    assert dump(path) == old


def test_a_reader_in_the_middle_keeps_its_own_view(tmp_path):
    path = make(tmp_path / "a.db", rows=50)
    copied(path, tmp_path / "kept.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("DELETE FROM entry")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (0,)
        copied(tmp_path / "kept.db", path)
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (0,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (50,)


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("sizes", [(4096, 1024), (1024, 8192)])
def test_a_database_of_another_page_size_is_replaced(tmp_path, journal, sizes):
    path = make(tmp_path / "a.db", journal, rows=30, page_size=sizes[0])
    other = make(tmp_path / "b.db", "delete", rows=60, page_size=sizes[1])
    copied(other, path)
    assert dump(path) == dump(other)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (sizes[1],)
        assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)


def test_a_held_database_is_left_as_it_is(tmp_path):
    path = make(tmp_path / "a.db", rows=5)
    other = make(tmp_path / "b.db", "delete", rows=6)
    old = dump(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceBusyError) as caught:
            database.replace(path, assembled(other), busy_timeout_s=0.05)
        assert caught.value.retryable
        holder.execute("ROLLBACK")
    assert dump(path) == old
    database.replace(path, assembled(other))
    assert dump(path) == dump(other)


@pytest.mark.parametrize("content", [b"no database at all " * 99, os.urandom(8192), b"S" * 3])
def test_what_is_no_database_is_told(tmp_path, content):
    path = tmp_path / "a.db"
    path.write_bytes(content)
    refused = pytest.raises(SourceError, match="no SQLite database, or it is encrypted")
    with closing(database.open_database(path)) as connection, refused:
        database.begin_reading(connection, path)
    assert path.read_bytes() == content


def test_what_is_not_there_is_told_and_not_made(tmp_path):
    with pytest.raises(SourceError, match="There is no database"):
        database.open_database(tmp_path / "a.db")
    with pytest.raises(SourceError, match="no regular file"):
        database.open_database(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_no_database_is_set_aside_with_its_journals(tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(b"rubbish " * 1000)
    (tmp_path / "a.db-journal").write_bytes(b"a journal that must not be played back" * 50)
    other = make(tmp_path / "b.db", "delete", rows=6)
    for number in (1, 2):
        database.replace(path, assembled(other))
        assert dump(path) == dump(other)
        assert (tmp_path / f"a.db.damaged-{number}").read_bytes() == b"rubbish " * 1000
        path.write_bytes(b"rubbish " * 1000)
    assert not (tmp_path / "a.db-journal").exists()


def test_a_stale_journal_is_not_played_into_a_new_database(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=6)
    other = make(tmp_path / "b.db", "delete", rows=9)
    crashed = "import sqlite3, os, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    crashed += (
        "c.execute('PRAGMA cache_size=1'); c.execute('PRAGMA cache_spill=1'); c.execute('BEGIN'); "
    )
    crashed += "c.execute('UPDATE entry SET text = zeroblob(9000)'); os._exit(0)"
    subprocess.run([sys.executable, "-c", crashed, path], check=True)
    assert (tmp_path / "a.db-journal").exists()
    path.unlink()
    database.replace(path, assembled(other))
    assert dump(path) == dump(other)


def test_a_damaged_database_is_replaced_in_place(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=300)
    other = make(tmp_path / "b.db", "delete", rows=6)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(9 * 4096))
    database.replace(path, assembled(other))
    assert dump(path) == dump(other)


def test_pages_that_are_no_sound_database_are_refused(tmp_path):
    path = make(tmp_path / "a.db", "delete", rows=300)
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 4] = b"\x0d\xff\x07" * (8192 // 3) + b"\0\0"
    count = len(content) // 4096
    for pages, message in ((bytes(content), r"not sound|damaged"), (bytes(content[:-1]), "bytes")):
        made = database.assembled(iter([pages]), 4096, count)
        with pytest.raises(SourceError, match=message), made:
            pass


def test_a_database_that_may_not_be_written_is_told(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
        raise error

    with pytest.raises(DeniedError), database.database_door(tmp_path):
        refuse()


@pytest.mark.unmeasured
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, journal):
    kills(tmp_path, journal, rounds=8)


@pytest.mark.thorough
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_many_times(tmp_path, journal):
    kills(tmp_path, journal, rounds=200)


def kills(tmp_path, journal, *, rounds):
    chance = random.Random(journal)
    path = make(tmp_path / "live.db", journal, rows=12_000, fill=b"o")
    sides = [
        make(tmp_path / "old.db", "delete", rows=12_000, fill=b"o"),
        make(tmp_path / "new.db", "delete", rows=11_000, fill=b"n"),
    ]
    texts = [dump(side) for side in sides]
    took, killed, now = 0.15, 0, 0
    for number in range(rounds):
        target = 1 - now
        process = start(path, sides[target])
        process.stdin.write("\n")
        process.stdin.flush()
        begin = time.monotonic()
        time.sleep(took * 1.1 * chance.random() if number else 10 * took)
        process.send_signal(signal.SIGKILL)
        status = process.wait()
        for stream in (process.stdin, process.stdout):
            stream.close()
        killed += status == -signal.SIGKILL
        if status == 0 and number == 0:
            took = min(took, time.monotonic() - begin)
        found = dump(path)
        assert found in texts
        now = texts.index(found)
    assert killed  # else nothing was tried
    database.replace(path, assembled(sides[1 - now]))
    assert dump(path) == texts[1 - now]


def start(path, source):
    process = subprocess.Popen(
        [sys.executable, "-c", RESTORER, path, source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_stamp_is_believed_when_the_clock_has_gone_on(tmp_path):
    path = make(tmp_path / "a.db")
    stamp = database.stamp_of(path)
    now = time.time_ns()
    assert not database.is_settled(stamp, now)
    assert database.is_settled(stamp, now + 10**10)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM entry")
        connection.execute("INSERT INTO entry VALUES (1, 2, 3)")
        assert database.stamp_of(path) != stamp
    assert not database.is_settled(database.stamp_of(tmp_path / "none"), now + 10**10)


def test_private_copies_of_a_killed_process_are_removed(tmp_path):
    left, held, strange = (tmp_path / f"ckptlog-sqlite-{name}" for name in "abc")
    for place in (left, held, strange):
        place.mkdir()
        (place / "database").write_bytes(b"secret")
    (strange / "somebody's").write_bytes(b"")
    fd = os.open(held, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with database._private(str(tmp_path)) as place:
        place.write_bytes(b"")
        with database._private(str(tmp_path)):
            assert place.exists()
    os.close(fd)
    assert sorted(one.name for one in tmp_path.iterdir()) == [held.name, strange.name]
    assert (held / "database").exists()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_was_brought_in_is_compared_page_by_page(mode, tmp_path, monkeypatch):
    live, source = tmp_path / "live.db", tmp_path / "source.db"
    for place, rows in ((live, 50), (source, 500)):
        with closing(sqlite3.connect(place, isolation_level=None)) as one:
            one.execute("CREATE TABLE t (a TEXT)")
            one.executemany("INSERT INTO t VALUES (?)", [(f"row {n}" * 9,) for n in range(rows)])
    with closing(sqlite3.connect(live, isolation_level=None)) as one:
        one.execute(f"PRAGMA journal_mode={mode}")
    database.replace(live, assembled(source))

    class Wrong(sqlite3.Connection):
        def backup(self, target, **options):
            super().backup(target, **options)
            if target.execute("PRAGMA database_list").fetchone()[2] == str(live):
                spoilt[-1](target)

    def connected(path, options, timeout):
        name = f"file:{path}?{options}"
        return sqlite3.connect(
            name, uri=True, isolation_level=None, check_same_thread=False, factory=Wrong
        )

    def wrongly(target):
        target.execute("UPDATE t SET a = 'another' WHERE rowid = 3")

    monkeypatch.setattr(database, "_connected", connected)
    spoilt = [wrongly]
    with pytest.raises(SourceError, match="is not what was captured"):
        database.replace(live, assembled(source))
    assert database.faults_in(live) == []  # SQLite finds nothing wrong with it

    def by_others(_):
        with closing(sqlite3.connect(live, isolation_level=None)) as other:
            other.execute("INSERT INTO t VALUES ('of somebody else, just now')")

    spoilt.append(by_others)
    database.replace(live, assembled(source))  # what others write at once is theirs
    with closing(sqlite3.connect(live)) as one:
        assert one.execute("SELECT count(*) FROM t").fetchone() == (501,)


def test_a_writer_at_once_after_a_restore_undoes_nothing_of_it(tmp_path, monkeypatch):
    live, source = tmp_path / "live.db", tmp_path / "source.db"
    make(live, "delete", rows=5)
    make(source, "delete", rows=50)
    writer = sqlite3.connect(live, isolation_level=None)
    begin = database.begin_reading

    def beginning(connection, path, *, busy_timeout_s):
        if path == live:
            writer.execute("BEGIN EXCLUSIVE")
        begin(connection, path, busy_timeout_s=busy_timeout_s)

    monkeypatch.setattr(database, "begin_reading", beginning)
    database.replace(live, assembled(source))
    writer.execute("ROLLBACK")
    writer.close()
    assert dump(live) == dump(source)


@pytest.mark.parametrize("there", ["nothing", "no database"])
def test_what_is_put_in_place_is_what_was_captured_or_is_not_put_there(
    there, tmp_path, monkeypatch
):
    live, source = tmp_path / "live.db", tmp_path / "source.db"
    make(source, "delete", rows=50)
    if there != "nothing":
        live.write_bytes(b"somebody's notes" * 300)
    before = sorted(tmp_path.iterdir())
    copy = database._copy_file

    def wrongly(origin, fd, versions):
        copy(origin, fd, versions)
        size = os.fstat(fd).st_size
        byte = os.pread(fd, 1, size - 50)
        os.pwrite(fd, bytes((byte[0] ^ 1,)), size - 50)

    monkeypatch.setattr(database, "_copy_file", wrongly)
    with pytest.raises(SourceError, match="is not what was captured"):
        database.replace(live, assembled(source))
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    right = assembled(source)
    with source.open("r+b") as file:  # the private file was spoilt after it was made
        file.seek(-50, os.SEEK_END)
        file.write(b"?")
    with pytest.raises(SourceError, match="is not what was captured"):
        database.replace(live, right)
    assert sorted(tmp_path.iterdir()) == before
    for is_wal in (False, True):
        make(tmp_path / f"{is_wal}.db", "delete", rows=20)
        database.replace(
            tmp_path / f"new-{is_wal}.db", assembled(tmp_path / f"{is_wal}.db"), is_wal=is_wal
        )
        assert database.faults_in(tmp_path / f"new-{is_wal}.db") == []
