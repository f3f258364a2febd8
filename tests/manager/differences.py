"""Checks a store's log as a reader of specs/chunk.md would: what differences are from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import ckptlog
from ckptlog import Store
from ckptlog.blobs.pack import read_index
from ckptlog.formats import chunk
from ckptlog.model import value as values
from ckptlog.model.entry import Placement


class Tally(NamedTuple):
    """How many records a store has, and the longest chain."""

    whole: int
    differences: int
    deepest: int


def records_of(store: Store) -> list[tuple[int, Placement]]:
    """Return (commit, place) of every chunk, packs included, in the order of the log."""
    found, store_id = [], bytes.fromhex(store.info.id)
    for number, commit in enumerate(store.log.reader.commits()):
        found += [(number, place) for place in commit.placements]
        for entry in commit.entries:
            for pack in entry.event.packs:
                (path,) = (store.path / "packs").glob(f"*{pack.id}*")
                found += [(number, place) for place in read_index(path, store_id)]
    return found


def check_differences(store: Store) -> Tally:
    """Check every record: a base lies in the same segment, in front; no chunk differs twice."""
    first: dict[bytes, int] = {}
    depths: dict[tuple[str, bytes], int] = {}
    tally = [0, 0, 0]
    for number, place in records_of(store):
        base = chunk.base_in(store.blobs.read_record(place))
        key = (place.container, place.digest)
        if not base:
            tally[0] += 1
            depths[key] = 0
        else:
            assert place.container.startswith("log/"), "a pack holds whole chunks only"
            assert (place.container, base) in depths, "the base is not in front, in this segment"
            assert first.get(place.digest, number) == number, "it was stored before"
            depths[key] = depths[place.container, base] + 1
            tally[1] += 1
            tally[2] = max(tally[2], depths[key])
        first.setdefault(place.digest, number)
    assert tally[2] <= 64
    return Tally(*tally)


def history_of(store: Store) -> list[tuple[str, Any]]:
    """Return (checkpoint, data) after every event that has data, each read from the chunks."""
    found = []
    for entry in store.events():
        if entry.event.data is not None:
            wire = store.blobs.wire(entry.event.data)
            found.append((entry.event.subject.checkpoint, values.decode(wire)))
    return found


def check_store(path: Path) -> Tally:
    """Open a store anew, read every step back, verify it, and check its differences."""
    with ckptlog.open(path) as store:
        history_of(store)
        report = store.verify()
        assert report.ok, report
        return check_differences(store)
