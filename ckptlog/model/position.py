"""Positions in the log, as callers hand them over."""

from __future__ import annotations

from typing import Final

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted

# No log reaches it; SQLite and the formats hold no larger number.
POSITION_MAX: Final = 2**63 - 1


def check_position(name: str, value: object) -> int:
    """Return value when it is a whole number; one beyond every log stands for its end.

    Raises:
        ArgumentError: It is not; the message has `name`.
    """
    if type(value) is int:
        return min(value, POSITION_MAX)
    raise ArgumentError(
        f"{name} is {quoted(value)}; a position (a whole number from 0 on) is needed.",
        argument=name,
    )
