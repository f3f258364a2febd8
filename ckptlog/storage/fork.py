"""What a forked child makes anew.

Theory. A fork copies the memory and one thread, the one that forks. What the others were in the
middle of stays so in the child for ever: a lock that one of them held is never given back, and what
it guards may be half changed. A server that forks its workers beside threads of ours (a service, a
monitor) meets that sooner or later. So:

    counters, and names that are only put in or taken out    a free lock will do
    what is read on from a position, or has threads, files   its owner begins anew

What the forking thread itself has locked it gives back in the child, too: it has the old lock in
hand, and an attribute that is set to another one does not disturb that.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from threading import Event, Lock, RLock
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

_Reentrant = type(RLock())


class Renewable(Protocol):
    """What begins anew in a forked child."""

    def renew_in_child(self) -> None:
        """Make all that is one process's own anew; called before the fork returns, once for each.

        It must not raise, nor wait for anything.
        """


_locks: WeakKeyDictionary[Hashable, tuple[str, ...]] = WeakKeyDictionary()
_owners: WeakSet[Renewable] = WeakSet()


def free_in_child(owner: Hashable, *names: str) -> None:
    """Let these attributes, each a Lock, RLock or Event, be a free one in every forked child.

    Args:
        owner: An object, a class or a module; it is not kept alive.

    Threads: safe.
    """
    _locks[owner] = names


def renewed_in_child(owner: Renewable) -> None:
    """Let an object begin anew in every forked child, when the locks are free; as above."""
    _owners.add(owner)


def _renew() -> None:
    for owner, names in list(_locks.items()):
        for name in names:
            setattr(owner, name, _like(getattr(owner, name)))
    for one in list(_owners):
        one.renew_in_child()


def _like(one: Any) -> Any:
    if isinstance(one, Event):  # it has a lock inside
        event = Event()
        if one.is_set():
            event.set()
        return event
    return RLock() if isinstance(one, _Reentrant) else Lock()


os.register_at_fork(after_in_child=_renew)
