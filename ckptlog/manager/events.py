"""CheckpointEvents: the specification's notifications, on a bus.

Two ways lead to the bus. `emit_*` publishes at once what the caller says. `follow` publishes what
the log says: a thread reads durable events, of this process or of all, in order, and publishes
each after its commit. So no callback ever runs under a lock, holds up a writer, or hears of
something that a crash takes back. Page: specs/consumers.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Thread, current_thread
from types import TracebackType
from typing import Any, ClassVar, Self

from ckptlog.errors import ArgumentError
from ckptlog.manager.reading import CheckpointReader
from ckptlog.model import event as kinds
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.repository.collected import told_apart
from ckptlog.repository.snapshot import build
from ckptlog.repository.store import Store
from ckptlog.watch.bus import CALLBACK_FAILED, Callback, EventBus, InProcessEventBus, call
from ckptlog.watch.event import WatchEvent
from ckptlog.watch.start import Start
from ckptlog.watch.subscription import Subscription

CLOSE_TIMEOUT_S = 10.0
_logger = logging.getLogger("ckptlog.events")


@dataclass(frozen=True)
class CheckpointEvent:
    """What a callback is given.

    type: `checkpoint.created`, ...; also the log's others (`checkpoint.deleted`, ...).
    position: In the log; -1 for one that was emitted and is no event of the log.
    time: UTC; None for one that was emitted.
    """

    type: str
    checkpoint_id: str
    task_id: str
    position: int = -1
    time: datetime | None = None
    actor: str = ""
    load: Callable[[], CheckpointData | None] = field(
        repr=False, compare=False, default=lambda: None
    )
    told: dict[str, Any] | None = field(repr=False, compare=False, default=None)

    @property
    def checkpoint(self) -> CheckpointData | None:
        """The checkpoint as of the event, read when it is asked for; None where there is none.

        Raises:
            CheckpointCorruptionError: Its stored bytes are damaged.
        """
        return self.load()

    @property
    def error_info(self) -> dict[str, Any] | None:
        """Why it failed; None unless it did."""
        if self.told is not None or self.type != kinds.FAILED:
            return self.told
        checkpoint = self.checkpoint
        return checkpoint.metadata.get("error_info") if checkpoint else None


class CheckpointEvents:
    """Publishes checkpoint events on a bus.

    Args:
        event_bus: Any `EventBus`; one of this process by default.

    Threads: safe, where the bus is.
    """

    CHECKPOINT_CREATED: ClassVar[str] = kinds.CREATED
    CHECKPOINT_UPDATED: ClassVar[str] = kinds.UPDATED
    CHECKPOINT_COMPLETED: ClassVar[str] = kinds.COMPLETED
    CHECKPOINT_FAILED: ClassVar[str] = kinds.FAILED
    CHECKPOINT_RESTORED: ClassVar[str] = kinds.RESTORED

    def __init__(self, event_bus: EventBus | None = None) -> None:
        self.event_bus: EventBus = InProcessEventBus() if event_bus is None else event_bus
        if not callable(getattr(self.event_bus, "publish", None)):
            raise ArgumentError(f"{event_bus!r} has no publish.", argument="event_bus")

    def on(self, event_type: str, callback: Callback) -> Callable[[], None]:
        """Call a function for each event of a type, `"*"` for all; return what ends that.

        Raises:
            ArgumentError: The bus takes no callbacks, or one of the arguments is wrong.
        """
        subscribe = getattr(self.event_bus, "subscribe", None)
        if subscribe is None:
            raise ArgumentError(
                f"{self.event_bus!r} takes no callbacks.",
                hint="Subscribe where its events arrive.",
            )
        end: Callable[[], None] = subscribe(event_type, callback)
        return end

    def emit_checkpoint_created(self, checkpoint: CheckpointData) -> None:
        """Publish that a checkpoint was created."""
        self._emit(self.CHECKPOINT_CREATED, checkpoint)

    def emit_checkpoint_updated(self, checkpoint: CheckpointData) -> None:
        """Publish that a checkpoint was changed."""
        self._emit(self.CHECKPOINT_UPDATED, checkpoint)

    def emit_checkpoint_completed(self, checkpoint: CheckpointData) -> None:
        """Publish that a checkpoint was completed."""
        self._emit(self.CHECKPOINT_COMPLETED, checkpoint)

    def emit_checkpoint_failed(
        self, checkpoint: CheckpointData, error_info: dict[str, Any]
    ) -> None:
        """Publish that a checkpoint failed, and why."""
        self._emit(self.CHECKPOINT_FAILED, checkpoint, error_info)

    def emit_checkpoint_restored(self, checkpoint: CheckpointData) -> None:
        """Publish that a checkpoint was restored."""
        self._emit(self.CHECKPOINT_RESTORED, checkpoint)

    def follow(
        self,
        source: Store | CheckpointReader,
        *,
        other_processes: bool = False,
        start: Start = "end",
        consumer: str | None = None,
    ) -> Relay:
        """Publish what is committed to a store, until the returned relay or the store is closed.

        Args:
            source: A store, or a manager of one.
            other_processes: Whether to publish what other processes commit too. With a consumer
                they always are: after a restart nobody can tell which events were this process's.
            start: Where to begin; see `Store.watch`.
            consumer: A name, for a relay that goes on after a restart where it ended.

        Raises:
            CheckpointError: See `Store.watch`.
        """
        store = source if isinstance(source, Store) else source.store
        takes_all = other_processes or consumer is not None
        return Relay(self.event_bus, store, takes_all, start, consumer)

    def _emit(
        self, kind: str, checkpoint: CheckpointData, error_info: dict[str, Any] | None = None
    ) -> None:
        if not isinstance(checkpoint, CheckpointData):
            raise ArgumentError(f"{checkpoint!r} is no CheckpointData.", argument="checkpoint")
        event = CheckpointEvent(
            kind,
            checkpoint.checkpoint_id,
            checkpoint.task_id,
            checkpoint.position,
            load=lambda: checkpoint,
            told=error_info,
        )
        call(partial(self.event_bus.publish, kind), kind, event)


class Relay:
    """A thread that publishes what the log says.

    Threads: safe.
    """

    def __init__(
        self,
        bus: EventBus,
        store: Store,
        other_processes: bool,  # noqa: FBT001 - made by `follow` only
        start: Start,
        consumer: str | None,
    ) -> None:
        self._bus = bus
        self._store = store
        self._watcher = store.watcher
        self._asks_own = not other_processes
        if self._asks_own:
            self._watcher.remember_own()
        where = self._is_own if self._asks_own else None
        try:
            self._subscription: Subscription = store.watch(
                consumer, start=start, where=where, auto_ack=True
            )
        except BaseException:
            self._let_go_of_own()
            raise
        self.error: BaseException | None = None
        self._forget = self._watcher.at_close(self.close)
        self._thread = Thread(target=self._run, name="ckptlog-events", daemon=True)
        self._thread.start()

    def _is_own(self, entry: Any) -> bool:
        return self._watcher.is_own(entry.event.id)

    def _run(self) -> None:
        try:
            for event in self._subscription:
                call(partial(self._bus.publish, event.type), event.type, self._told(event))
                if self._asks_own:
                    self._watcher.told(event.event.id)
        except BaseException as error:
            # Whatever it was: nobody must believe that events are still published.
            self.error = error
            code = getattr(error, "code", CALLBACK_FAILED)
            _logger.exception("Events are no longer published [%s]", code)

    def _let_go_of_own(self) -> None:
        if self._asks_own:
            self._asks_own = False
            self._watcher.forget_own()

    def _told(self, event: WatchEvent) -> CheckpointEvent:
        return CheckpointEvent(
            event.type,
            event.checkpoint,
            event.task,
            event.position,
            datetime.fromisoformat(event.time),
            event.event.actor,
            load=partial(self._load, event),
        )

    def _load(self, event: WatchEvent) -> CheckpointData | None:
        if event.type not in kinds.CHECKPOINT_TYPES or event.type == kinds.DELETED:
            return None
        store, fact = self._store, event.event
        store.catch_up()
        with told_apart(store, event.entry):
            data, meta = store.value(fact.data) or {}, store.value(fact.meta) or {}
        return build(event.entry, data, meta)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Publish what is committed by now, then end; a callback that hangs is not waited for.

        Called by the store's close too.
        """
        self._forget()
        self._subscription.finish()
        if current_thread() is not self._thread:
            self._thread.join(timeout_s)
        self._subscription.close()
        self._let_go_of_own()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
