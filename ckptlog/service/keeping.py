"""Which captures stay, and the room of those that went.

A capture goes if it is beyond the newest `count_max`, or older than the age. What recoveries saved
of the state before is counted apart: the newest `SAFETY_MAX` of them stay besides, so that who
recovers again and again does not push out what he goes back to. One stays whatever its age if it is
pinned or has the tag `keep` (it does not count either), or is the newest good one: of those that
are completed, the digest is that of its components and, as the settings ask, a sample or all of the
bytes were just read again. Before that nothing goes: what could be gone back to must not be deleted
for the sake of what cannot. So where none is good, none goes.

Deletions go the one write path, under the service's lease; on a full disk they use the store's
reserve. Room comes back by a compaction, in a thread of its own: captures go on beside it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from ckptlog.capture.capturer import Capturer
from ckptlog.capture.roll import Line, Roll
from ckptlog.errors import CheckpointError, CheckpointNotFoundError
from ckptlog.manager.lease import Lease
from ckptlog.model.capture import CaptureInfo, digest_of
from ckptlog.model.checkpoint import time_text
from ckptlog.storage.thread import is_begun

DIGEST: Final = "digest"
SAMPLE: Final = "sample"
FULL: Final = "full"
# Of each component. A damaged tenth of the bytes escapes one time in 850.
_SAMPLE: Final = 64
# Captures that recoveries took of the state before: so many stay besides the others.
SAFETY_MAX: Final = 3
_JOIN_S: Final = 10.0

_logger = logging.getLogger("ckptlog.service")


class _StoppedError(Exception):
    """The service stops while its store is compacted."""


def doomed(
    loose: Collection[Line],
    safety: Collection[Line],
    *,
    count_max: int,
    before: datetime | None,
    good: str | None = None,
) -> list[Line]:
    """Return which captures go, the oldest first. Pure.

    Args:
        loose, safety: Captures that nothing keeps, the oldest first: ordinary ones, and those
            that recoveries took of the state before.
        count_max: So many ordinary ones stay; 0: any number.
        before: What was taken earlier goes; None: nothing by its age.
        good: Id of the one that stays, because it is the newest good one.
    """
    going: dict[str | None, Line] = {}
    if count_max:
        going.update(_first(loose, len(loose) - count_max))
        going.update(_first(safety, len(safety) - SAFETY_MAX))
    if before is not None:
        text = time_text(before)
        for some in (loose, safety):
            going.update((one.id, one) for one in some if one.created < text)
    going.pop(good, None)
    return sorted(going.values(), key=lambda one: one.created)


def _first(lines: Collection[Line], count: int) -> Iterable[tuple[str, Line]]:
    return ((one.id, one) for one in islice(lines, max(0, count)))


class Keeper:
    """Deletes what need not stay, and compacts.

    Args:
        interval_s: Least time between two compactions; 0: none.
        check: How a capture is found good: DIGEST, SAMPLE or FULL.
        on_fault: Told, once, of each capture that is not, and why.

    Attributes:
        roll: Of the system's captures.

    Threads: `keep` in one at a time. Cost: of `keep`, that of what happened since, and of what is
        deleted; with an age some 40 ns for each capture that is there.
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
        self.roll = Roll(capturer.manager.store, capturer.system)
        self._manager = capturer.manager
        self._count_max = count_max
        self._age_days_max = age_days_max
        self._interval_s = interval_s
        self._check = check
        self._on_fault = on_fault
        self._faulty: set[str] = set()
        self._deleted = 0
        self._compacted_s: float | None = None
        self._stopping = threading.Event()  # of the compaction at work
        self._thread: threading.Thread | None = None

    def keep(self, lease: Lease | None, now: datetime) -> list[str]:
        """Delete what need not stay; return the ids.

        Raises:
            LeaseLostError, CheckpointStorageError: What was deleted before stays deleted; its ids
                stand in the error's context, as `deleted`.
        """
        if not self._count_max and not self._age_days_max:
            return []
        self.roll.follow()
        gone: list[str] = []
        if going := self._doomed(now, None):
            good = self._good()
            if good is None:
                return []
            going = self._doomed(now, good)
        try:
            for one in going:
                with suppress(CheckpointNotFoundError):  # somebody else was faster
                    if self._manager.delete_checkpoint(one.id, lease=lease):
                        gone.append(one.id)
        except CheckpointError as error:
            error.context["deleted"] = gone
            raise
        finally:
            self._deleted += len(gone)
        return gone

    def _doomed(self, now: datetime, good: str | None) -> list[Line]:
        return doomed(
            self.roll.loose.values(),
            self.roll.safety.values(),
            count_max=self._count_max,
            before=now - timedelta(days=self._age_days_max) if self._age_days_max else None,
            good=good,
        )

    def _good(self) -> str | None:
        """Return the newest capture that a recovery can surely begin from; None where none is.

        One that a recovery took of the state before counts only where no other is good.
        """
        for name in self.roll.newest_first():
            try:
                info = self._capturer.find(name)
            except CheckpointNotFoundError:  # somebody deletes beside us
                continue
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
        stopping = threading.Event()
        thread = threading.Thread(
            target=self._compact, args=(told, stopping), name="ckptlog-compact", daemon=True
        )
        if not is_begun(thread):  # a later call begins it
            return False
        self._compacted_s, self._deleted = now_s, 0
        self._stopping, self._thread = stopping, thread
        return True

    def _compact(self, told: Callable[[int], None], stopping: threading.Event) -> None:
        def look(_done: int, _total: int) -> None:
            if stopping.is_set():
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
        """End a compaction that is at work; what it did is whole. Later ones may come."""
        self._stopping.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_JOIN_S)
