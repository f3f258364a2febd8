"""One view for many: threads, processes, killed ones, and forked children."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ckptlog.model.entry import Commit
from ckptlog.storage import fork
from ckptlog.views import current
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewBusyError, ViewClosedError
from ckptlog.views.query import Filter
from tests.manager.test_fork import in_child
from tests.views.author import BOOT, STORE, Author, assert_agrees, long_log

# The byte of path-shm that whoever has it open holds a lock on (SQLite's os_unix.c).
_IN_USE = 128
WAIT_S = 30
ROOT = Path(__file__).parents[2]


@pytest.fixture
def author():
    return Author()


@pytest.fixture(params=["file", "memory"])
def view(request, tmp_path):
    path = tmp_path / "current.sqlite" if request.param == "file" else None
    view = CurrentView.open(path, STORE, boot=BOOT)
    yield view
    view.close()


def apply(view: CurrentView, author: Author) -> None:
    assert view.apply(author.commits, author.meta_of)


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "current.sqlite"
    views = [CurrentView.open(path, STORE, boot=BOOT) for _ in range(2)]
    yield views
    for view in views:
        view.close()


def test_while_another_writes_apply_returns_false(pair, author):
    first, second = pair
    author.create()
    writer = first._database.writer
    writer.execute("BEGIN IMMEDIATE")
    second._database.writer.execute("PRAGMA busy_timeout = 1")
    assert not second.apply(author.commits, author.meta_of)
    assert not second.rebuild(author.commits, author.meta_of)
    assert second.mark.position == 0  # reading goes on
    writer.execute("ROLLBACK")
    apply(second, author)
    assert_agrees(first, author)


def test_a_read_that_waits_too_long_says_busy(pair, author):
    view = pair[0]
    author.create()
    apply(view, author)

    class Busy:
        def execute(self, *arguments):
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
            raise error

    real, view._database.reader = view._database.reader, Busy()
    for act in (lambda: view.mark, lambda: view.row("x"), lambda: view.select(Filter())):
        with pytest.raises(ViewBusyError):
            act()
    view._database.reader = real


class Crowd:
    """Threads that write to and read from one view, and what went wrong in them."""

    def __init__(self, view: CurrentView, author: Author) -> None:
        self.view = view
        self.author = author
        self.failures: list[BaseException] = []
        self.is_done = threading.Event()

    def write(self, length: int) -> None:
        while ahead := self._ahead():
            self.view.apply(ahead[:length], self.author.meta_of)

    def _ahead(self) -> list[Commit]:
        position = self.view.mark.position
        return [commit for commit in self.author.commits if commit.position_next > position]

    def read(self) -> None:
        while not self.is_done.is_set():
            position = self.view.mark.position
            for row in self.view.select(Filter(), limit=5, newest_first=True):
                again = self.view.row(row.id)
                assert again is not None
                assert again.position >= row.position
            assert self.view.totals().events >= position

    def thread(self, act, *arguments) -> threading.Thread:
        def guarded() -> None:
            try:
                act(*arguments)
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread


def test_threads_share_a_view(view, author):
    long_log(author, 1500)
    crowd = Crowd(view, author)
    readers = [crowd.thread(crowd.read) for _ in range(2)]
    writers = [crowd.thread(crowd.write, length) for length in (20, 21, 40)]
    for thread in writers:
        thread.join()
    crowd.is_done.set()
    for thread in readers:
        thread.join()
    assert crowd.failures == []
    assert_agrees(view, author)


def test_a_reader_never_sees_half_a_transaction(view, author, monkeypatch):
    monkeypatch.setattr(current, "_REBUILD_EVENTS", 1)
    for _ in range(3):
        author.create()
    seen: list[int] = []
    readers: list[threading.Thread] = []

    def read() -> None:
        seen.append(view.count(Filter()))

    def meta_of(entry):
        readers.append(threading.Thread(target=read))
        readers[-1].start()
        readers[-1].join(0.05)  # in memory it has to wait
        return author.meta_of(entry)

    assert view.rebuild(author.commits, meta_of)
    for reader in readers:
        reader.join()
    assert set(seen) <= {0, 3}
    assert len(seen) == 3


FOLLOWER = """
import sys
from pathlib import Path
from ckptlog.views.current import CurrentView
from tests.views.author import BOOT, STORE, Author, assert_agrees, long_log

author = Author()
long_log(author, int(sys.argv[2]))
print(flush=True)
sys.stdin.readline()
while True:
    view = CurrentView.open(Path(sys.argv[1]), STORE, boot=BOOT)
    assert view.kind == "file", view.notes
    while not view.at_least(author.position):
        position = view.mark.position
        ahead = [commit for commit in author.commits if commit.position_next > position]
        view.apply(ahead[:7], author.meta_of)
        view.totals()
        if len(ahead) % 5 == 0:
            break
    else:
        assert_agrees(view, author)
        break
    view.close()
