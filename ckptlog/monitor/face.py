"""The face of a service: who is given an asynchronous one measures the service behind it."""

from __future__ import annotations

from typing import Any


def service_of(target: Any) -> Any:
    """Return the service behind an asynchronous face (`AsyncCheckpointService.sync`).

    Anything else is returned as it is.
    """
    inner = getattr(target, "sync", None)
    return inner if callable(getattr(inner, "get_metrics", None)) else target
