"""The course of one recovery: what is restored, how far it has come, and whether it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ckptlog.errors import RecoveryCancelledError
from ckptlog.manager.unfinished import Unfinished
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import Traits
from ckptlog.recovery import progress as stage
from ckptlog.recovery.progress import Tracker
from ckptlog.recovery.retry import Backoff
from ckptlog.recovery.target import Target

_POLL_S: Final = 0.05


@dataclass(frozen=True)
class Settings:
    """lease: Or None. backoff: Of retries. deadline_s: Of one call of a component.

    parts_deadline_s: The same, of a component that reads its payload by parts.
    """

    lease: Any
    backoff: Backoff
    deadline_s: float
    parts_deadline_s: float

    def deadline_of(self, traits: Traits) -> float:
        """Return how long a call of a component may take."""
        return self.parts_deadline_s if traits.reads_parts else self.deadline_s


class CancelledError(Exception):
    """Somebody asked to stop."""


class Course:
    """Where one recovery stands.

    Args:
        tracker: Is told of each step.
        cancel: Asked whether to stop; None: never.

    Attributes:
        targets: What is restored, in order.
        info: The capture that is restored. safety: The one that was taken before.
        is_whole: Whether all of the capture is restored.
        record: What the log says of it; its id is "" before it has begun.
        is_rolling_back: From then on nothing stops it.

    Threads: one; `watch` also in that of a component.
    """

    def __init__(self, tracker: Tracker, cancel: Any) -> None:
        self.tracker = tracker
        self.targets: list[Target] = []
        self.info: CaptureInfo | None = None
        self.safety: CaptureInfo | None = None
        self.is_whole = False
        self.is_rolling_back = False
        self.record = Unfinished("", -1, "", "", None)
        self._cancel = cancel
        self._base = self._read = self._limit = 0

    @property
    def given(self) -> CaptureInfo:
        """The capture, once it is known."""
        assert self.info is not None  # noqa: S101 - nobody asks before it is chosen
        return self.info

    def take_over(self, found: Unfinished) -> None:
        """Go on with what an unfinished recovery did."""
        self.record.touched = list(found.touched)
        self.record.missing, self.record.held = found.missing, found.held

    def entered(self, target: Target) -> None:
        """A component is restored now."""
        self._read, self._limit = 0, target.info.size
        self.tracker.to(component=target.name, bytes=self._base)

    def left(self, target: Target) -> None:
        """A component was restored."""
        self._base += target.info.size
        restored = (*self.tracker.now.restored, target.name)
        self._limit = 0
        self.tracker.to(bytes=self._base, component="", restored=restored)

    def attempted(self) -> None:
        """A component begins to read its payload, perhaps again."""
        self._read = 0

    def watch(self, size: int) -> None:
        """A component reads so many bytes of its payload.

        Raises: As `check_cancelled`.
        """
        if self.tracker.now.status != stage.RESTORING:
            return
        self.check_cancelled()
        self._read = min(self._read + size, self._limit)
        self.tracker.to(bytes=self._base + self._read)

    def check_cancelled(self) -> None:
        """Stop where somebody asked for it.

        Raises:
            RecoveryCancelledError: Before anything was touched; CancelledError: afterwards.
        """
        if self._cancel is None or self.is_rolling_back or not self._cancel.is_set():
            return
        if self.record.id:
            raise CancelledError("It was cancelled.")
        raise RecoveryCancelledError(
            "The recovery was cancelled; nothing was touched.", rolled_back=True
        )

    def wait(self, seconds: float, sleep: Callable[[float], object]) -> None:
        """Wait, unless it is cancelled.

        Raises: As `check_cancelled`.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check_cancelled()
            sleep(min(left, _POLL_S))
