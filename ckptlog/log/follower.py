"""The follower: carries one consumer along the log, from where it stands, and waits for more.

What it promises (tests: tests/log/test_follower.py, test_follower_model.py):

* It delivers every durable event from its cursor on, in order, none twice in one pass, none
  skipped; and nothing beyond the published end, so no event that a power cut could take back.
* The cursor moves over a commit when its taker comes back for more: who fails in the middle, or
  stops, meets the same commit again. Who wants to keep the cursor of the commit in hand takes
  `after_commit`.
* Before it reads on it compares the leaf hash of the event before the cursor with the log's. A
  cursor of another history (a store restored from a backup, then written on) is refused with
  `log.other_timeline`, never silently moved.
* A wake-up is a hint: it may come too early, too late, or never. What counts is the published
  end, looked at again at least every `poll_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckptlog.errors import LogCorruptionError, OtherTimelineError
from ckptlog.formats.end import End
from ckptlog.log.published import PublishedEnd
from ckptlog.log.reader import LogReader
from ckptlog.model.cursor import BEGINNING, Cursor, after_commit
from ckptlog.model.entry import Commit
from ckptlog.storage.environment import Environment

POLL_S = 0.05

WakeUp = Callable[[float], object]
"""Waits up to so many seconds; may return earlier when something seems to have changed.

What changed between the caller's look and this call must make it return at once.
"""


class Follower:
    """Reads one store's log on behalf of one consumer.

    Args:
        reader, published: Of the log that is followed.
        cursor: Where the consumer stands; it may lie inside a commit.
        wake_up: Ends waits early; without one, waiting sleeps.
        poll_s: Longest time between two looks at the published end, seconds.

    Threads: one at a time; reader and published end may be shared.
    """

    def __init__(
        self,
        reader: LogReader,
        published: PublishedEnd,
        cursor: Cursor = BEGINNING,
        *,
        environment: Environment | None = None,
        wake_up: WakeUp | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._reader = reader
        self._published = published
        self._environment = environment or Environment()
        self._wake_up = wake_up or self._environment.sleep
        self._poll_s = poll_s
        self.cursor = cursor

    def commits(self, stop: End | None = None) -> Iterator[Commit]:
        """Yield what is durable now, from the cursor on; move the cursor behind each commit taken.

        The first one is the rest of a commit where the cursor lies inside.

        Args:
            stop: The end to read up to; the published one by default.

        Raises:
            OtherTimelineError: The cursor does not belong to this log's past.
            LogCorruptionError: A durable commit is damaged, or the published end is missing.

        Durability: only what is durable is shown.
        Cost: one short read to compare the cursor; nothing where there is nothing new.
        """
        end = stop or self._published.read()
        if end is None:
            raise LogCorruptionError(
                "The published end of the log is missing or damaged.",
                hint="Open the store for writing once; that rebuilds it.",
            )
        for commit in self._from_cursor(end):
            yield commit
            self.cursor = after_commit(commit)

    def _from_cursor(self, end: End) -> Iterator[Commit]:
        """Return the commits from the cursor's place up to an end; the first may be a rest."""
        start = self.cursor
        near = self._reader.resume(start, end)
        if near is not None:
            return near
        if start.position < end.position or not start.container:
            # A cursor without a place learns it, so that it is found quickly later.
            self.cursor = start = confirm(self._reader, start, end)
        if not self._is_before(end):
            return iter(())
        return self._reader.commits(start.container, start.offset, start.position, stop=end)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for durable events from the cursor on; say whether there are any.

        Args:
            timeout_s: Longest wait in seconds; None waits for ever, 0 only looks.

        Raises:
            OtherTimelineError: The log has become another one, or a shorter one.
        """
        clock = self._environment.monotonic_s
        deadline_s = None if timeout_s is None else clock() + timeout_s
        while not self.is_behind():
            left_s = self._poll_s if deadline_s is None else deadline_s - clock()
            if left_s <= 0:
                return False
            self._wake_up(min(left_s, self._poll_s))
        return True

    def is_behind(self) -> bool:
        """Say whether durable events are there from the cursor on.

        An end that cannot be read says nothing: whoever writes next makes it anew.
        """
        end = self._published.read()
        return end is not None and self._is_before(end)

    def _is_before(self, end: End) -> bool:
        """Say whether the cursor lies before an end, having refused one of another history."""
        cursor = self.cursor
        if cursor.position < end.position:
            return True
        _refuse_other_end(self._reader, cursor, end)
        return False

    @property
    def lag(self) -> int:
        """Durable events that the cursor has not passed."""
        end = self._published.read()
        return 0 if end is None else max(0, end.position - self.cursor.position)


def confirm(reader: LogReader, cursor: Cursor, end: End) -> Cursor:
    """Return a cursor with its true place, having compared its leaf hash with the log's.

    One beyond the end is returned as it is. So is one before which the log is damaged: it cannot
    be compared, and damage stops nobody who has passed it.

    Raises:
        OtherTimelineError: Another event stands before it.
        LogCorruptionError: The log is damaged, and only reading it would tell the place.
    """
    if cursor.position > end.position:
        return cursor
    try:
        own = reader.locate(cursor.position, cursor, stop=end)
    except LogCorruptionError:
        if cursor.container:
            return cursor
        raise
    if own.leaf != cursor.leaf:
        raise _other(cursor, "another event stands before it")
    return own


def check_past(reader: LogReader, cursor: Cursor, end: End) -> None:
    """Refuse a cursor that is not of this log's past, as following from it would.

    Raises:
        OtherTimelineError: Another event stands before it, or there is none.
        LogCorruptionError: The log is damaged, and only reading it would tell the place.

    Cost: a read or two, where the cursor's place is right; else its segment is read.
    """
    _refuse_other_end(reader, confirm(reader, cursor, end), end)


def _refuse_other_end(reader: LogReader, cursor: Cursor, end: End) -> None:
    """Refuse a cursor beyond the end, or at it, that is of another history."""
    if cursor.position > end.position and not reader.places.holds(cursor):
        raise _other(cursor, f"the log has {end.position} events")
    # Else a power cut has left an old end, which is never synced: the next writer finds the
    # events behind it, and until then there is nothing to deliver.
    if cursor.position == end.position and cursor.leaf != end.leaf:
        raise _other(cursor, "another event stands before it")


def _other(cursor: Cursor, reason: str) -> OtherTimelineError:
    return OtherTimelineError(
        f"A consumer has read up to position {cursor.position} of another history: {reason}.",
        hint="The store was replaced, probably from a backup. Begin anew from a position that "
        "you choose; the beginning misses nothing.",
        position=cursor.position,
    )
