"""Which captures stay, and the room of those that went.

A capture goes if it is beyond the newest `count_max`, or older than the age. One stays whatever its
age if it is pinned or has the tag `keep` (it does not count either), or is the newest good one: of
those that are completed, the digest is that of its components and, as the settings ask, a sample
or all of the bytes were just read again. Before that nothing goes: what could be gone back to must
not be deleted for the sake of what cannot. So where none is good, none goes.

Deletions go the one write path, under the service's lease; on a full disk they use the store's
reserve. Room comes back by a compaction, in a thread of its own: captures go on beside it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import CheckpointError, CheckpointNotFoundError
from ckptlog.manager.fact import is_pinned
from ckptlog.manager.lease import Lease
from ckptlog.model.capture import CaptureInfo, digest_of
from ckptlog.views.query import Filter

KEEP_TAG: Final = "keep"
DIGEST: Final = "digest"
SAMPLE: Final = "sample"
FULL: Final = "full"
# Of each component. A damaged tenth of the bytes escapes one time in 850.
_SAMPLE: Final = 64
_PAGE_ROWS: Final = 500
_JOIN_S: Final = 10.0

_logger = logging.getLogger("ckptlog.service")


class _StoppedError(Exception):
    """The service stops while its store is compacted."""


def doomed(
    captures: Sequence[CaptureInfo],
    *,
    count_max: int,
    before: datetime | None,
    pinned: Collection[str] = (),
    good: str | None = None,
) -> list[CaptureInfo]:
    """Return which captures go, the oldest first. Pure.

    Args:
        captures: Newest first.
        count_max: 0: any number.
        before: What was taken earlier goes; None: nothing by its age.
        pinned: Ids of those that stay.
        good: Id of the newest good one; by digests alone where it is not given.
    """
    if good is None:
        good = next((one.id for one in captures if digest_of(one.components) == one.digest), None)
    loose = [one for one in captures if one.id not in pinned and KEEP_TAG not in one.tags]
    going = [
        one
        for rank, one in enumerate(loose)
        if (count_max and rank >= count_max) or (before is not None and one.created_at < before)
    ]
    return [one for one in reversed(going) if one.id != good]


class Keeper:
    """Deletes what need not stay, and compacts.

    Args:
        interval_s: Least time between two compactions; 0: none.
        check: How a capture is found good: DIGEST, SAMPLE or FULL.
        on_fault: Told, once, of each capture that is not, and why.

    Threads: `keep` in one at a time.
    """

    def __init__(
        self,
        capturer: Capturer,
        *,
        count_max: int,
        age_days_max: float,
        interval_s: float,
        check: str = SAMPLE,
        on_fault: Callable[[CaptureInfo, str], None] = lambda _info, _fault: None,
    ) -> None:
        self._capturer = capturer
        self._manager = capturer.manager
        self._count_max = count_max
        self._age_days_max = age_days_max
        self._interval_s = interval_s
        self._check = check
        self._on_fault = on_fault
        self._faulty: set[str] = set()
        self._deleted = 0
        self._compacted_s: float | None = None
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def keep(self, lease: Lease | None, now: datetime) -> list[str]:
        """Delete what need not stay; return the ids.

        Raises:
            LeaseLostError, CheckpointStorageError: What was deleted before stays deleted.
        """
        if not self._count_max and not self._age_days_max:
            return []
        before = now - timedelta(days=self._age_days_max) if self._age_days_max else None
        captures = self._capturer.captures()
        gone = []
        if doomed(captures, count_max=self._count_max, before=before):
            pinned = set(self._pinned())
            good = self._good(captures)
            if good is None:
                return []
            for one in doomed(
                captures, count_max=self._count_max, before=before, pinned=pinned, good=good
            ):
                try:
                    if self._manager.delete_checkpoint(one.id, lease=lease):
                        gone.append(one.id)
                except CheckpointNotFoundError:  # somebody else was faster
                    continue
        self._deleted += len(gone)
        return gone

    def _good(self, captures: Sequence[CaptureInfo]) -> str | None:
        """Return the newest capture that a recovery can surely begin from; None where none is."""
        for info in captures:
            faults = self._faults(info)
            if not faults:
                self._faulty.discard(info.id)
                return info.id
            if info.id not in self._faulty:
                self._faulty.add(info.id)
                self._on_fault(info, faults[0])
        return None

    def _faults(self, info: CaptureInfo) -> list[str]:
        if self._check == DIGEST:
            is_good = digest_of(info.components) == info.digest
            return [] if is_good else [f"The digest of {info.id} is not that of its components."]
        return self._capturer.check(info, sample=_SAMPLE if self._check == SAMPLE else None)

    def _pinned(self) -> Iterator[str]:
        store, wanted, after = self._manager.store, Filter(task=self._capturer.system), None
        while rows := store.select(wanted, after=after, limit=_PAGE_ROWS):
            yield from (row.id for row in rows if is_pinned(store, row))
            after = rows[-1].origin

    def compact(
        self, now_s: float, told: Callable[[int], None], *, is_pressed: bool = False
    ) -> bool:
        """Give room back in the background if it is time; say whether that begins.

        Args:
            told: Called with the bytes that were freed, in that thread.
            is_pressed: Do not wait for the interval where something was deleted.
        """
        is_due = self._compacted_s is None or now_s - self._compacted_s >= self._interval_s
        is_at_work = self._thread is not None and self._thread.is_alive()
        if is_at_work or not self._interval_s or not self._deleted:
            return False
        if self._compacted_s is None and not is_pressed:
            self._compacted_s = now_s  # the first one an interval after the start
            return False
        if not is_due and not is_pressed:
            return False
        self._compacted_s, self._deleted = now_s, 0
        self._thread = threading.Thread(
            target=self._compact, args=(told,), name="ckptlog-compact", daemon=True
        )
        self._thread.start()
        return True

    def _compact(self, told: Callable[[int], None]) -> None:
        def look(_done: int, _total: int) -> None:
            if self._is_stopping:
                raise _StoppedError

        try:
            freed = self._manager.store.compact(None, look).bytes_freed
        except _StoppedError:
            return
        except CheckpointError as error:
            _logger.warning("A compaction failed: %s (%s)", error, error.code)
        else:
            told(freed)

    def stop(self) -> None:
        """End a compaction that is at work; what it has done so far is whole."""
        self._is_stopping = True
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_JOIN_S)
