"""Where a new consumer begins: beginning, end, a position, a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from ckptlog.errors import ArgumentError, LogCorruptionError
from ckptlog.log.batch import Item
from tests.log.sample import append, event
from tests.watch.conftest import ids


def at(name, time):
    return Item(msgspec.structs.replace(event(name), time=time))


@pytest.fixture
def filled(room):
    """Events a to g; the clock goes back between c and d."""
    times = {"a": 10, "b": 20, "c": 40, "d": 15, "e": 25, "f": 40, "g": 50}
    for names in ("a", "b", "cd", "e", "fg"):
        append(room.log, [at(name, f"2026-01-01T00:00:{times[name]}.000000Z") for name in names])
    return room


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("beginning", "abcdefg"),
        ("end", ""),
        (0, "abcdefg"),
        (1, "bcdefg"),
        (3, "defg"),
        (6, "g"),
        (7, ""),
        ("2026-01-01T00:00:10Z", "abcdefg"),
        ("2026-01-01T00:00:11Z", "bcdefg"),
        ("2026-01-01T00:00:20+00:00", "bcdefg"),
        ("2026-01-01T01:00:21+01:00", "cdefg"),
        ("2026-01-01T00:00:45Z", "g"),
        ("2026-01-01T00:00:50.000001Z", ""),
        ("2020-01-01T00:00:00Z", "abcdefg"),
        ("2030-01-01T00:00:00Z", ""),
        (datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC), "cdefg"),
        (datetime(2026, 1, 1, 2, 0, 30, tzinfo=timezone(timedelta(hours=2))), "cdefg"),
    ],
)
def test_begins_where_it_is_told(filled, start, first):
    for consumer in (None, "named"):
        with filled.watch(consumer, start=start, follow=False) as events:
            assert ids(events) == [*first]
    filled.add("later")
    assert filled.take("named") == [*first, "later"], "not acknowledged, so all comes again"


def test_start_counts_only_for_a_new_consumer_unless_it_is_reset(filled):
    assert filled.take("one", start=3) == [*"defg"]
    assert filled.take("one", start="beginning") == []
    assert filled.take("one", start=5, reset=True) == [*"fg"]
    filled.watcher.reset("one", 6)
    assert filled.take("one") == ["g"]


def test_the_end_is_where_it_was_when_the_consumer_was_made(filled):
    """Though it took nothing: what comes between its lives is for it."""
    filled.watch("late", start="end").close()
    filled.add("x")
    assert filled.take("late", start="end") == ["x"]


@pytest.mark.parametrize(
    "start",
    [-1, True, 1.5, None, "", "middle", "2026-01-01T00:00:00", "7", datetime(2026, 1, 1), b"end"],  # noqa: DTZ001
)
def test_no_place_in_a_log_is_refused(filled, start):
    with pytest.raises(ArgumentError):
        filled.watch("one", start=start)
    with pytest.raises(ArgumentError):
        filled.watcher.reset("one", start)
    assert filled.watcher.consumers() == []


def test_a_position_beyond_the_end_is_refused(filled):
    with pytest.raises(ArgumentError) as caught:
        filled.watch("one", start=8)
    assert "7 events" in caught.value.message
    assert filled.watcher.consumers() == []
    filled.watch("one").close()  # the name is free


def test_a_lost_end_is_told(filled):
    (filled.root / "log" / "end").unlink()
    for start in ("end", 3, "2026-01-01T00:00:45Z"):
        with pytest.raises(LogCorruptionError):
            filled.watch("one", start=start)
