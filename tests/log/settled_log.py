"""Logs whose sealed segments are settled, and all that their readers answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ckptlog.log import settling
from ckptlog.log.bulk import BulkReader
from ckptlog.log.follower import Follower
from ckptlog.log.log import Log
from ckptlog.log.sealed import Sealed
from ckptlog.model.cursor import BEGINNING, Cursor, after_commit, after_entry
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.locator import Locator
from tests.log.sample import STORE_ID, append, create_log, group

Answers = dict[str, Any]


def made_log(root: Path, commits: list[tuple[int, int]], **options: Any) -> Log:
    """Return a log of commits: events, and bytes of a chunk before each event (0: none)."""
    log = create_log(root, **{"segment_bytes": 3000, **options})
    for number, (events, size) in enumerate(commits):
        append(log, group(*(f"{number}-{n}" for n in range(events)), record_bytes=size))
    return log


def random_log(root: Path, seed: int, commits: int = 40, **options: Any) -> Log:
    chance = random.Random(seed)
    shapes = [(chance.choice([1, 1, 2, 5]), chance.choice([0, 60, 400])) for _ in range(commits)]
    return made_log(root, shapes, **options)


def sealed_segments(log: Log) -> list[Sealed]:
    """Return every segment but the one that the log ends in."""
    end = log.published.read()
    headers = [one for one in log.segments.refresh() if one.first <= end.first]
    return [
        Sealed(header, after.previous_length, after.first, after.leaf)
        for header, after in zip(headers, headers[1:], strict=False)
        if header.first < after.first
    ]


def settle_all(log: Log, *, removes: bool = True) -> list[Path]:
    """Settle every sealed segment, remove the written ones; return the settled files."""
    made = []
    for sealed in sealed_segments(log):
        name = (sealed.header.first, sealed.header.generation)
        if not log.segments.exists(*name):
            continue
        settling.settle(log.segments, sealed)
        made.append(log.segments.settled_path(*name))
        if removes:
            log.segments.path(*name).unlink()
    return made


def cursors_of(log: Log) -> list[Cursor]:
    """Return every place between two events, with and without the hint of where it is."""
    found = [BEGINNING]
    for commit in log.reader.commits():
        raws = commit.raw or (None,) * len(commit.entries)
        for entry, raw in zip(commit.entries, raws, strict=True):
            leaf = commit.leaf if raw is None else leaf_hash(raw)
            found.append(after_entry(entry, leaf))
    return found + [Cursor(one.position, one.leaf) for one in found[1:]]


def bare(commits: Iterator[Any]) -> list[Any]:
    """Return commits without the places of their chunks."""
    return [msgspec.structs.replace(one, placements=()) for one in commits]


def answers(log: Log, cursors: list[Cursor]) -> Answers:
    """Return what every reader says, from everywhere."""
    end, reader = log.published.read(), log.reader
    commits = bare(reader.commits())
    entries = [entry for commit in commits for entry in commit.entries]
    bounds = [BEGINNING, *map(after_commit, commits)]
    locator = Locator(log, lambda _: None)
    found: Answers = {
        "commits": commits,
        "from": [bare(reader.commits(*_place(one))) for one in bounds],
        "entry": [
            reader.entry(one.container, one.offset, one.length, one.span)[0] for one in entries
        ],
        "locator": [locator.entry(one.position) for one in reversed(entries)],
        "locate": [reader.places.locate(n, None, end) for n in range(end.position + 1)],
        "near": [reader.places.locate(one.position, one, end) for one in cursors],
        "holds": [reader.places.holds(one) for one in cursors],
        "ends": [reader.places.ends_commit(one, end) for one in cursors],
        "follow": [bare(Follower(log.reader, log.published, one).commits()) for one in cursors],
    }
    for events in (1, 4, 10**6):
        found[f"bulk {events}"] = [bulk(log, one, events) for one in bounds]
    return found


def _place(cursor: Cursor) -> tuple[str, int, int]:
    return cursor.container, cursor.offset, cursor.position


def bulk(log: Log, cursor: Cursor, events: int) -> list[Any]:
    reader = BulkReader(log.segments, STORE_ID)
    end = log.published.read()
    return [
        (run.cursor, *run[:9])
        for run in reader.stretches(cursor, end, events=events, with_places=True)
    ]
