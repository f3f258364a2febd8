"""Components that behave, and components that do not."""

from __future__ import annotations

import threading
from typing import Any

from ckptlog import ChangedError


class Value:
    """A component that gives a value; with options for everything it may say of itself."""

    def __init__(self, name: str, value: Any = None, **options: Any) -> None:
        self.name = name
        self.value = value
        self.calls: list[str] = []
        self.threads: set[int] = set()
        for option, setting in options.items():
            setattr(self, option, setting)

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())

    def capture(self) -> Any:
        self.note("capture")
        return self.value

    def restore(self, payload: Any) -> None:
        self.note("restore")
        self.value = payload


class Phased(Value):
    """With both phases, and a lock of its own that belongs to a thread."""

    def __init__(self, name: str, value: Any = None, **options: Any) -> None:
        super().__init__(name, value, **options)
        self.lock = threading.RLock()

    def prepare(self) -> None:
        self.note("prepare")
        self.lock.acquire()

    def commit(self) -> None:
        self.note("commit")
        self.lock.release()

    def abort(self) -> None:
        self.note("abort")
        self.lock.release()


class Failing(Phased):
    """Raises in a step, as often as it is told."""

    def __init__(self, name: str, step: str, error: BaseException | None = None, times: int = 1):
        super().__init__(name, 1)
        self.step, self.times = step, times
        self.error = error or RuntimeError("boom")

    def note(self, call: str) -> None:
        super().note(call)
        if call == self.step and self.times:
            self.times -= 1
            raise self.error


class Hanging(Phased):
    """Waits in a step until it is let go."""

    def __init__(self, name: str, step: str) -> None:
        super().__init__(name, 1)
        self.step = step
        self.gate = threading.Event()
        self.has_ended = threading.Event()

    def note(self, call: str) -> None:
        super().note(call)
        if call == self.step:
            self.gate.wait(60)

    def abort(self) -> None:
        super().abort()
        self.has_ended.set()


class Bank:
    """Money in accounts that lie in different components."""

    def __init__(self, names: list[str], money: int = 100) -> None:
        self.money = dict.fromkeys(names, money)
        # Taken in the order of the names by whoever moves money.
        self.locks = {name: threading.RLock() for name in names}

    def move(self, source: str, target: str, amount: int, pause: Any = None) -> None:
        first, second = sorted((source, target))
        with self.locks[first], self.locks[second]:
            self.money[source] -= amount
            if pause is not None:
                pause()
            self.money[target] += amount


class Account:
    """One account as a component: held still from prepare() to the end of the cut."""

    def __init__(self, bank: Bank, name: str, **options: Any) -> None:
        self.bank, self.name = bank, name
        for option, setting in options.items():
            setattr(self, option, setting)

    def prepare(self) -> None:
        self.bank.locks[self.name].acquire()

    def capture(self) -> Any:
        return {"money": self.bank.money[self.name]}

    def commit(self) -> None:
        self.bank.locks[self.name].release()

    def abort(self) -> None:
        self.bank.locks[self.name].release()

    def restore(self, payload: Any) -> None:
        self.bank.money[self.name] = payload["money"]


class Page:
    """A snapshot that reads what it was taken of when it is written, and compares."""

    stability = "reread"

    def __init__(self, owner: Book) -> None:
        self.owner = owner
        self.seen = owner.version

    def write(self, writer: Any, before: Any) -> Any:
        self.owner.calls.append("write")
        self.owner.before.append(before)
        if self.owner.changes:
            self.owner.changes -= 1
            self.owner.version += 1
        if self.owner.version != self.seen:
            raise ChangedError("page 7 changed while it was read.")
        return writer.root(writer.value({"version": self.seen, "text": self.owner.text}))

    def close(self) -> None:
        self.owner.calls.append("close")


class Book:
    """A component whose capture is a snapshot; it changes under it so many times."""

    kind = "book"

    def __init__(self, name: str, *, changes: int = 0, text: str = "once") -> None:
        self.name, self.changes, self.text = name, changes, text
        self.version = 1
        self.calls: list[str] = []
        self.before: list[Any] = []

    def capture(self) -> Page:
        self.calls.append("capture")
        return Page(self)

    def commit(self) -> None:
        self.calls.append("commit")

    def restore(self, payload: Any) -> None:
        self.version, self.text = payload["version"], payload["text"]
