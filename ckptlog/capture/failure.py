"""What the log is told of cuts that failed: not each of them.

A component that always fails, in a service that captures every second, would otherwise write
86,400 events a day. The first failure of a component for a reason is told at once, the next ones
when some time has passed, with how many were left out; a success tells what was left out until
then, so that whoever counts misses none, and begins anew.
"""

from __future__ import annotations

import contextlib
from typing import Final

from ckptlog.errors import CaptureFailedError, CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.event import CAPTURE_FAILED

QUIET_S: Final = 300.0
Facts = dict[str, int | str]


class FailureLog:
    """Tells the log of one system's failures.

    Threads: one at a time.
    """

    def __init__(self, manager: CheckpointManager, system: str) -> None:
        self._manager = manager
        self._system = system
        # By component and reason: when it was told last, its facts, how many were left out since.
        self._told: dict[tuple[str, str], tuple[float, Facts, int]] = {}

    def succeeded(self) -> None:
        """Tell of what was left out, and begin anew. Never raises."""
        told, self._told = self._told, {}
        for _, facts, left_out in told.values():
            if left_out:  # one of them is the event's own
                self._tell({**facts, "suppressed": left_out - 1})

    def failed(self, error: CaptureFailedError) -> None:
        """Tell of a failure, unless the same was told not long ago.

        Never raises: what went wrong is on its way to the caller already.
        """
        facts: Facts = {
            name: str(error.context.get(name, ""))[:64]
            for name in ("component", "step", "reason", "error")
        }
        key = (str(facts["component"]), str(facts["reason"]))
        now = self._manager.store.environment.monotonic_s()
        last, _, left_out = self._told.get(key, (None, facts, 0))
        if last is not None and now - last < QUIET_S:
            self._told[key] = (last, facts, left_out + 1)
            return
        self._told[key] = (now, facts, 0)
        self._tell({**facts, "suppressed": left_out})

    def _tell(self, facts: Facts) -> None:
        with contextlib.suppress(CheckpointError):
            self._manager.record(CAPTURE_FAILED, facts, task=self._system)
