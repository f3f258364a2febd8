"""A process that recovers or captures a whole system, and is killed in the middle of one chosen
component: at a system call of the thread that restores it, or at a line of its code.

The system has one component of each kind. `Aim` says which one is hit and where; without a number
it only counts how many places there are.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from ckptlog import CheckpointManager, FileComponent, SqliteComponent, state_component
from ckptlog.capture.arrays import ArraysComponent
from ckptlog.capture.callables import MappingComponent
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.queue import QueueComponent
from ckptlog.recovery.recovery import Recovery
from tests.recovery.world import look_at_database, look_at_file, look_at_tree

KINDS_IN_MEMORY = ("object", "mapping", "arrays", "queue")
KINDS_ON_DISK = ("file", "db", "tree")
KINDS = (*KINDS_IN_MEMORY, *KINDS_ON_DISK)
CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,ftruncate,close,rename,renameat,renameat2,unlink,"
    "unlinkat,rmdir,mkdir,mkdirat,symlink,symlinkat,chmod,fchmod,fchmodat,fchown,utimensat"
)
WAIT_S = 60
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.recovery.aimed"])


class Agent:
    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def get_state(self) -> dict[str, Any]:
        return self.state

    def set_state(self, state: dict[str, Any]) -> None:
        self.state = {}
        for key, value in state.items():
            self.state[key] = value


class System:
    """One component of each kind, below a folder and in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = Agent()
        self.mapping: dict[str, Any] = {}
        self.arrays: dict[str, Any] = {}
        self.queue: queue.Queue[Any] = queue.Queue()
        self.parts: dict[str, Any] = {
            "object": state_component("object", self.agent),
            "mapping": MappingComponent("mapping", self.mapping),
            "arrays": ArraysComponent("arrays", self.arrays),
            "queue": QueueComponent("queue", self.queue),
            "file": FileComponent("file", folder / "settings.json"),
            "db": SqliteComponent("db", folder / "app.db"),
            "tree": DirectoryComponent("tree", folder / "tree"),
        }

    def fill(self, word: str) -> None:
        """Give every component another state."""
        self.take(word)
        (self.folder / "settings.json").write_text(f'{{"word": "{word}"}}')
        self._fill_database(word)
        self._fill_tree(word)

    def _fill_database(self, word: str) -> None:
        with closing(sqlite3.connect(self.folder / "app.db")) as database, database:
            database.execute("drop table if exists t")
            database.execute("create table t (n integer primary key, word text)")
            rows = [(n, word * 100) for n in range(200 * len(word))]
            database.executemany("insert into t values (?, ?)", rows)

    def _fill_tree(self, word: str) -> None:
        tree = self.folder / "tree"
        subprocess.run(["rm", "-rf", tree], check=True)
        (tree / "same").mkdir(parents=True)
        (tree / word).mkdir()
        for number, letter in enumerate(word):
            (tree / "same" / f"{number}").write_text(letter * 3_000)
            (tree / word / f"{number}").write_text(letter)
        (tree / "link").symlink_to(word)
        turned = tree / "turned"  # a file in one state, a directory in the other
        if len(word) % 2:
            turned.mkdir(mode=0o500)
        else:
            turned.write_text(word)

    def look(self) -> dict[str, Any]:
        """Return exactly what is there."""
        return {
            "object": repr(self.agent.state),
            "mapping": repr(self.mapping),
            "arrays": {k: (v.dtype.str, v.tolist()) for k, v in self.arrays.items()},
            "queue": list(self.queue.queue),
            "file": look_at_file(self.folder / "settings.json"),
            "db": look_at_database(self.folder / "app.db"),
            "tree": look_at_tree(self.folder / "tree"),
        }

    def take(self, word: str) -> None:
        """Have in memory what a process had there after `fill`."""
        self.agent.state = {"word": word, "list": [word] * 3}
        self.mapping.clear()
        self.mapping.update({f"{word}-{n}": [n] for n in range(4)})
        self.arrays.clear()
        for number, letter in enumerate(word):
            self.arrays[f"{number}-{letter}"] = numpy.full((50, 3), ord(letter), dtype="int32")
        while not self.queue.empty():
            self.queue.get()
        for letter in word:
            self.queue.put(letter)

    def lose(self, kind: str) -> None:
        """Have nothing at a component's place."""
        names = {"file": "settings.json", "db": "app.db", "tree": "tree"}
        subprocess.run(["rm", "-rf", self.folder / names[kind]], check=True)

    def litter(self) -> list[str]:
        return sorted(set(os.listdir(self.folder)) - {"settings.json", "app.db", "tree"})


