"""The alerts of a service: those of `monitor.alert`, told to its listeners."""

from __future__ import annotations

from ckptlog.manager.manager import CheckpointManager
from ckptlog.monitor.alert import Alert, AlertBook
from ckptlog.service import listener
from ckptlog.service.listener import Listeners

__all__ = ["Alert", "Alerts"]


class Alerts(AlertBook):
    """The alerts of one service.

    Threads: safe.
    """

    def __init__(self, manager: CheckpointManager, system: str, listeners: Listeners) -> None:
        def tell(alert: Alert, is_on: bool) -> None:  # noqa: FBT001 - as AlertBook calls it
            listeners.tell(listener.ALERT_RAISED if is_on else listener.ALERT_CLEARED, alert)

        super().__init__(manager, system, tell)
