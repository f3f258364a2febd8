"""Times of events: texts to Arrow's timestamps, whole columns at once.

Events hold UTC as `2026-01-31T12:00:00.000000Z`. Arrow reads a column of these in one pass. Only
where a text in it is something else (the log's author is not believed) are they looked at one by
one, and what is no time of the years 1 to 9999 becomes null.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ckptlog.views.history.past import UNKNOWN_US

if TYPE_CHECKING:
    import pyarrow as pa

_YEAR_1_US: Final = -62_135_596_800_000_000
_LENGTH: Final = len("2026-01-31T12:00:00.000000Z")


def read_times(texts: pa.Array) -> pa.Array:
    """Return texts as timestamp[us, UTC]; null for what is no time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.timestamp("us", "UTC")
    try:
        times = texts.cast(kind)
    except pa.ArrowInvalid:
        return pa.array([_time(text) for text in texts.to_pylist()], kind)
    earliest = pc.min(times.cast(pa.int64())).as_py()
    if earliest is not None and earliest < _YEAR_1_US:
        return pa.array([_time(text) for text in texts.to_pylist()], kind)
    return times


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def to_times(numbers: pa.Array) -> pa.Array:
    """Return microseconds from 1970 as times; null for UNKNOWN_US."""
    import pyarrow as pa

    return known(numbers).cast(pa.timestamp("us", "UTC"))


def known(numbers: pa.Array) -> pa.Array:
    """Return microseconds with null for UNKNOWN_US."""
    import pyarrow.compute as pc

    return pc.if_else(pc.equal(numbers, UNKNOWN_US), None, numbers)
