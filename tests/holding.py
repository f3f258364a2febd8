"""What is held while the process forks, and children that are forked then."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_WAIT_S = 10


@contextmanager
def all_locks_held() -> Iterator[list[str]]:
    """Have a thread hold every lock that hangs on an object, class or module of ckptlog.

    Yields the names. A lock that somebody holds already is as good.
    """
    found = {id(lock): (name, lock) for name, lock in _all()}
    are_held, may_go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held = [lock for _, lock in found.values() if lock.acquire(blocking=False)]
        are_held.set()
        may_go_on.wait(_WAIT_S)
        for lock in held:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    are_held.wait(_WAIT_S)
    try:
        yield sorted(name for name, _ in found.values())
    finally:
        may_go_on.set()
        thread.join()


@contextmanager
def living_child() -> Iterator[None]:
    """Fork a child that does nothing, and lives as long as the block."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def _all() -> Iterator[tuple[str, Any]]:
    for one in gc.get_objects():
        if isinstance(one, ModuleType | type):
            home = getattr(one, "__module__", None) or one.__name__
        else:
            home = type(one).__module__
        if not str(home).startswith("ckptlog"):
            continue
        slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in {*getattr(one, "__dict__", ()), *slots}:
            for lock in _locks_of(getattr(one, name, None)):
                yield f"{home}.{getattr(one, '__name__', type(one).__name__)}.{name}", lock


def _locks_of(value: object) -> Iterator[Any]:
    if isinstance(value, _LOCKS):
        yield value
    elif isinstance(value, threading.Condition):
        yield value._lock
    elif isinstance(value, threading.Event):
        yield value._cond._lock
