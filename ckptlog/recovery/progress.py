"""What is known of a recovery while it goes on, and afterwards.

`RecoveryProgress` never changes: whoever holds one, in whatever thread, has one moment's picture.
The recovery itself draws the next picture through its Tracker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from ckptlog.model.checkpoint import time_text
from ckptlog.model.component import Plan
from ckptlog.storage.fork import free_in_child

PLANNING: Final = "planning"
VALIDATING: Final = "validating"
SAVING: Final = "saving"
RESTORING: Final = "restoring"
VERIFYING: Final = "verifying"
ROLLING_BACK: Final = "rolling_back"
PLANNED: Final = "planned"
COMPLETED: Final = "completed"
ROLLED_BACK: Final = "rolled_back"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
ABANDONED: Final = "abandoned"
ENDS: Final = frozenset({PLANNED, COMPLETED, ROLLED_BACK, FAILED, CANCELLED, ABANDONED})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecoveryProgress:
    """One moment of a recovery.

    status: planning, validating, saving, restoring, verifying, rolling_back; at the end planned
        (a dry run), completed, rolled_back, failed, cancelled or abandoned.
    percent: 0 to 100, of the bytes of all components; of a dry run 100 once there is a plan
        without errors.
    component: That is worked on; "" between them.
    errors: What went wrong, in words. warnings: What nothing is refused for, and one should know.
    bytes, bytes_total: Of payloads, restored and in all.
    eta_s: Seconds that are left at the pace so far; None while that is a guess.
    capture_id, safety_id: What is restored; what was there before ("" where there is none).
    recovery_id: Of its events. restored: Components, in order. unverified: Those of them whose
        state could not be compared afterwards.
    plans: Of a dry run, by component. estimated_s: Of a dry run; None where nothing was measured.
    rolled_back: Whether what was touched is what it was before.
    dry_run: Whether this is a dry run: nothing is changed, whatever the status.
    missing: Components that were not there before: the safety capture says just that of them.
    mixed: Of an abandoned one: components that may be half restored.
    """

    status: str = PLANNING
    percent: float = 0.0
    component: str = ""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    started_at: datetime | None = None
    finished_at: datetime | None = None
    bytes: int = 0
    bytes_total: int = 0
    eta_s: float | None = None
    system: str = ""
    capture_id: str = ""
    safety_id: str = ""
    recovery_id: str = ""
    components: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    plans: Mapping[str, Plan] = field(default_factory=dict)
    estimated_s: float | None = None
    rolled_back: bool = False
    dry_run: bool = False
    missing: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status in ENDS

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, JSON-safe."""
        plans = {
            name: {
                "summary": plan.summary,
                "bytes_read": plan.bytes_read,
                "changes": [
                    {"kind": one.kind, "path": one.path, "bytes": one.bytes} for one in plan.changes
                ],
            }
            for name, plan in self.plans.items()
        }
        times = {
            name: None if moment is None else time_text(moment)
            for name, moment in (("started_at", self.started_at), ("finished_at", self.finished_at))
        }
        lists = ("errors", "warnings", "components", "restored", "unverified", "missing", "mixed")
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            **{name: list(getattr(self, name)) for name in lists},
            **times,
            "plans": plans,
        }


class Tracker:
    """Draws the pictures of one recovery, and hands each to a callback.

    What a callback raises is logged, once, and goes no further: a bar must not undo a recovery.
    What is no Exception (KeyboardInterrupt) does, and undoes it; but from `hold` on it waits for
    `let_go`: nothing may stop a rollback.

    Threads: safe; the callback runs in the thread that made the step.
    """

    def __init__(self, callback: Callable[[RecoveryProgress], object] | None, **first: Any) -> None:
        self._callback = callback
        self._has_failed = False
        self._is_holding = False
        self._held: BaseException | None = None
        self._lock = threading.Lock()
        free_in_child(self, "_lock")
        self._begin_s: float | None = None
        self.now = RecoveryProgress(started_at=datetime.now(UTC), **first)
        self._tell()

    def to(self, **changes: Any) -> None:
        """Draw the next picture."""
        with self._lock:
            now = replace(self.now, **changes)
            if now.status == RESTORING and self._begin_s is None:
                self._begin_s = time.monotonic()
            if now.status in ENDS and now.finished_at is None:
                now = replace(now, finished_at=datetime.now(UTC), component="", eta_s=None)
            self.now = replace(now, percent=_percent(now), eta_s=self._eta_s(now))
        self._tell()

    def hold(self) -> None:
        """Let nothing that a callback raises through, until `let_go`."""
        self._is_holding = True

    def let_go(self) -> None:
        """Raise the first thing that was held."""
        held, self._held, self._is_holding = self._held, None, False
        if held is not None:
            raise held

    def error(self, text: str) -> None:
        """Add an error."""
        self.to(errors=(*self.now.errors, text))

    def _eta_s(self, now: RecoveryProgress) -> float | None:
        if now.status != RESTORING or self._begin_s is None or not now.bytes > 0:
            return None
        spent = time.monotonic() - self._begin_s
        return spent * max(now.bytes_total - now.bytes, 0) / now.bytes

    def _tell(self) -> None:
        if self._callback is None:
            return
        try:
            self._callback(self.now)
        except Exception:  # noqa: BLE001 - a callback's
            # Of each picture it would be told a hundred times.
            level = logging.DEBUG if self._has_failed else logging.ERROR
            self._has_failed = True
            _log.log(level, "A callback for the progress of a recovery failed", exc_info=True)
        except BaseException as error:
            if not self._is_holding:
                raise
            self._held = self._held or error


def _percent(now: RecoveryProgress) -> float:
    if now.status == COMPLETED or (now.status == PLANNED and not now.errors):
        return 100.0
    if not now.bytes_total:
        return 0.0
    return min(100.0 * now.bytes / now.bytes_total, 99.9)
