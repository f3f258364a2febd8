"""What a forked child makes anew.

Theory. A fork copies the memory and one thread, the one that forks. What the others were in the
middle of stays so in the child for ever: a lock that one of them held is never given back, and what
it guards may be half changed. A server that forks its workers beside threads of ours (a service, a
monitor) meets that sooner or later. So:

    counters, and names that are only put in or taken out    a free lock will do
    what is read on from a position, or has threads, files   its owner begins anew
    what a foreign library holds locks in while it works     its owner is still while we fork

What the forking thread itself has locked it gives back in the child, too: it has the old lock in
hand, and an attribute that is set to another one does not disturb that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, RLock, local
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import ref

# A fork waits so long, at most, for all that shall be still.
STILL_S: Final = 0.5
_Reentrant = type(RLock())


class Renewable(Protocol):
    """What begins anew in a forked child."""

    def renew_in_child(self) -> None:
        """Make all that is one process's own anew; called before the fork returns, once for each.

        It must not raise, nor wait for anything.
        """


class Stillable(Protocol):
    """What nobody is at work in while the process forks, if that can be had."""

    def be_still(self, wait_s: float) -> bool:
        """Wait for whoever is at work, and let nobody begin; False where that takes too long."""

    def go_on(self) -> None:
        """Let others go on, in the parent; in the thread that it is still for."""


class _OfThread(local):
    """What one thread's forks go by."""

    def __init__(self) -> None:
        self.is_hasty = False
        self.still: list[Stillable] = []


Owner = TypeVar("Owner")


class _Register(Generic[Owner]):
    """Objects that it does not keep alive, each with names.

    By identity: two objects of a user's class may be equal, or have no hash.

    Threads: safe; each step is one of a dictionary's.
    """

    def __init__(self) -> None:
        self._lines: dict[int, tuple[ref[Owner], tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, owner: Owner, names: tuple[str, ...] = ()) -> None:
        key = id(owner)
        self._lines[key] = (ref(owner, lambda _: self._lines.pop(key, None)), names)

    def found(self) -> list[tuple[Owner, tuple[str, ...]]]:
        lines = list(self._lines.values())
        return [(one, names) for held, names in lines if (one := held()) is not None]


_of_thread = _OfThread()
_stillable: _Register[Stillable] = _Register()
_locks: _Register[object] = _Register()
_owners: _Register[Renewable] = _Register()


def free_in_child(owner: object, *names: str) -> None:
    """Let these attributes, each a Lock, RLock or Event, be a free one in every forked child.

    Args:
        owner: An object, a class or a module; it is not kept alive.

    Threads: safe.
    """
    _locks.add(owner, names)


def renewed_in_child(owner: Renewable) -> None:
    """Let an object begin anew in every forked child, when the locks are free; as above."""
    _owners.add(owner)


def still_in_fork(owner: Stillable) -> None:
    """Let an object be still whenever the process forks; as above."""
    _stillable.add(owner)


@contextmanager
def hasty() -> Iterator[None]:
    """Fork without waiting for anybody in a block: for a child that uses nothing of all that."""
    _of_thread.is_hasty = True
    try:
        yield
    finally:
        _of_thread.is_hasty = False


def _be_still() -> None:
    if _of_thread.is_hasty:
        return
    end_s = time.monotonic() + STILL_S
    for one, _ in _stillable.found():
        if one.be_still(max(0.0, end_s - time.monotonic())):
            _of_thread.still.append(one)


def _go_on() -> None:
    still, _of_thread.still = _of_thread.still, []
    for one in still:
        one.go_on()


def _renew() -> None:
    _of_thread.still = []
    for owner, names in _locks.found():
        for name in names:
            setattr(owner, name, _like(getattr(owner, name)))
    for one, _ in _owners.found():
        one.renew_in_child()


def _like(one: Any) -> Any:
    if isinstance(one, Event):  # it has a lock inside
        event = Event()
        if one.is_set():
            event.set()
        return event
    return RLock() if isinstance(one, _Reentrant) else Lock()


os.register_at_fork(before=_be_still, after_in_parent=_go_on, after_in_child=_renew)
