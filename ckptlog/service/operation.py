"""The operation: what a service does now, or has done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ckptlog.errors import CheckpointError
from ckptlog.model.checkpoint import time_text
from ckptlog.model.setting import camel

CAPTURE: Final = "capture"
RECOVERY: Final = "recovery"
CLEANUP: Final = "cleanup"
COMPACTION: Final = "compaction"

RUNNING: Final = "running"
COMPLETED: Final = "completed"
FAILED: Final = "failed"


@dataclass
class Operation:
    """One thing that a service does.

    kind: capture, recovery, cleanup or compaction. reason: Why (interval, manual, signal, ...).
    status: running, completed or failed. seconds: So far, or in all.
    checkpoint_id: What it made, or recovers. component: Which one failed, or is at work.
    slowest: Of a recovery, the component that was at work longest.
    """

    kind: str
    reason: str
    started_at: datetime
    status: str = RUNNING
    seconds: float = 0.0
    checkpoint_id: str = ""
    component: str = ""
    error: CheckpointError | None = None
    percent: float = 0.0
    slowest: str = ""
    _entered: tuple[str, float] = ("", 0.0)
    _longest_s: float = 0.0

    def enter(self, component: str, now_s: float) -> None:
        """Take in which component is at work now, by a clock that never goes back."""
        before, since_s = self._entered
        if component == before:
            return
        if before and now_s - since_s >= self._longest_s:
            self.slowest, self._longest_s = before, now_s - since_s
        self._entered = (component, now_s)
        self.component = component

    def fail(self, error: CheckpointError) -> None:
        """Let it have failed."""
        self.status, self.error = FAILED, error
        self.component = str(error.context.get("component", self.component) or "")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in camelCase, safe for JSON."""
        fields = {
            "kind": self.kind,
            "reason": self.reason,
            "started_at": time_text(self.started_at),
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "checkpoint_id": self.checkpoint_id,
            "component": self.component,
            "error": None if self.error is None else self.error.to_dict(),
            "percent": self.percent,
            "slowest": self.slowest,
        }
        return {camel(name): value for name, value in fields.items()}


def known(error: BaseException) -> CheckpointError:
    """Return an error of ours that says what a foreign one says."""
    if isinstance(error, CheckpointError):
        return error
    return CheckpointError(f"{type(error).__name__}: {error}", cause=type(error).__name__)


def moment(now_us: int) -> datetime:
    """Return a time of the environment's clock."""
    return datetime.fromtimestamp(now_us / 1e6, UTC)
