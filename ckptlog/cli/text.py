"""How values become text for people: escaped, measured, rounded.

Stored text is somebody else's: it may hold escape sequences that move the cursor, rename the
window or turn the line around. Nothing stored reaches a terminal except through `escape`, which
leaves only printable characters. The escapes are those of JSON strings, so that a JSON document
stays the same document after `escape_json`. Page: specs/cli.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ckptlog.model import visible

escape, escape_json = visible.escape, visible.escape_json
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def shorten(text: object, width: int) -> str:
    """Return text escaped, its blanks joined, and cut to width characters with an ellipsis."""
    line = escape(" ".join(str(text).split()))
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


def size(size_bytes: float) -> str:
    """Return a size for people: 12 B, 12.3 KB (1 KB is 1,000 bytes)."""
    value, unit = float(size_bytes), 0
    while abs(value) >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 event, 2,000 events."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ratio(logical_bytes: float, stored_bytes: float) -> str:
    """Return how many logical bytes stand for one stored byte: 5.6:1."""
    return f"{logical_bytes / stored_bytes:.1f}:1" if stored_bytes else "-"


def instant(moment: datetime | str | None) -> str:
    """Return a time for people, UTC, in whole seconds: 2026-01-02 03:04:05Z."""
    if not moment:
        return "-"
    if isinstance(moment, str):
        return f"{moment[:10]} {moment[11:19]}Z"
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def progress(step: int, total: int | None) -> str:
    """Return a step of a total: 3/12; or 3 where the total is not known."""
    return f"{step}/{total}" if total else str(step)


def columns_wide(text: str) -> int:
    """Return how many columns of a terminal text takes: wide characters two, marks none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def plain(value: Any) -> str:
    """Return a value of a details page: yes or no, a time, or text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "-"
    return instant(value) if isinstance(value, datetime) else escape(value)
