"""A subscription: a store's events in order, at least once, with a cursor that survives.

    log -> follower -> filter -> buffer (one commit) -> consumer -> ack -> cursor file

Three places in the log, in this order: *acknowledged* (what a restart goes on behind), *given*
(handed to the consumer), *read* (taken in by the follower). Only events between the first and the
third are in memory; with `auto_ack` one event at most is given and not acknowledged. Events that
the filter leaves out are acknowledged with the event before them, and by themselves where nothing
waits for an acknowledgement.

Locks: `_turn` is held while somebody takes the next event; `_lock` guards what is in flight and is
held for moments; `_saving` while the cursor is written. They are taken in this order.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from threading import Condition, Lock, RLock, get_ident
from threading import Event as Signal
from types import TracebackType
from typing import Self

from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointStorageError,
    LogCorruptionError,
    OtherTimelineError,
    StoreClosedError,
    UnacknowledgedError,
)
from ckptlog.log.follower import confirm
from ckptlog.model import html
from ckptlog.model.cursor import Cursor, after_commit
from ckptlog.model.entry import Commit, Entry
from ckptlog.storage.fork import renewed_in_child
from ckptlog.watch.aside import Aside
from ckptlog.watch.consumer import Consumer
from ckptlog.watch.event import WatchEvent
from ckptlog.watch.filter import Accepts
from ckptlog.watch.hint import Ear
from ckptlog.watch.option import Options
from ckptlog.watch.source import Source


class _Generation:
    """Counts the forks that led to this process; cheaper to look at than its id."""

    def __init__(self) -> None:
        self.number = 0
        renewed_in_child(self)

    def renew_in_child(self) -> None:
        """Count one more."""
        self.number += 1


_generation = _Generation()
# Cursors that moved only over events that were left out are written at most this often.
_PASSED_SAVE_S = 1.0


class Subscription:
    """Delivers events; made by `store.watch`. A context manager, an iterator, an async iterator.

    Threads: safe. Several threads or tasks may take events; each event goes to one of them. With
        a name and `auto_ack` only one may: asking for the next event acknowledges the one before.
    A forked child cannot use its parent's.
    """

    def __init__(
        self,
        source: Source,
        options: Options,
        *,
        consumer: Consumer | None,
        cursor: Cursor,
        accepts: Accepts | None,
        ear: Ear,
    ) -> None:
        self._source = source
        self._options = options
        self._consumer = consumer
        # Without a name nothing survives, so there is nothing to acknowledge by hand.
        self._is_automatic = options.auto_ack or consumer is None
        self._accepts = accepts
        self._ear = ear
        self._clock = source.environment.monotonic_s
        self._opened = source.open_log()
        self._follower = self._opened.follower(cursor, ear.wait, options.poll_s)
        self._reading: Iterator[Commit] | None = None
        self._buffer: deque[WatchEvent] = deque()
        self._in_flight: deque[WatchEvent] = deque()
        # Reentrant: what the filter calls may close us.
        self._turn = RLock()
        self._lock = Lock()
        self._free = Condition(self._lock)
        self._saving = Lock()
        self._aside = Aside()
        self._given: WatchEvent | None = None
        self._taker: object = None
        self._read = self._saved = cursor
        self._acknowledged: WatchEvent | Cursor = cursor
        self._is_ack_unsaved = False
        self._saved_at_s = self._due_s = self._asked_at_s = self._clock()
        self._is_finishing = False
        self._is_closed = False
        self._generation = _generation.number

    # --- taking -------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        self._begin()
        with self._turn:
            if self._is_automatic:
                self._acknowledge_given()
            while not self._buffer:
                if self._advance() is False:
                    raise StopIteration
            return self._give()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        from asyncio import get_running_loop

        self._begin()
        is_running, given_up = get_running_loop().is_running, Signal()
        step = partial(self._step, lambda: is_running() and not given_up.is_set())
        try:
            while True:
                if self._turn.acquire(blocking=False):
                    try:
                        if self._is_automatic:
                            self._acknowledge_given()
                        if self._buffer:
                            return self._give()
                    finally:
                        self._turn.release()
                if not await self._aside.run(step):
                    raise StopAsyncIteration
        finally:
            given_up.set()

    def _step(self, is_wanted: Callable[[], bool]) -> bool:
        """Read on, or wait, until an event is there; say whether there may be more.

        Who is cancelled, or whose event loop ends, leaves nothing behind but a buffer, and the
        thread within a poll.
        """
        with self._turn:
            while not self._buffer:
                if self._advance() is False:
                    return False
                if not is_wanted():
                    break
            return True

    def _begin(self) -> None:
        if _generation.number != self._generation:
            raise StoreClosedError(
                "This subscription belongs to the process that made it.",
                hint="Open the store and watch it in the child.",
            )
        if self._options.timeout_s is not None:
            self._asked_at_s = self._clock()

    def _give(self) -> WatchEvent:
        with self._lock:
            event = self._given = self._buffer.popleft()
        self._taker = _taker()
        return event

    def _acknowledge_given(self) -> None:
        """Acknowledge the event that was taken last; there is no other in flight."""
        given = self._given
        if given is not None:
            self._refuse_other_taker(given)
            self._given = None
            self._acknowledged = given if self._buffer else self._read
            self._is_ack_unsaved = True
            if self._consumer is not None and self._clock() >= self._due_s:
                self._save_when_due()

    def _refuse_other_taker(self, given: WatchEvent) -> None:
        """Refuse to take an event as done because somebody else asks for the next one."""
        if self._consumer is not None and self._taker != _taker():
            raise UnacknowledgedError(
                f"The event at position {given.position} may still be at work: another thread or "
                "task took it, and with auto_ack asking for the next one acknowledges it.",
                hint="Take events in one thread or task, or without auto_ack and with ack(event).",
                position=given.position,
            )

    def _advance(self) -> bool | None:
        """Read the next commit, or wait for one poll.

        Returns:
            True when there may be something in the buffer, None after a wait, False at the end
            of the iteration.

        Raises:
            OtherTimelineError, LogCorruptionError: The log is another, or damaged.
            UnacknowledgedError: Too much was taken and not acknowledged.
        """
        self._wait_for_room()
        if self._is_closed:
            return False
        if self._reading is None:
            self._reading = self._follower.commits()
        try:
            commit = next(self._reading, None)
            if commit is not None:
                self._take_in(commit)
                return True
        except BaseException as error:
            # Whatever it was (the filter is the user's): the same commit comes again.
            self._reading = None
            if isinstance(error, LogCorruptionError):
                self._refuse_replaced()
            raise
        self._reading = None
        return self._wait()

    def _take_in(self, commit: Commit) -> None:
        accepts, store_id = self._accepts, self._source.store_id.hex()
        events = [
            WatchEvent(entry, commit, index, store_id)
            for index, entry in enumerate(commit.entries)
            if accepts is None or accepts(entry)
        ]
        if self._is_closed:  # by what the filter called
            return
        with self._lock:
            if not self._is_automatic:
                self._in_flight.extend(events)
            self._read = after_commit(commit)
            if not events and not self._in_flight:
                self._acknowledged = self._read
            # Under the lock too: what is read and not in the buffer counts as given.
            self._buffer.extend(events)

    def _wait(self) -> bool | None:
        """Wait for one poll; False when the iteration shall end."""
        self._save_when_due()
        options = self._options
        if self._is_finishing or not options.follow:
            # What was committed since we began to read counts too.
            return None if self._follower.is_behind() else False
        wait_s, left_s = options.poll_s, math.inf
        if options.timeout_s is not None:
            left_s = self._asked_at_s + options.timeout_s - self._clock()
        if self._follower.wait(min(wait_s, max(0.0, left_s))):
            self._ear.calm()
            return None
        # The file may have been replaced; and what a network file system has cached of it goes.
        self._opened.published.close()
        return False if self._is_closed or left_s <= wait_s else None

    def _wait_for_room(self) -> None:
        """Let nobody take more than may be in flight."""
        limit = self._options.in_flight_max
        if len(self._in_flight) < limit:
            return
        with self._free:
            is_free = self._free.wait_for(
                lambda: len(self._in_flight) < limit or self._is_closed,
                self._options.ack_patience_s,
            )
            if is_free:
                return
            first = self._in_flight[0].position
        raise UnacknowledgedError(
            f"{limit} events from position {first} on were taken and not acknowledged.",
            hint="Call ack(event), take them with auto_ack=True, or raise in_flight_max.",
            position=first,
        )

    def _refuse_replaced(self) -> None:
        """Tell a store that was replaced under us from one that is damaged.

        Raises:
            OtherTimelineError: It was replaced.
        """
        fresh = self._source.open_log()
        try:
            end = fresh.published.read()
            if end is not None:
                confirm(fresh.reader, self._read, end)
        except OtherTimelineError:
            raise
        except CheckpointError:  # damaged, then; the caller tells how
            pass
        finally:
            fresh.close()

    # --- acknowledging ------------------------------------------------------------------------

    def ack(self, event: WatchEvent | Entry | int | None = None) -> None:
        """Acknowledge an event and everything before it; without one, everything given so far.

        Args:
            event: What was given, or its position.

        Raises:
            ArgumentError: It was not delivered yet.
            StoreClosedError: The subscription was closed; what it had not acknowledged comes again.
            CheckpointStorageError: The cursor could not be written; ack again.

        Durability: on the medium when it returns, unless `ack_interval_s` is above 0.
        """
        position = _position_of(event)
        if self._is_closed:
            raise StoreClosedError(
                "This subscription was closed; it acknowledges nothing any more.",
                hint="Events that were not acknowledged are delivered to its consumer again.",
            )
        with self._lock:
            last = self._last_given()
        if position is None:
            position = last
        elif position > last:
            raise ArgumentError(
                f"The event at position {position} was not delivered yet.",
                hint="Acknowledge events that were taken.",
                argument="event",
            )
        self._acknowledge(position)
        self._save_when_due()

    def _last_given(self) -> int:
        """Return the position of the last event that was handed out, or passed over before it."""
        if self._buffer:
            return self._buffer[0].position - 1
        return self._read.position - 1

    def _acknowledge(self, position: int) -> None:
        given = self._given
        if self._is_automatic:
            if given is not None and position >= given.position:
                self._acknowledged = given if self._buffer else self._read
                self._is_ack_unsaved = True
            return
        with self._free:
            last = None
            while self._in_flight and self._in_flight[0].position <= position:
                last = self._in_flight.popleft()
            if last is not None:
                self._acknowledged = last if self._in_flight else self._read
                self._is_ack_unsaved = True
                self._free.notify_all()

    def _save_when_due(self, *, is_forced: bool = False) -> None:
        if self._consumer is None:
            return
        with self._saving:
            acknowledged = self._acknowledged
            if _next_of(acknowledged) == self._saved.position:
                return
            interval_s = self._options.save_interval_s
            if not self._is_ack_unsaved:
                interval_s = max(interval_s, _PASSED_SAVE_S)
            if not is_forced and self._clock() - self._saved_at_s < interval_s:
                return
            cursor = acknowledged if isinstance(acknowledged, Cursor) else acknowledged.cursor
            self._is_ack_unsaved = False
            try:
                self._consumer.save(cursor)
            except BaseException:
                self._is_ack_unsaved = True
                raise
            self._saved, self._saved_at_s = cursor, self._clock()
            self._due_s = self._saved_at_s + self._options.save_interval_s

    @property
    def has_ready(self) -> bool:
        """Whether the next event is at hand, without reading on."""
        return bool(self._buffer)

    @property
    def position(self) -> int:
        """Of the first event that is not acknowledged, or would be next."""
        return _next_of(self._acknowledged)

    @property
    def lag(self) -> int:
        """Durable events that are not acknowledged; events that the filter leaves out count."""
        fresh = self._source.open_log()
        try:
            end = fresh.published.read()
        finally:
            fresh.close()
        return 0 if end is None else max(0, end.position - self.position)

    @property
    def consumer(self) -> str:
        """The consumer's name; empty where the cursor is kept in memory only."""
        return self._consumer.name if self._consumer else ""

    # --- the end ------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let whoever iterates have what is durable by now, and then come to an end."""
        self._is_finishing = True
        self._ear.hear()

    def close(self) -> None:
        """Make acknowledgements durable, let go of the name, end whoever iterates.

        Raises:
            CheckpointStorageError: The cursor could not be written; everything is closed anyway.
        """
        if self._announce_end():
            self._let_go()

    @property
    def _is_ours(self) -> bool:
        return _generation.number == self._generation

    def _announce_end(self) -> bool:
        """End every wait, and what is asked for from now on; say whether it was for us to do."""
        is_ours = self._is_ours
        with self._free if is_ours else nullcontext():
            if self._is_closed:
                return False
            self._is_closed = True
            if is_ours:
                self._free.notify_all()
        if is_ours:
            self._source.hint.forget(self._ear)
            self._ear.hear()
        return True

    def _let_go(self) -> None:
        is_ours = self._is_ours
        # Whoever waits for an event sees it within a poll. (A parent's thread never would.)
        with self._turn if is_ours else nullcontext():
            self._reading = None
            self._buffer.clear()
            try:
                if is_ours:
                    self._save_when_due(is_forced=True)
            finally:
                self._close_all(is_ours=is_ours)

    def _close_all(self, *, is_ours: bool) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._opened.close()
        if is_ours:  # a child has a copy of its thread's books, and no thread
            self._aside.close()

    def __del__(self) -> None:
        # Dropped without close: the name must not stay taken as long as the process lives.
        with suppress(Exception):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointStorageError:
            if error is None:
                raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._announce_end():
            return
        try:
            # In a thread, behind the step that is under way.
            await self._aside.run(self._let_go)
        except CheckpointStorageError:
            if error is None:
                raise

    def __repr__(self) -> str:
        name = f" {self.consumer!r}" if self.consumer else ""
        state = "closed" if self._is_closed else f"position {self.position}"
        return f"<Subscription{name} {state}>"

    def _repr_html_(self) -> str:
        """Show it in a notebook; nothing is read on for it, and nothing raised."""
        facts: dict[str, object] = {
            "consumer": self.consumer or None,
            "position": self.position,
            "ready": len(self._buffer),
            "not acknowledged": len(self._in_flight),
        }
        if self._is_closed or not self._is_ours:
            return html.card("Subscription (closed)", facts)
        try:
            facts["lag"] = self.lag
        except CheckpointError as error:
            facts["trouble"] = f"{error.code}: {error.message}"
        return html.card("Subscription", facts)


def _next_of(place: WatchEvent | Cursor) -> int:
    return place.position if isinstance(place, Cursor) else place.position + 1


def _taker() -> object:
    """Return who asks for an event: the running task, or else the thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs in this thread
            task = None
        if task is not None:
            return task
    return get_ident()


def _position_of(event: WatchEvent | Entry | int | None) -> int | None:
    if event is None or type(event) is int:
        return event
    if isinstance(event, WatchEvent | Entry):
        return event.position
    raise ArgumentError(f"{event!r} is no event and no position.", argument="event")
