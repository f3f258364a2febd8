"""Where a consumer without a cursor begins."""

from __future__ import annotations

from datetime import UTC, datetime

from ckptlog.errors import ArgumentError
from ckptlog.formats.end import End
from ckptlog.log.reader import LogReader
from ckptlog.model.cursor import BEGINNING, Cursor

Start = int | str | datetime
"""`"beginning"`, `"end"`, a position, or a time (ISO text, or aware)."""


def check_start(start: object) -> Start:
    """Return what `resolve` will understand.

    Raises:
        ArgumentError: start is no place in a log.
    """
    if type(start) is int and start >= 0:
        return start
    if isinstance(start, str) and start in ("beginning", "end"):
        return start
    moment = _moment(start)
    if moment is not None:
        return moment
    raise ArgumentError(
        f"start is {start!r}.",
        hint='Use "beginning", "end", a position from 0 on, or a time with its zone.',
        argument="start",
    )


def _moment(start: object) -> datetime | None:
    if isinstance(start, str):
        try:
            start = datetime.fromisoformat(start)
        except ValueError:
            return None
    if not isinstance(start, datetime) or start.tzinfo is None:
        return None
    return start


def resolve(reader: LogReader, end: End, start: Start) -> Cursor:
    """Return the cursor to begin at.

    Raises:
        ArgumentError: A position beyond the end.
        LogCorruptionError: The log is damaged on the way to it.

    Cost: for a time, the log is read up to it: clocks may go backwards, positions do not.
    """
    if start == "beginning":
        return BEGINNING
    if start == "end":
        return reader.locate(end.position, stop=end)
    if isinstance(start, int):
        if start > end.position:
            raise ArgumentError(
                f"The log has {end.position} events; position {start} is beyond them.",
                hint='Use "end" for what comes from now on.',
                argument="start",
            )
        return reader.locate(start, stop=end)
    moment = _moment(start)
    if moment is None:
        raise ArgumentError(f"start is {start!r}.", argument="start")
    return _first_at(reader, end, moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _first_at(reader: LogReader, end: End, time: str) -> Cursor:
    """Return the cursor before the first event, by position, that is not before a time."""
    for commit in reader.commits(stop=end):
        for entry in commit.entries:
            if entry.event.time >= time:
                return reader.locate(entry.position, stop=end)
    return reader.locate(end.position, stop=end)
