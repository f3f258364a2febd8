"""Opens the subscriptions of one store in one process, and ends them with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from ckptlog.errors import ArgumentError, LogCorruptionError, ReadOnlyError
from ckptlog.log.follower import check_past
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.storage.environment import Environment
from ckptlog.storage.fork import free_in_child
from ckptlog.watch.consumer import FOLDER, Consumer, ConsumerList, cursor_path, list_consumers
from ckptlog.watch.filter import EventFilter, predicate
from ckptlog.watch.hint import LogHint
from ckptlog.watch.option import Options, check_options
from ckptlog.watch.source import Source
from ckptlog.watch.start import Start, check_start, resolve
from ckptlog.watch.subscription import Subscription

# Commands of ours that have not come by yet. They go when every relay has told them; refused ones
# never come by, so there is an end to how many are kept (some 100 MB).
_OWN_MAX = 1_000_000


class Watcher:
    """What a store knows of its consumers.

    Threads: safe.
    """

    def __init__(
        self, root: Path, store_id: bytes, environment: Environment, *, read_only: bool
    ) -> None:
        self._root = root
        self._read_only = read_only
        self._hint = LogHint(root / "log", environment)
        self._source = Source(root, store_id, environment, self._hint)
        self._lock = Lock()
        free_in_child(self, "_lock")  # endings are taken back there, too
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._endings: list[Callable[[], None]] = []
        # Command -> relays that have not told its event yet.
        self._own: OrderedDict[str, int] | None = None
        self._relays = 0

    def open(self, name: str | None, given: dict[str, Any]) -> Subscription:
        """Return a subscription (see `Store.watch`)."""
        words = {key: given.pop(key) for key in EventFilter.__struct_fields__ if key in given}
        accepts = predicate(EventFilter(**words))
        options = check_options(**given)
        consumer = None if name is None else self._hold(name, options)
        try:
            cursor = self._begin(consumer, options)
            ear = self._hint.listen(uses_watcher=options.watcher)
            subscription = Subscription(
                self._source,
                options,
                consumer=consumer,
                cursor=cursor,
                accepts=accepts,
                ear=ear,
            )
        except BaseException:
            if consumer is not None:
                consumer.close()
            raise
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    def notify(self) -> None:
        """Tell the subscriptions of this process that something was committed."""
        self._hint.notify()

    def remember_own(self) -> None:
        """From now on, know which events this process commits: a relay asks (`is_own`)."""
        with self._lock:
            self._own = OrderedDict() if self._own is None else self._own
            self._relays += 1

    def forget_own(self) -> None:
        """A relay that asked is gone."""
        with self._lock:
            self._relays -= 1
            if self._relays == 0:
                self._own = None

    def told(self, event_id: str) -> None:
        """A relay is done with an event of ours."""
        with self._lock:
            if self._own is None or event_id not in self._own:
                return
            self._own[event_id] -= 1
            if self._own[event_id] <= 0:
                del self._own[event_id]

    def expect(self, commands: Iterable[str]) -> None:
        """Take note of commands that this process is about to commit."""
        if self._own is not None:
            with self._lock:
                self._own.update(dict.fromkeys(commands, self._relays))
                while len(self._own) > _OWN_MAX:
                    self._own.popitem(last=False)

    def is_own(self, event_id: str) -> bool:
        """Say whether this process committed an event, by the id of its command."""
        own = self._own
        # A creation that is active at once makes a second event, of the same command: its id with
        # a blank behind it (policy/decide.py).
        return own is not None and (event_id in own or event_id.rstrip(" ") in own)

    def at_close(self, ending: Callable[[], None]) -> Callable[[], None]:
        """Call something before the subscriptions end; return what takes that back."""
        with self._lock:
            self._endings.append(ending)

        def forget() -> None:
            with self._lock, suppress(ValueError):
                self._endings.remove(ending)

        return forget

    def consumers(self, folder: Path | None = None) -> ConsumerList:
        """Return what is known of every consumer, by name."""
        opened = self._source.open_log()
        try:
            end = opened.published.read()

            def check(cursor: Cursor) -> None:
                if end is not None:
                    check_past(opened.reader, cursor, end)

            place, position = folder or self._root / FOLDER, end.position if end else 0
            return list_consumers(place, self._source.store_id, position, check)
        finally:
            opened.close()

    def reset(self, name: str, start: Start, folder: Path | None = None) -> int:
        """Move a consumer to where `start` says, whatever its cursor was; return the position.

        Raises:
            ConsumerBusyError: It is at work.
        """
        check_start(start)
        consumer = self._hold(name, Options(cursors=folder))
        try:
            cursor = self._resolve(start)
            consumer.begin_anew()
            consumer.save(cursor)
        finally:
            consumer.close()
        return cursor.position

    def remove(self, name: str, folder: Path | None = None) -> bool:
        """Forget a consumer; say whether there was one.

        Raises:
            ConsumerBusyError: It is at work.
        """
        place = folder or self._root / FOLDER
        if not cursor_path(place, name).exists():
            return False
        self._hold(name, Options(cursors=folder)).remove()
        return True

    def close(self) -> None:
        """End every subscription, with its acknowledgements durable."""
        with self._lock:
            endings = list(self._endings)
        for ending in endings:
            ending()
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.close()
        self._hint.close()

    def _hold(self, name: str, options: Options) -> Consumer:
        if self._read_only and options.cursors is None:
            raise ReadOnlyError(
                f"The store {self._root} is open for reading only; a consumer's cursor is written.",
                hint="Keep it elsewhere (cursors=FOLDER, --cursors), or watch without a name.",
                path=str(self._root),
            )
        try:
            folder = Path(options.cursors).absolute() if options.cursors else self._root / FOLDER
        except TypeError as error:
            raise ArgumentError(f"cursors: {error}", argument="cursors") from error
        return Consumer(
            folder,
            name,
            self._source.store_id,
            self._source.environment,
            busy_timeout_s=options.busy_timeout_s,
        )

    def _begin(self, consumer: Consumer | None, options: Options) -> Cursor:
        """Return the cursor to begin at, durable before anything is delivered."""
        if consumer is not None and not options.reset:
            cursor = consumer.load()
            if cursor is not None:
                return cursor
        cursor = self._resolve(options.start)
        if consumer is not None:
            consumer.begin_anew()
            consumer.save(cursor)
        return cursor

    def _resolve(self, start: Start) -> Cursor:
        if start == "beginning":
            return BEGINNING
        opened = self._source.open_log()
        try:
            end = opened.published.read()
            if end is None:
                raise LogCorruptionError(
                    "The published end of the log is missing or damaged.",
                    hint="Open the store for writing once; that rebuilds it.",
                )
            return resolve(opened.reader, end, start)
        finally:
            opened.close()
