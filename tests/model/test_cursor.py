from __future__ import annotations

from ckptlog.model.cursor import BEGINNING, Cursor, after_commit, after_entry
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.event import Event, Subject
from ckptlog.model.leaf import leaf_hash


def entry(position, offset):
    fact = Event(
        actor="a", id=f"e{position}", schema=1, subject=Subject(), time="2026", type="checkpoint.x"
    )
    return Entry(fact, position, "log/s", offset, 50, 0)


def commit(count, first=7):
    """Events of 50 bytes, each behind a chunk of 10."""
    entries = tuple(entry(first + n, 100 + 60 * n + 10) for n in range(count))
    chunks = tuple(Placement(bytes([n]) * 32, "log/s", 100 + 60 * n, 10) for n in range(count))
    raw = tuple(b"event %d" % n for n in range(count))
    kept = raw if count > 1 else ()
    return Commit(entries, chunks, leaf_hash(raw[-1]), "log/s", 100 + 60 * count, kept)


def test_the_beginning():
    assert Cursor() == BEGINNING == Cursor(0, bytes(32), "", 0)


def test_behind_a_commit_is_behind_its_last_event():
    whole = commit(3)
    assert after_commit(whole) == Cursor(10, leaf_hash(b"event 2"), "log/s", 280)
    assert after_entry(whole.entries[-1], whole.leaf) == after_commit(whole)
    assert after_entry(whole.entries[0], whole.leaves[0]) == Cursor(
        8, leaf_hash(b"event 0"), "log/s", 160
    )


def test_the_leaf_of_a_single_event_may_stand_alone():
    one = commit(1)
    assert one.raw == ()
    assert one.leaves == (one.leaf,) == (leaf_hash(b"event 0"),)
