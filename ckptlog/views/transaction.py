"""Applies runs of commits to the database: one transaction, whole commits, the mark moved last."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ckptlog.model.entry import Commit
from ckptlog.views import schema
from ckptlog.views.database import CACHE_WRITER_KIB, Database
from ckptlog.views.errors import FOREIGN, ViewGapError, ViewUnwritableError, translate
from ckptlog.views.fold import Fold
from ckptlog.views.projection import MetaOf, Projection
from ckptlog.views.row import Standing

_BULK_CACHE_KIB: Final = 65_536


def apply(
    database: Database,
    windows: Iterable[Sequence[Commit]],
    meta_of: MetaOf,
    *,
    is_bulk: bool = False,
) -> bool:
    """Apply windows of commits; False when the file's seal cannot be left at present.

    Args:
        windows: Runs of commits, each folded as a whole; one follows the other.
        is_bulk: Make the indexes last, where the view is empty.

    Raises:
        ViewGapError: A commit begins beyond the mark.
        ViewBusyError: Another process is writing.
        ViewUnwritableError: The file cannot be written.
        ViewDamagedError: The view does not fit the log.

    Errors of `meta_of` pass through. After any error nothing is applied.
    """
    writer = database.writer
    try:
        standing = _begin(database)
        if standing is None:
            return False
        before = standing
        is_bulk = is_bulk and standing.position == 0
        if is_bulk:
            # Indexes are sorted in the cache; what does not fit there goes through files.
            writer.execute(f"PRAGMA cache_size = -{_BULK_CACHE_KIB}")
            schema.drop_indexes(writer)
        for commits in windows:
            standing = _apply_window(writer, standing, commits, meta_of, is_bulk=is_bulk)
        if standing is not before:
            if is_bulk:
                schema.create_indexes(writer)
            schema.write_standing(writer, standing)
            writer.execute("COMMIT")
            if database.is_summed:
                database.wrote(standing.position - before.position)
    except FOREIGN as error:
        raise translate(error) from error
    finally:
        with suppress(sqlite3.Error):
            writer.rollback()
            if is_bulk:
                writer.execute(f"PRAGMA cache_size = -{CACHE_WRITER_KIB}")
    return True


def _begin(database: Database) -> Standing | None:
    """Begin a transaction in a file that only this boot believes; None if that cannot be now."""
    standing = _begin_writing(database.writer)
    if standing.home == database.home:
        return standing
    database.writer.rollback()
    try:
        if not database.leave_seal():
            return None
    except OSError as error:
        raise ViewUnwritableError(f"The view cannot be synced: {error}") from error
    standing = _begin_writing(database.writer)
    return standing if standing.home == database.home else None


def _begin_writing(writer: sqlite3.Connection) -> Standing:
    writer.execute("BEGIN IMMEDIATE")
    return schema.read_standing(writer)


def _apply_window(
    writer: sqlite3.Connection,
    standing: Standing,
    commits: Sequence[Commit],
    meta_of: MetaOf,
    *,
    is_bulk: bool,
) -> Standing:
    fresh = _fresh(standing.position, commits)
    if not fresh:
        return standing
    fold = Fold()
    for commit in fresh:
        fold.add(commit)
    projection = Projection(writer, fold)
    projection.gather(meta_of)
    projection.write(has_indexes=not is_bulk)
    last = fresh[-1]
    return msgspec.structs.replace(
        standing,
        position=last.position_next,
        leaf=last.leaf,
        container=last.container,
        offset=last.offset_end,
        checkpoints=standing.checkpoints + projection.born - projection.dead,
        logical=standing.logical + fold.logical,
        new=standing.new + fold.new,
        sanitised=standing.sanitised + fold.sanitised,
        id_time_max=max(standing.id_time_max, projection.id_time_max),
        fence=max(standing.fence, fold.fence),
    )


def _fresh(position: int, commits: Sequence[Commit]) -> list[Commit]:
    """Return the commits from position on, which must follow each other without a gap."""
    fresh = []
    for commit in commits:
        entries = commit.entries
        start, end = entries[0].position, entries[-1].position + 1
        if end <= position:
            continue
        if start != position:
            raise ViewGapError(f"A commit begins at {start}; the view ends at {position}.")
        fresh.append(commit)
        position = end
    return fresh


def windows_of(commits: Iterable[Commit], events_max: int) -> Iterator[list[Commit]]:
    """Cut a long run of commits into windows of at least events_max events, the last excepted."""
    window: list[Commit] = []
    events = 0
    for commit in commits:
        window.append(commit)
        events += len(commit.entries)
        if events >= events_max:
            yield window
            window, events = [], 0
    yield window
