"""What the log is told of cuts that failed: not each of them.

A component that always fails, in a service that captures every second, would otherwise write
86,400 events a day. The first failure of a component for a reason is told at once, the next ones
when some time has passed, with how many were left out; a success begins anew.
"""

from __future__ import annotations

import contextlib
from typing import Final

from ckptlog.errors import CaptureFailedError, CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.event import CAPTURE_FAILED

QUIET_S: Final = 300.0


class FailureLog:
    """Tells the log of one system's failures.

    Threads: one at a time.
    """

    def __init__(self, manager: CheckpointManager, system: str) -> None:
        self._manager = manager
        self._system = system
        # When it was told last, and how many were left out since, by component and reason.
        self._told: dict[tuple[str, str], tuple[float | None, int]] = {}

    def succeeded(self) -> None:
        """Begin anew."""
        self._told.clear()

    def failed(self, error: CaptureFailedError) -> None:
        """Tell of a failure, unless the same was told not long ago.

        Never raises: what went wrong is on its way to the caller already.
        """
        facts: dict[str, int | str] = {
            name: str(error.context.get(name, ""))[:64]
            for name in ("component", "step", "reason", "error")
        }
        key = (str(facts["component"]), str(facts["reason"]))
        now = self._manager.store.environment.monotonic_s()
        last, suppressed = self._told.get(key, (None, 0))
        if last is not None and now - last < QUIET_S:
            self._told[key] = (last, suppressed + 1)
            return
        self._told[key] = (now, 0)
        facts["suppressed"] = suppressed
        with contextlib.suppress(CheckpointError):
            self._manager.record(CAPTURE_FAILED, facts, task=self._system)
