"""Times and positions as people type them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
FORMS: Final = "2026-01-31, 2026-01-31T12:00:00Z, or an age: 90s, 15m, 2h, 3d, 1w"


def moment(text: str) -> datetime:
    """Return the instant that text names; a time without a zone is UTC.

    Raises:
        argparse.ArgumentTypeError: It names none; the message says what to write.
    """
    try:
        if match := _AGO.fullmatch(text.strip()):
            age = timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
            return datetime.now(UTC) - age
        parsed = datetime.fromisoformat(text.strip())
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; use {FORMS}") from None


def natural(text: str) -> int:
    """Return a whole number of 0 or more.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def point(text: str) -> int | datetime:
    """Return a position where text is digits alone, else the instant that it names.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    return natural(text) if text.isascii() and text.isdigit() else moment(text)


def positive(text: str) -> int:
    """Return a whole number of 1 or more.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if not _NUMBER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return float(text)


def duration(text: str) -> float:
    """Return a number of seconds above 0.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    if not _NUMBER.fullmatch(text) or float(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return float(text)


def place(text: str) -> str | int | datetime:
    """Return where to begin in a log: `beginning`, `end`, a position, or a time.

    Raises:
        argparse.ArgumentTypeError: It is none of them.
    """
    if text in {"beginning", "end"}:
        return text
    try:
        return point(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no place in a log; use beginning, end, a position (from 0 on), or a "
            f"time: {FORMS}"
        ) from None
