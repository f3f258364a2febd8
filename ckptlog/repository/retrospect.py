"""What a store tells of its past: replay, audit, bisect. Mixed into `Store`.

Each call imports what it needs, so that opening a store loads none of it.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from ckptlog.repository.audit import Audit, AuditOptions
    from ckptlog.repository.bisection import Bisection, BisectOptions, Predicate
    from ckptlog.repository.replay import Replay
    from ckptlog.repository.store import Store


class Retrospect:
    """The part of a store that looks back.

    Raises (every method):
        StoreClosedError: The store was closed.
    """

    def opened(self) -> Store:
        """Return the store with all that it acknowledged durable, refusing one that was closed."""
        raise NotImplementedError

    def replay(
        self, until: int | datetime | None = None, *, into: str | os.PathLike[str] | None = None
    ) -> Replay:
        """Return the state after the event at a position, or at a time; None means now.

        Args:
            into: A new folder for the views as of then (see `repository.replay`).
        """
        from ckptlog.repository.replay import replay

        return replay(self.opened(), until, into)

    def audit(self, **options: Unpack[AuditOptions]) -> Audit:
        """Return a pass over the log: who did what, when, to which task, and what looks odd.

        Options (see `repository.audit.AuditOptions`): actor, task, checkpoint, worker, namespace,
        type, since, until, start, end, anomalies, thresholds, now.
        """
        from ckptlog.repository.audit import audit

        return audit(self.opened(), options)

    def bisect(self, predicate: str | Predicate, **options: Unpack[BisectOptions]) -> Bisection:
        """Return the first event of a checkpoint, or of a task, after which something is true.

        Args:
            predicate: An expression (specs/bisect.md), `data.loss > 10` for example; or a function
                of a CheckpointData that returns True, False, or None where it cannot tell.

        Options (see `repository.bisection.BisectOptions`): checkpoint, task, start, end, linear.
        """
        from ckptlog.repository.bisection import bisect

        return bisect(self.opened(), predicate, options)
