"""A small system that lies in five components, its own copy of every state it was in, and every
way in which a component may misbehave.

All components hold one number, the tick, which each move renews everywhere: a capture whose
components have different ticks was torn. `look()` tells exactly what is there, by nothing of ours.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ckptlog import FileComponent, SqliteComponent
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import SourceBusyError
from tests.capture.directory.picture import picture

Look = dict[str, Any]
NAMES = ("gate", "memory", "db", "tree", "settings")
PLACED = ("db", "tree", "settings")
LIKE_A_FILE = ("app.db", "settings.json", "tree")


class Gone(BaseException):
    """The process was killed here: nothing after it happens, in the thread that raises it."""


class World:
    """The system."""

    def __init__(self, folder: Path, *, is_wal: bool) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.tick = 0
        self.looks: dict[int, Look] = {}
        self.is_wal = is_wal
        self.held: dict[str, Any] = {"gate": {}, "memory": {}}
        folder.mkdir()
        self.move()

    @property
    def database(self) -> Path:
        return self.folder / "app.db"

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @contextmanager
    def connected(self):
        with closing(sqlite3.connect(self.database, timeout=30)) as database, database:
            yield database

    # --- what the system does -----------------------------------------------------------------

    def move(self, change: Any = None) -> None:
        """Renew the tick everywhere, at one moment for whoever holds the lock; and change more."""
        with self.lock:
            self.tick += 1
            if change is not None:
                change(self)
            self.held["gate"] = {"tick": self.tick}
            self.held["memory"] = {**self.held["memory"], "tick": self.tick}
            self._move_database()
            self._move_tree()
            fresh = self.folder / "settings.new"
            fresh.write_text(f'{{"tick": {self.tick}}}')
            fresh.chmod(0o640)
            fresh.rename(self.settings)
            self.looks[self.tick] = self.look()

    def _move_database(self) -> None:
        is_new = not self.database.exists()
        with closing(sqlite3.connect(self.database, timeout=30)) as database:
            if is_new and self.is_wal:
                database.execute("pragma journal_mode=wal")
            with database:
                database.execute("create table if not exists t (n integer primary key, word text)")
                database.execute("insert or replace into t values (0, ?)", (str(self.tick),))

    def _move_tree(self) -> None:
        self.tree.mkdir(exist_ok=True)
        for name in ("first", "sub/second", "third"):
            path = self.tree / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{self.tick}\n" + name * 200)

    # --- what is there ------------------------------------------------------------------------

    def look(self) -> Look:
        with self.lock:
            return {
                "gate": dict(self.held["gate"]),
                "memory": dict(self.held["memory"]),
                "db": look_at_database(self.database),
                "tree": look_at_tree(self.tree),
                "settings": look_at_file(self.settings),
            }

    def stamps(self) -> list[Any]:
        """What a dry run must not touch: every file with all of its times and its inode.

        Readers of a database in WAL mode make and remove files beside it: those are left out.
        """
        found = []
        for place, folders, names in os.walk(self.folder):
            for path in (os.path.join(place, name) for name in (*folders, *names)):
                status = os.lstat(path)
                if not path.endswith(("-shm", "-wal")):
                    found.append((path, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
        return sorted(found)

    def litter(self) -> list[str]:
        """Return what neither the system nor SQLite has put there."""
        own = {*LIKE_A_FILE, "app.db-wal", "app.db-shm"}
        return sorted(set(os.listdir(self.folder)) - own)

    # --- harm ---------------------------------------------------------------------------------

    def lose(self, name: str) -> None:
        """Delete a component's place."""
        if name == "db":
            for suffix in ("-wal", "-shm", "-journal", ""):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self.database}{suffix}")
        elif name == "tree":
            shutil.rmtree(self.tree)
        else:
            self.settings.unlink()

    def spoil(self, name: str) -> None:
        """Leave a component in a state that it was never in."""
        if name == "db":
            with self.connected() as database:
                database.execute("create table if not exists t (n integer primary key, word text)")
                database.execute("update t set word = word || '?'")
                database.execute("insert into t (word) values ('spoilt')")
        elif name == "tree":
            self.tree.mkdir(exist_ok=True)
            (self.tree / "first").write_text("spoilt")
            (self.tree / "strange").write_text("spoilt")
        elif name == "settings":
            self.settings.write_text("spoilt")
        else:
            self.held[name] = {"spoilt": 1}


