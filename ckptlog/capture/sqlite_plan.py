"""What a restore of a database would change: its tables, told before anything is touched.

The live database is copied as a capture does, so that looking holds no locks for long. Rows are
compared by SQLite itself, as sets, while both databases are small; beyond that only the schema is.
Tables with generated or virtual storage are told by their schema alone. Where none of that tells a
difference (a row that is there twice, 1 and 1.0, a setting in the header), the pages do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ckptlog.capture import database
from ckptlog.capture.page_digest import LIVE_FIELDS
from ckptlog.model.component import Change, Plan

ROWS_COMPARED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of both databases together up to which rows are compared."""

_STRETCH_PAGES: Final = 64
_SCHEMA: Final = "SELECT type, name, sql FROM {0}.sqlite_schema WHERE name NOT LIKE 'sqlite_%'"


def plan_of(path: Path, captured: Path, *, folder: str | None = None) -> Plan:
    """Return what making a database what a captured one is would change.

    Args:
        path: Of the live database; it need not be there.
        captured: A checked database in a private file.
        folder: For the copy of the live one.

    Raises:
        SourceBusyError: The live database is held by others.
    """
    size = captured.stat().st_size
    if not path.exists():
        return Plan((Change("add", str(path), size),), size, f"{path} would be made anew")
    try:
        with closing(database.open_database(path)) as live:
            database.begin_reading(live, path)
            copy = database.copy_pages(live, path, folder=folder)
    except database.NotADatabaseError:
        summary = f"{path} is no database: it would be set aside and made anew"
        return Plan((Change("change", str(path), size),), size, summary)
    with closing(copy), database.kept(copy, folder=folder) as present:
        changes = tuple(_changes(captured, present))
        differing = _differing(captured, present, copy.page_size)
    if not differing and not changes:
        return Plan((), size, "nothing to change")
    count = f"{differing} of {size // copy.page_size} pages"
    if changes:
        summary = f"{count} and {len(changes)} tables or indexes are different"
        return Plan(changes, size, summary)
    # Equal as sets of rows, or too large to be compared by rows: not the same all the same.
    one = Change("change", count, differing * copy.page_size)
    return Plan((one,), size, f"{count} are different")


def _changes(captured: Path, present: Path) -> Iterator[Change]:
    """Yield a change for each table, index, view and trigger that differs, by name."""
    are_small = captured.stat().st_size + present.stat().st_size <= ROWS_COMPARED_BYTES_MAX
    uri = "file:{}?mode=ro&immutable=1"
    with (
        database.database_door(captured),
        closing(sqlite3.connect(uri.format(quote(str(captured))), uri=True)) as both,
    ):
        both.execute("ATTACH ? AS live", (uri.format(quote(str(present))),))
        new, old = (
            {(kind, name): sql for kind, name, sql in both.execute(_SCHEMA.format(schema))}
            for schema in ("main", "live")
        )
        for kind, name in sorted(new.keys() | old.keys()):
            path = f"{kind} {name}"
            if (kind, name) not in old:
                yield Change("add", path)
            elif (kind, name) not in new:
                yield Change("remove", path)
            elif new[kind, name] != old[kind, name]:
                yield Change("change", f"{path}: another definition")
            elif kind == "table" and are_small:
                yield from _rows(both, name, path)


def _rows(both: sqlite3.Connection, name: str, path: str) -> Iterator[Change]:
    """Yield a change that tells how many rows would come and go."""
    table = '"' + name.replace('"', '""') + '"'
    count = (
        f"SELECT (SELECT count(*) FROM main.{table}), (SELECT count(*) FROM live.{table}),"  # noqa: S608
        f" (SELECT count(*) FROM (SELECT * FROM main.{table} EXCEPT SELECT * FROM live.{table})),"
        f" (SELECT count(*) FROM (SELECT * FROM live.{table} EXCEPT SELECT * FROM main.{table}))"
    )
    try:
        then, now, come, go = both.execute(count).fetchone()
    except sqlite3.Error:  # a virtual table whose module is not here
        return
    if come or go or then != now:
        yield Change("change", f"{path}: {now} rows now, {then} then; {come} come, {go} go")


def _differing(captured: Path, present: Path, page_size: int) -> int:
    """Return how many pages are not in the same place in both, or in one of them only."""
    stretch = _STRETCH_PAGES * page_size
    more = present.stat().st_size - captured.stat().st_size
    differing = max(more, 0) // page_size
    with captured.open("rb") as new_file, present.open("rb") as old_file:
        while new := new_file.read(stretch):
            old = old_file.read(len(new))
            if new_file.tell() == len(new):
                new, old = _without_counters(new), _without_counters(old)
            if new != old:
                differing += sum(
                    new[at : at + page_size] != old[at : at + page_size]
                    for at in range(0, len(new), page_size)
                )
    return differing


def _without_counters(pages: bytes) -> bytes:
    """Return the first pages without what a restore leaves as it is in the live header."""
    masked = bytearray(pages)
    for start, end in LIVE_FIELDS:
        masked[start:end] = bytes(end - start) if len(pages) >= end else b""
    return bytes(masked)