@dataclass(frozen=True)
class Aim:
    """What is done in the process, and where it is killed.

    act: `recover`, `resume`, `roll_back` or `capture`. word: What memory holds when it starts.
    kind: The component that is hit. call: At the system call of this name; "": at a line.
    number: At the nth of them; 0: nowhere, they are counted.
    """

    store: Path
    folder: Path
    act: str
    word: str
    kind: str
    call: str = ""
    number: int = 0

    @property
    def told(self) -> Path:
        return self.store.parent / "told"

    @property
    def go(self) -> Path:
        return self.store.parent / "go"

    @property
    def is_by_line(self) -> bool:
        return self.kind in KINDS_IN_MEMORY


def work(aim: Aim) -> None:
    """The process itself."""
    tempfile.tempdir = str(aim.store.parent / "tmp")
    system = System(aim.folder)
    system.take(aim.word)
    with CheckpointManager(aim.store) as manager:
        component = system.parts[aim.kind]
        method = "capture" if aim.act == "capture" else "restore"
        wrap = _by_line if aim.is_by_line else _by_call
        setattr(component, method, wrap(aim, getattr(component, method)))
        capturer = Capturer(manager, "sys", list(system.parts.values()))
        if aim.act == "capture":
            capturer.capture()
            return
        recovery = Recovery(capturer)
        if aim.act == "recover":
            recovery.recover()
        else:
            getattr(recovery, aim.act)()


def _by_line(aim: Aim, call: Any) -> Any:
    def restore(*arguments: Any) -> Any:
        count = 0

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            name = frame.f_code.co_filename
            if "/ckptlog/capture/" not in name and "/tests/recovery/" not in name:
                return None
            if event == "line":
                count += 1
                if count == aim.number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            return call(*arguments)
        finally:
            sys.settrace(None)
            aim.told.write_text(str(count))

    return restore


def _by_call(aim: Aim, call: Any) -> Any:
    def restore(*arguments: Any) -> Any:
        go = os.open(aim.go, os.O_RDWR)
        aim.told.with_suffix(".new").write_text(str(threading.get_native_id()))
        aim.told.with_suffix(".new").rename(aim.told)
        os.read(go, 1)  # until the tracer is there
        return call(*arguments)

    return restore


Places = list[tuple[str, int]]


def shot(aim: Aim) -> Places:
    """Run the process; return where it could have been killed, nothing where it was."""
    aim.told.unlink(missing_ok=True)
    aim.go.unlink(missing_ok=True)
    os.mkfifo(aim.go)
    process = _SERVER.Process(target=work, args=(aim,))
    process.start()
    calls = [] if aim.is_by_line else _traced(aim, process)
    process.join(WAIT_S)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    if process.exitcode:
        assert aim.number
        return []
    if aim.is_by_line:
        return [("", number) for number in range(1, int(aim.told.read_text()) + 1)]
    return [(name, calls[: at + 1].count(name)) for at, name in enumerate(calls)]


def _traced(aim: Aim, process: Any) -> list[str]:
    """Trace the thread that restores, kill it at the nth call; return which calls it made."""
    _until(lambda: aim.told.exists() or not process.is_alive())
    if not process.is_alive():
        return []
    thread = aim.told.read_text()
    out = aim.store.parent / "calls"
    out.unlink(missing_ok=True)
    known = ",".join(f"?{name}" for name in CALLS.split(","))
    words = ["strace", "-qq", "-p", thread, "-o", str(out), "-e", f"trace={known}"]
    if aim.number:
        words += ["-e", f"inject={aim.call}:signal=SIGKILL:when={aim.number}"]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE)
    status = Path(f"/proc/{process.pid}/task/{thread}/status")
    _until(lambda: "TracerPid:\t0\n" not in status.read_text() or tracer.poll() is not None)
    go = os.open(aim.go, os.O_RDWR)
    os.write(go, b"!")
    _, said = tracer.communicate(timeout=WAIT_S)
    os.close(go)
    if b"not permitted" in said:
        process.kill()
        pytest.skip("strace may not trace here")
    lines = out.read_text().splitlines()
    return [line.partition("(")[0] for line in lines if "(" in line.partition(" ")[0]]


def _until(is_so: Any) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


def aims(aim: Aim, most: int | None) -> list[Aim]:
    """Count the places of an aim, and return aims at some, spread evenly; at all for None."""
    found = shot(replace(aim, number=0))
    assert len(found) > 1  # the capture of a file opens it and closes it
    chosen = range(len(found))
    if most is not None and len(found) > most:
        chosen = sorted({round((n + 1) * (len(found) - 1) / (most + 1)) for n in range(most)})
    return [replace(aim, call=found[at][0], number=found[at][1]) for at in chosen]