def look_at_database(path: Path) -> Any:
    if not path.exists():
        return None
    with closing(sqlite3.connect(path, timeout=30)) as database:
        names = [row[0] for row in database.execute("select name from sqlite_schema order by 1")]
        return names, database.execute("select * from t order by n").fetchall()


def look_at_tree(path: Path) -> Any:
    return picture(path) if path.exists() else None


def look_at_file(path: Path) -> Any:
    if not path.exists():
        return None
    return path.read_bytes(), stat.S_IMODE(path.stat().st_mode)


class Moods:
    """What components do wrong, in the order in which they come to it.

    A mood is (component, step, act); each is had once. Acts of restore: `before` (raises and does
    nothing), `half` (spoils and raises), `passing` (the same, with an error that may pass), `after`
    (restores and raises), `wrong` (restores, then spoils, and says nothing), `hang` (spoils and
    waits for the gate, then restores), `gone` (spoils, and the process is killed). Of other steps:
    `fail`, `hang`, and of validate: `no`.
    """

    def __init__(self) -> None:
        self.left: list[tuple[str, str, str]] = []
        self.had: list[tuple[str, str, str]] = []
        self.gate = threading.Event()

    def turn(self, name: str, step: str) -> str:
        for mood in self.left:
            if mood[:2] == (name, step):
                self.left.remove(mood)
                self.had.append(mood)
                return mood[2]
        return ""

    def act(self, name: str, step: str) -> None:
        mood = self.turn(name, step)
        if mood == "fail":
            raise ValueError(step)
        if mood == "hang":
            self.gate.wait(60)

    def clear(self) -> None:
        self.left.clear()
        self.had.clear()


class Moody:
    """The misbehaving side of a component; the other side is the real one."""

    name: str
    world: World
    moods: Moods

    def capture(self) -> Any:
        self.moods.act(self.name, "capture")
        return super().capture()  # type: ignore[misc]

    def validate(self, payload: Any) -> list[str]:
        if self.moods.turn(self.name, "validate"):
            return ["is not to its liking"]
        return super().validate(payload)  # type: ignore[misc]

    def restore(self, payload: Any) -> None:
        act = self.moods.turn(self.name, "restore")
        if act == "before":
            raise RuntimeError(act)
        if act in {"half", "passing", "hang", "gone"}:
            self.world.spoil(self.name)
        if act == "half":
            raise RuntimeError(act)
        if act == "passing":
            raise SourceBusyError(act)
        if act == "gone":
            raise Gone
        if act == "hang":
            self.moods.gate.wait(60)
        super().restore(payload)  # type: ignore[misc]
        if act == "wrong":
            self.world.spoil(self.name)
        if act == "after":
            raise RuntimeError(act)


class Held:
    """A plain object: its state is a dict of the world's."""

    world: World

    def __init__(self, name: str) -> None:
        self.name = name

    def capture(self) -> Any:
        return dict(self.world.held[self.name])

    def validate(self, payload: Any) -> list[str]:
        return [] if type(payload) is dict and "tick" in payload else ["has no tick"]

    def restore(self, payload: Any) -> None:
        self.world.held[self.name] = dict(payload)


class MoodyMemory(Moody, Held):
    stability = "copied"


class MoodyGate(Moody, Held):
    """Holds the whole world still between prepare() and the end of the cut."""

    def prepare(self) -> None:
        self.moods.act(self.name, "prepare")
        self.world.lock.acquire()

    def commit(self) -> None:
        self.world.lock.release()
        self.moods.act(self.name, "commit")

    def abort(self) -> None:
        self.world.lock.release()


class MoodyDatabase(Moody, SqliteComponent):
    # What is compared after a restore is what is in it, not only whether it is sound.
    verify_restored = None  # type: ignore[assignment]


class MoodyTree(Moody, DirectoryComponent):
    verify_restored = None  # type: ignore[assignment]


class MoodyFile(Moody, FileComponent):
    pass


def components_of(
    world: World, moods: Moods, depends: dict[str, list[str]], *, index: Path | None = None
) -> dict[str, Any]:
    """Return new components of a world, as a program that was just started makes them."""
    made: list[Any] = [
        MoodyGate("gate"),
        MoodyMemory("memory"),
        MoodyDatabase("db", world.database, busy_timeout_s=30),
        MoodyTree("tree", world.tree, index=index),
        MoodyFile("settings", world.settings),
    ]
    for one in made:
        one.world, one.moods, one.depends_on = world, moods, tuple(depends.get(one.name, ()))
    return {one.name: one for one in made}
