"""Queues as components: asyncio.Queue (in its loop's thread) and queue.Queue (under its lock).

Kept: items in their order, and the limit. Decided: of the counter of unfinished tasks only what
lies in the queue is restored. An item that a worker had in hand was taken out before the capture
and is not in it; the worker that has it now still calls `task_done` for it, a worker of a dead
process never will. So after a restore

    unfinished = restored items + items that are in hand at this moment

and `join` returns when both are done: never too early, never never. How many were in hand at the
capture is no part of the payload: a crash leaves them in nobody's hand, and a program that never
calls `task_done` has ever more of them, so that no two captures would be alike.

Whoever waits takes restored items as soon as it may. So whether they all lie there is seen in the
same stretch in which they are put there, and `verify_restored` tells what was seen.

What is captured is what lies in the list or deque that a queue keeps its items in, and that is put
back there, past `put` and `get`: a class of its own may keep something else than it is given (a
number beside each item), and items that lie there need not be comparable with one another.

An asyncio.Queue does not show its content in public; so it is touched in its loop's thread, at the
attributes that its class documents for subclasses. A restore is one turn of the loop: all out, all
in, then `task_done` for those that were thrown away. Who waits in `get` is woken by the items, who
waits in `put` by the room, each in his turn.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ckptlog.capture.argument import number_of
from ckptlog.capture.loop_call import (
    LOOP_TIMEOUT_S,
    Loop,
    bound,
    call_in_loop,
    checked_loop,
    running_loop,
)
from ckptlog.capture.shape import Shape, refuse_faults
from ckptlog.errors import ComponentError, SourceError
from ckptlog.model.quotation import quoted

AnyQueue = queue.Queue[Any] | asyncio.Queue[Any]

_ORDERS: Final[dict[type, str]] = {
    asyncio.PriorityQueue: "priority",
    asyncio.LifoQueue: "last",
    asyncio.Queue: "first",
    queue.PriorityQueue: "priority",
    queue.LifoQueue: "last",
    queue.Queue: "first",
}
_SHAPE: Final = Shape("queue-2", {"order": (str,), "limit": (int,), "items": (list,)})
# Of schema version 1: how many items were in hand, which no restore needs.
_FORMER: Final = Shape("queue-1", {**_SHAPE.keys, "in_hand": (int,)})


class QueueComponent:
    """What lies in a queue.Queue, LifoQueue or PriorityQueue of threads.

    Stability: "copied": the list of items is copied under the queue's lock; the items themselves
    are the program's and must not be changed while they lie in a queue.

    Threads: safe.
    """

    kind = "queue"
    schema_version = 2
    stability = "copied"

    def __init__(self, name: str, target: queue.Queue[Any]) -> None:
        """Make a component of a queue of threads.

        Raises:
            ComponentError: It is another kind of queue.
        """
        self.name = name
        self._queue = target
        self._order = _order_of(name, target, queue.Queue)
        self._faults: list[str] = []

    def capture(self) -> dict[str, Any]:
        """Return order, limit and items."""
        with self._queue.mutex:
            return _payload(self._order, self._queue, list(_content_of(self.name, self._queue)))

    def restore(self, payload: Any) -> None:
        """Put captured items in place of those that are there; wake who waits.

        Raises:
            ForeignPayloadError: The payload is not of such a queue; nothing was changed.
        """
        refuse_faults(self.name, self.validate(payload))
        target = self._queue
        with target.mutex:
            content = _content_of(self.name, target)
            in_hand = target.unfinished_tasks - len(content)
            content.clear()
            content.extend(payload["items"])
            self._faults = _lacking(payload["items"], content, self._order)
            target.unfinished_tasks = in_hand + len(payload["items"])
            target.not_empty.notify_all()
            target.not_full.notify_all()
            if not target.unfinished_tasks:
                target.all_tasks_done.notify_all()

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload for this queue."""
        return _faults(payload, self._order, self._queue.maxsize)

    def verify_restored(self) -> list[str]:
        """Return what was wrong when the last restore had put its items in."""
        return list(self._faults)

    def migrate(self, payload: Any, from_version: int) -> Any:
        """Return a payload of version 1 without what was in hand."""
        return _migrated(self.name, payload, from_version)