view.close()
"""


def follower(path: Path, events: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, str(path), str(events)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_share_a_file(tmp_path, author):
    path = tmp_path / "current.sqlite"
    followers = [follower(path, 600) for _ in range(2)]
    for process in followers:
        begin(process)
    for process in followers:
        process.communicate()
        assert process.returncode == 0
    long_log(author, 600)
    view = CurrentView.open(path, STORE, boot=BOOT)
    assert view.notes == ()
    assert_agrees(view, author)
    view.close()


@pytest.mark.parametrize("rounds", [2, pytest.param(60, marks=pytest.mark.thorough)])
def test_a_killed_process_leaves_a_file_to_go_on_from(tmp_path, author, rounds):
    path = tmp_path / "current.sqlite"
    long_log(author, 3000)
    for number in range(rounds):
        process = follower(path, 3000)
        begin(process)
        time.sleep(0.02 + number % 7 * 0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        view = CurrentView.open(path, STORE, boot=BOOT)
        assert view.kind == "file"
        assert [note for note in view.notes if "missing" not in note] == []
        position = view.mark.position
        applied = [commit for commit in author.commits if commit.position_next <= position]
        expected = CurrentView.open(None, STORE)
        assert expected.rebuild(applied, author.meta_of)
        assert view.mark == expected.mark
        assert view.totals() == expected.totals()
        assert view.select(Filter(), limit=10**5) == expected.select(Filter(), limit=10**5)
        assert view.check() == []
        if position >= author.position:
            view.remove()
        else:
            view.close()
        expected.close()


# --- fork ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "abandon", "remove"])
def test_a_child_leaves_the_parents_view_alone(tmp_path, author, way):
    path = tmp_path / "current.sqlite"
    view = CurrentView.open(path, STORE, boot=BOOT)
    author.create()
    apply(view, author)
    view._database.writer.execute("BEGIN IMMEDIATE")  # the worst moment
    view._database.writer.execute("DELETE FROM command")
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        status = 1
        try:
            getattr(view, way)()
            try:
                view.row("x")
            except ViewClosedError:
                own = CurrentView.open(path, STORE, boot=BOOT)
                status = 0 if own.mark.position == 1 and own.kind == "file" else 2
                own.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    view._database.writer.execute("ROLLBACK")
    author.create()
    apply(view, author)
    assert_agrees(view, author)
    view.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's record of a lock")
@pytest.mark.parametrize("is_at_work", [False, True])
def test_a_child_that_opens_a_view_anew_holds_the_locks_of_it_itself(
    tmp_path, author, monkeypatch, is_at_work
):
    """Else who opens it next cuts off the memory that the child has mapped: SIGBUS."""
    monkeypatch.setattr(fork, "STILL_S", 30)
    path = tmp_path / "current.sqlite"
    view = CurrentView.open(path, STORE, boot=BOOT)
    author.create()
    apply(view, author)
    held, thread = threading.Event(), None
    if is_at_work:

        def work():
            with view._write_lock, view._read_lock:
                held.set()
                time.sleep(0.1)

        thread = threading.Thread(target=work)
        thread.start()
        held.wait(WAIT_S)
    (done, is_open), (may_end, end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            own = CurrentView.open(path, STORE, boot=BOOT)
            os.write(is_open, b"y" if own.mark.position == 1 and own.kind == "file" else b"n")
            os.read(may_end, 1)
        finally:
            os._exit(0)
    if thread is not None:
        thread.join()
    assert os.read(done, 1) == b"y"
    author.create()
    apply(view, author)
    assert_agrees(view, author)
    view.close()
    # Of this process none is left: what is held is the child's.
    with open(f"{path}-shm", "r+b") as file:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _IN_USE, 1, 0)
        found = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    os.write(end, b"y")
    os.waitpid(child, 0)
    assert (found[0], found[4]) == (fcntl.F_RDLCK, child)


def test_a_child_of_a_view_that_is_not_still_opens_it_nevertheless(tmp_path, author, monkeypatch):
    monkeypatch.setattr(fork, "STILL_S", 0.01)
    view = CurrentView.open(tmp_path / "current.sqlite", STORE, boot=BOOT)
    author.create()
    apply(view, author)
    held, done = threading.Event(), threading.Event()

    def work():
        with view._write_lock:
            held.set()
            done.wait(WAIT_S)

    thread = threading.Thread(target=work)
    thread.start()
    held.wait(WAIT_S)

    def child():
        with pytest.raises(ViewClosedError):
            view.mark  # noqa: B018
        return CurrentView.open(tmp_path / "current.sqlite", STORE, boot=BOOT).mark.position

    assert in_child(child) == 1
    done.set()
    thread.join()
    assert_agrees(view, author)
    view.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_abandoned_connection_is_never_closed(tmp_path, author):
    """Its close would undo what the parent is writing in the memory that they share."""
    path = tmp_path / "current.sqlite"

    def descriptors() -> int:
        links = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return links.count(str(path))

    view = CurrentView.open(path, STORE, boot=BOOT)
    before = descriptors()
    assert before == 3
    view.abandon()
    del view
    gc.collect()
    assert descriptors() == before


def test_an_abandoned_view_can_be_opened_again(tmp_path, author):
    path = tmp_path / "current.sqlite"
    view = CurrentView.open(path, STORE, boot=BOOT)
    author.create()
    apply(view, author)
    view.abandon()
    with pytest.raises(ViewClosedError):
        view.mark  # noqa: B018
    view.close()
    view = CurrentView.open(path, STORE, boot=BOOT)
    assert_agrees(view, author)
    view.close()
