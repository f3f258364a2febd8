"""Every ready component with a way to change what it captures and a way to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import sqlite3
import threading
from typing import Any

import numpy

from ckptlog.capture.arrays import ArraysComponent
from ckptlog.capture.callables import CallableComponent, MappingComponent, state_component
from ckptlog.capture.environment import EnvironmentComponent
from ckptlog.capture.file import FileComponent
from ckptlog.capture.queue import AsyncQueueComponent, QueueComponent
from ckptlog.capture.sqlite import SqliteComponent


class Part:
    """One component under the contract."""

    name = "part"
    component: Any
    refuses_foreign = True

    def __init__(self, folder):
        self.folder = folder
        self.open()

    def open(self):
        raise NotImplementedError

    def change(self, number):
        """Change the state; each number gives another one."""
        raise NotImplementedError

    def look(self):
        """Return the state, comparable."""
        raise NotImplementedError

    def breaks(self):
        """Make the next capture fail."""
        raise NotImplementedError

    def idle(self):
        """Do what is no change of the state."""

    def close(self):
        pass


class Agent:
    def __init__(self):
        self.memory = {"steps": []}
        self.is_broken = False

    def get_state(self):
        if self.is_broken:
            raise RuntimeError("the agent is broken")
        return self.memory

    def set_state(self, state):
        self.memory = state


class StatePart(Part):
    refuses_foreign = False  # any value may be a state

    def open(self):
        self.agent = Agent()
        self.component = state_component(self.name, self.agent)

    def change(self, number):
        self.agent.memory["steps"] = [*self.agent.memory["steps"], {"number": number}]

    def look(self):
        return json.dumps(self.agent.memory)

    def breaks(self):
        self.agent.is_broken = True


class CallablePart(Part):
    refuses_foreign = False

    def open(self):
        self.value = b"first"
        self.component = CallableComponent(
            self.name, self.give, lambda value: setattr(self, "value", value), stability="immutable"
        )

    def give(self):
        return self.value[:] if self.value is not None else 1 / 0

    def change(self, number):
        self.value = bytes([number]) * 3

    def look(self):
        return self.value

    def breaks(self):
        self.value = None


class MappingPart(Part):
    def open(self):
        self.held = {"a": [1]}
        self.component = MappingComponent(self.name, self.held)

    def change(self, number):
        self.held[f"key-{number}"] = {"tuple": (number, 1.5)}
        self.held.pop("a", None)

    def look(self):
        return repr(self.held)

    def breaks(self):
        self.held["fault"] = object()


class QueuePart(Part):
    kind: Any = queue.Queue

    def open(self):
        self.queue = self.kind(50)
        self.queue.put(7)
        self.component = QueueComponent(self.name, self.queue)

    def change(self, number):
        if self.queue.qsize() > 2:
            self.queue.get()
            self.queue.task_done()
        self.queue.put(number)
        self.queue.put(100 - number)

    def look(self):
        return list(self.queue.queue), self.queue.unfinished_tasks - self.queue.qsize()

    def breaks(self):
        self.queue.put(_Unstorable(9))


class _Unstorable(int):
    """A subclass of int is refused when it is stored."""


class LifoPart(QueuePart):
    kind = queue.LifoQueue


class PriorityPart(QueuePart):
    kind = queue.PriorityQueue


class InHandPart(QueuePart):
    """Workers hold items that nobody ever calls task_done for."""

    def change(self, number):
        super().change(number)
        self.idle()

    def idle(self):
        self.queue.put("taken at once")
        self.queue.queue.rotate(1)
        self.queue.get()

    def look(self):
        return list(self.queue.queue)


class AsyncQueuePart(Part):
    kind: Any = asyncio.Queue

    def open(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.queue = self.kind(50)
        self.component = AsyncQueueComponent(self.name, self.queue, loop=self.loop, timeout_s=30)
        self.change(3)

    def within(self, function):
        async def call():
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    def change(self, number):
        def act():
            if self.queue.qsize() > 2:
                self.queue.get_nowait()
                self.queue.task_done()
            self.queue.put_nowait(number)
            self.queue.put_nowait(100 - number)

        self.within(act)

    def look(self):
        return self.within(lambda: (list(self.queue._queue), self.queue._unfinished_tasks))

    def breaks(self):
        self.within(lambda: self.queue.put_nowait(_Unstorable(9)))

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class AsyncPriorityPart(AsyncQueuePart):
    kind = asyncio.PriorityQueue


class AsyncInHandPart(AsyncQueuePart):
    """Items are taken out; nobody ever calls task_done for them."""

    def change(self, number):
        super().change(number)
        self.idle()

    def idle(self):
        def act():
            self.queue.put_nowait("taken at once")
            self.queue._queue.rotate(1)
            self.queue.get_nowait()

        self.within(act)

    def look(self):
        return self.within(lambda: list(self.queue._queue))


class FilePart(Part):
    suffix = ".json"
    texts = ('{"a":  1}\r\n', '{"b": [1, 2.50, "x"]}', "{broken", '{"a": 1, "a": 2}')

    def open(self):
        self.path = self.folder / f"settings{self.suffix}"
        self.path.write_bytes(b"{}")
        self.component = FileComponent(self.name, self.path)

    def change(self, number):
        self.path.write_bytes(self.texts[number % len(self.texts)].encode() + b" " * number)
        self.path.chmod(0o600 + number % 2)

    def look(self):
        return self.path.read_bytes(), self.path.stat().st_mode

    def breaks(self):
        self.path.unlink()
        self.path.mkdir()


class TomlPart(FilePart):
    suffix = ".toml"
    texts = ("a = 1 # one\n", "[t]\nwhen = 2024-01-02T03:04:05Z\n", "a = = 2", "x = [1,\n2]")


class YamlPart(FilePart):
    suffix = ".yaml"
    texts = ("a: 1 # one\n", "1: not a text\n", "a: [1, 2", "when: 2024-01-02\n")


class BytesPart(FilePart):
    suffix = ".bin"
    texts = ("\0\1", "", "x" * 100_000, "\x7f")


class EnvironmentPart(Part):
    def open(self):
        self.environ = {"MODE": "fast", "OTHER": "1", "API_KEY": "abc-secret"}
        self.component = EnvironmentComponent(
            self.name, apply_variables=True, variables=("MODE", "ADDED*"), environ=self.environ
        )

    def change(self, number):
        self.environ["MODE"] = f"mode-{number}"
        self.environ[f"ADDED_{number}"] = "yes"

    def look(self):
        return dict(self.environ)

    def breaks(self):
        self.component._environ = None


class ArraysPart(Part):
    def open(self):
        self.arrays = {
            "small": numpy.arange(5),
            "large": numpy.arange(400_000, dtype="<f8").reshape(400, 1000),
            "none": numpy.zeros((0, 3), "<i2"),
            "fortran": numpy.asfortranarray(numpy.arange(60_000).reshape(200, 300)),
        }
        self.component = ArraysComponent(self.name, self.arrays)

    def change(self, number):
        self.arrays["large"][number, number] = -number
        self.arrays["small"] = numpy.arange(number + 6)
        self.arrays[f"new-{number}"] = numpy.array([number], "<U3")

    def look(self):
        return {
            name: (one.dtype.str, one.shape, one.flags.f_contiguous, one.tobytes())
            for name, one in self.arrays.items()
        }

    def breaks(self):
        self.arrays["fault"] = numpy.array([object()])


class SqlitePart(Part):
    journal = "wal"

    def open(self):
        self.path = self.folder / "state.db"
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        self.connection.execute(f"PRAGMA journal_mode={self.journal}")
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.execute("CREATE TABLE entry (number INTEGER, text TEXT)")
        self.component = SqliteComponent(self.name, self.path)

    def change(self, number):
        self.connection.execute("BEGIN")
        self.connection.execute("DELETE FROM entry WHERE rowid % 7 = 0")
        for row in range(200):
            self.connection.execute("INSERT INTO entry VALUES (?, ?)", (number, f"{row}" * 99))
        self.connection.execute("COMMIT")

    def look(self):
        return list(self.connection.iterdump())

    def breaks(self):
        self.connection.close()
        self.path.write_bytes(b"rubbish " * 1000)

    def close(self):
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


class RollbackSqlitePart(SqlitePart):
    journal = "delete"


PARTS = [
    StatePart,
    CallablePart,
    MappingPart,
    QueuePart,
    LifoPart,
    PriorityPart,
    InHandPart,
    AsyncQueuePart,
    AsyncPriorityPart,
    AsyncInHandPart,
    FilePart,
    TomlPart,
    YamlPart,
    BytesPart,
    EnvironmentPart,
    ArraysPart,
    SqlitePart,
    RollbackSqlitePart,
]