class AsyncQueueComponent:
    """What lies in an asyncio.Queue, LifoQueue or PriorityQueue.

    Stability: "copied": the list of items is copied in the loop's thread.

    Threads: safe; every touch of the queue happens in the loop's thread.
    """

    kind = "queue"
    schema_version = 2
    stability = "copied"

    def __init__(
        self,
        name: str,
        target: asyncio.Queue[Any],
        *,
        loop: Loop | None = None,
        timeout_s: float = LOOP_TIMEOUT_S,
    ) -> None:
        """Make a component of a queue of coroutines.

        Args:
            name: Of the component.
            target: The queue.
            loop: That uses the queue; the one that runs here, or else the one that the queue is
                bound to when it is captured. A queue of no running loop is touched directly.
            timeout_s: Seconds that the loop may take to answer.

        Raises:
            ComponentError: It is another kind of queue; loop is no loop.
        """
        self.name = name
        self._queue = target
        self._order = _order_of(name, target, asyncio.Queue)
        self._faults: list[str] = []
        self._loop = checked_loop(name, loop) or running_loop()
        self._timeout_s = number_of(name, "timeout_s", timeout_s)

    def bind_loop(self, loop: Loop) -> None:
        """Touch the queue in a loop, where none that could is known yet."""
        if self._its_loop() is None:
            self._loop = bound(self._loop, loop)

    def capture(self) -> dict[str, Any]:
        """Return order, limit and items.

        Raises:
            SourceBusyError: The loop did not answer in time.
        """
        return call_in_loop(self._its_loop(), self._read, name=self.name, timeout_s=self._timeout_s)

    def restore(self, payload: Any) -> None:
        """Put captured items in place of those that are there; wake who waits.

        Raises:
            ForeignPayloadError: The payload is not of such a queue; nothing was changed.
            SourceBusyError: The loop did not answer in time; nothing was changed.
        """
        refuse_faults(self.name, self.validate(payload))
        items = payload["items"]
        call_in_loop(
            self._its_loop(),
            lambda: self._replace(items),
            name=self.name,
            timeout_s=self._timeout_s,
        )

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload for this queue."""
        return _faults(payload, self._order, self._queue.maxsize)

    def verify_restored(self) -> list[str]:
        """Return what was wrong when the last restore had put its items in."""
        return list(self._faults)

    def migrate(self, payload: Any, from_version: int) -> Any:
        """Return a payload of version 1 without what was in hand."""
        return _migrated(self.name, payload, from_version)

    def _its_loop(self) -> Loop | None:
        return self._loop or vars(self._queue).get("_loop")

    def _read(self) -> dict[str, Any]:
        return _payload(self._order, self._queue, list(_content_of(self.name, self._queue)))

    def _replace(self, items: Sequence[Any]) -> None:
        """Exchange the items in one turn of the loop, so that no coroutine sees the middle."""
        target, content = self._queue, _content_of(self.name, self._queue)
        if vars(target).get("_is_shutdown"):  # since Python 3.13
            raise SourceError(
                f"The queue of the component {quoted(self.name)} was shut down.",
                hint="Restore into a new queue.",
                component=self.name,
            )
        thrown = len(content)
        content.clear()
        content.extend(items)
        self._faults = _lacking(items, content, self._order)
        inside = vars(target)
        inside["_unfinished_tasks"] += len(items)
        if items:
            inside["_finished"].clear()
        # Only now: were it done before, the count could pass zero and `join` return too early.
        for _ in range(thrown):
            target.task_done()
        _wake(inside["_getters"], len(items))
        _wake(inside["_putters"], target.maxsize - len(items))


def _wake(waiting: deque[asyncio.Future[None]], count: int) -> None:
    """Let those who wait longest go on, as the queue itself does it."""
    while waiting and count > 0:
        waiter = waiting.popleft()
        if not waiter.done():
            waiter.set_result(None)
            count -= 1


def _content_of(name: str, target: AnyQueue) -> list[Any] | deque[Any]:
    """Return what a queue keeps its items in; it is to be touched in one stretch."""
    content = vars(target).get("queue" if isinstance(target, queue.Queue) else "_queue")
    if isinstance(content, list | deque):
        return content
    raise SourceError(
        f"The queue of the component {quoted(name)}, a {type(target).__qualname__}, keeps its "
        "items where they cannot be read and put back.",
        hint="Let it keep them in a list or a deque, as those of the standard library do, or use "
        "CallableComponent.",
        component=name,
    )


def _order_of(name: str, target: Any, kind: type[AnyQueue]) -> str:
    """Return "first", "last" or "priority": which item a queue gives out next."""
    if not isinstance(target, kind):
        other = "AsyncQueueComponent" if isinstance(target, asyncio.Queue) else "QueueComponent"
        known = isinstance(target, queue.Queue | asyncio.Queue)
        raise ComponentError(
            f"What is given for the component {quoted(name)} is of type "
            f"{type(target).__qualname__}, not {kind.__module__}.{kind.__qualname__}.",
            hint=f"Use {other}."
            if known
            else "A SimpleQueue or a queue of processes does not show what lies in it: keep the "
            "items in a queue.Queue, or use CallableComponent.",
            component=name,
        )
    return next(order for known, order in _ORDERS.items() if isinstance(target, known))


def _payload(order: str, target: AnyQueue, items: list[Any]) -> dict[str, Any]:
    return {
        "form": _SHAPE.form,
        "order": order,
        "limit": max(target.maxsize, 0),
        "items": items,
    }


def _migrated(name: str, payload: Any, from_version: int) -> dict[str, Any]:
    if from_version != 1:
        raise ComponentError(
            f"The component {quoted(name)} knows no schema version {from_version} of a queue.",
            component=name,
        )
    refuse_faults(name, _FORMER.faults(payload))
    kept = {key: payload[key] for key in _SHAPE.keys}
    return {"form": _SHAPE.form, **kept}


def _lacking(wanted: Sequence[Any], found: Iterable[Any], order: str) -> list[str]:
    """Return what is wrong with the items that lie in a queue; the objects must be the same."""
    placed, there = [id(item) for item in wanted], [id(item) for item in found]
    if order == "priority":  # its items are in order when they are taken out
        placed.sort()
        there.sort()
    if placed == there:
        return []
    return [f"took {len(placed)} items and has {len(there)}, or others, or in another order"]


def _faults(payload: Any, order: str, limit: int) -> list[str]:
    faults = _SHAPE.faults(payload)
    if faults:
        return faults
    if payload["order"] != order:
        faults.append(f"is of a queue that gives {payload['order']!r} first; this one {order!r}")
    if 0 < limit < len(payload["items"]):
        faults.append(f"has {len(payload['items'])} items; the queue has room for {limit}")
    if payload["limit"] != max(limit, 0):
        faults.append(f"is of a queue with the limit {payload['limit']}; this one has {limit}")
    return faults
