"""Alarms: which are on, from what was measured; pure.

Each has a threshold to go on, and another, below it, to go off again: what stands at the edge does
not tell again and again. Names and thresholds: specs/service.md, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

ERROR_RATE: Final = "error_rate"
SAVE_TIME: Final = "save_time"
RECOVERY_TIME: Final = "recovery_time"
STORAGE_PRESSURE: Final = "storage_pressure"
STALE: Final = "stale"
COMPRESSION: Final = "compression"
LEASE: Final = "lease"
INCOMPLETE: Final = "recovery_incomplete"
STORE: Final = "store"
ALARMS: Final = (
    ERROR_RATE, SAVE_TIME, RECOVERY_TIME, STORAGE_PRESSURE, STALE, COMPRESSION, LEASE, INCOMPLETE,
    STORE,
)  # fmt: skip
# An alarm goes off when its value is so much better than what set it on.
RELIEF: Final = 0.95
# Deletions and compactions let the used room go up and down: it must be well below, and stay there.
RELIEF_STORAGE: Final = 0.85
CALM_INTERVALS: Final = 5


class Reading(msgspec.Struct, frozen=True):
    """What one alarm goes by. value: Measured; greater is worse. limit: From which it is on."""

    alarm: str
    value: float
    limit: float
    detail: str = ""


class Turn(msgspec.Struct, frozen=True):
    """An alarm went on or off."""

    reading: Reading
    is_on: bool


def turns(on: Mapping[str, object], readings: Iterable[Reading]) -> list[Turn]:
    """Return which alarms change.

    Args:
        on: Those that are on, by name.
        readings: Of now; an alarm without one stays as it is.
    """
    found = []
    for one in readings:
        if one.alarm not in on and one.value >= one.limit:
            found.append(Turn(one, is_on=True))
        elif one.alarm in on and one.value < one.limit * relief_of(one.alarm):
            found.append(Turn(one, is_on=False))
    return found


def relief_of(alarm: str) -> float:
    """Return the part of its limit below which an alarm goes off."""
    return RELIEF_STORAGE if alarm == STORAGE_PRESSURE else RELIEF


def slowdown(pressure: float, limit: float, now: float) -> float:
    """Return the factor of the interval under a storage pressure.

    It doubles at each look, up to 16, while the pressure is on, and halves when it is over: the
    store is not filled by who waits for room.

    Args:
        pressure: Used part of the room. limit: From which it is pressure. now: The factor so far.
    """
    if pressure >= limit:
        return min(16.0, 2.0 * now)
    return max(1.0, now / 2.0) if pressure < limit * RELIEF_STORAGE else now
