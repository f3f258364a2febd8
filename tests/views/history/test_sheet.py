"""Rows do not depend on how commits come in windows, nor on how much of the past is in memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlog.formats import event as event_format
from ckptlog.log.bulk import Stretch
from ckptlog.model.cursor import Cursor
from ckptlog.model.event import CREATED, Event, Subject
from ckptlog.views.history import entry_table
from ckptlog.views.history.past import UNKNOWN_US, Fact, Past
from ckptlog.views.history.sheet import Sheet
from tests.views.history.scribe import ACTS, play

EPOCH_US = 1_000_000


def microseconds(time):
    return UNKNOWN_US if time is None else round(time.timestamp() * EPOCH_US)


class Files:
    """Facts of rows that were made, as files would tell them."""

    def __init__(self):
        self.rows = []
        self.asked = 0

    def read(self, positions):
        assert list(positions) == sorted(set(positions))
        self.asked += len(positions)
        rows = (self.rows[one] for one in positions if one < len(self.rows))
        return {
            row["position"]: Fact(
                row["state_after"], microseconds(row["state_since"]), microseconds(row["time"])
            )
            for row in rows
        }


def stretches(scribe, windows):
    """Cut the log into runs of so many commits."""
    end = scribe.log.published.read()
    runs = list(scribe.source().bulk.stretches(Cursor(), end, events=10**6))
    names = ("entries", "commits", "ends", "chunks", "raw_bytes")
    whole = {name: [one for run in runs for one in getattr(run, name)] for name in names}
    edges = [*sorted(set(whole["commits"])), len(whole["entries"])]
    for size in windows:
        taken, edges = edges[: size + 1], edges[size:]
        if len(taken) > 1:
            parts = {name: column[taken[0] : taken[-1]] for name, column in whole.items()}
            yield Stretch(
                taken[0], 0, **parts, container="log/x", offset_end=0, records={}, places=[]
            )


def make_rows(scribe, *, windows, recent_max):
    files = Files()
    sheet = Sheet(Past(0, files.read, recent_max=recent_max), scribe.wire_of)
    for stretch in stretches(scribe, windows):
        fields = entry_table.read(stretch.entries)
        files.rows += sheet.rows(stretch, fields).to_pylist()
    return files


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    acts=st.lists(ACTS, min_size=10, max_size=80),
    sizes=st.lists(st.integers(1, 9), min_size=80, max_size=80),
    recent_max=st.integers(1, 30),
)
def test_windows_and_memory_change_nothing(make_scribe, acts, sizes, recent_max):
    scribe = make_scribe()
    play(scribe, acts)
    files = make_rows(scribe, windows=sizes, recent_max=recent_max)
    for row in scribe.rows:
        del row["date"]
    assert files.rows == scribe.rows


def test_what_is_forgotten_is_read_from_files(make_scribe):
    scribe = make_scribe()
    chance = random.Random(1)
    for _ in range(30):
        scribe.create()
        scribe.commit()
    for name in chance.sample(list(scribe.facts), 30):
        scribe.change(name)
        scribe.commit()
    assert make_rows(scribe, windows=[5] * 12, recent_max=8).asked > 20
    assert make_rows(scribe, windows=[5] * 12, recent_max=1000).asked == 0


def entry(position, **fields):
    facts = {"actor": "a", "id": f"i{position}", "schema": 1, "subject": Subject("c", task="t")}
    times = {"time": f"2026-01-01T00:00:{position % 60:02d}.000000Z"}
    return Event(**{**facts, **times, "type": "checkpoint.updated", **fields})


def rows_of(*events):
    entries = [event_format.encode(event) for event in events]
    count = len(entries)
    nothing = [0] * count
    stretch = Stretch(
        0, 0, entries, list(range(count)), nothing, nothing, nothing, "log/x", 1, {}, []
    )
    sheet = Sheet(Past(0, lambda _: {}), lambda _: None)
    return sheet.rows(stretch, entry_table.read(entries)).to_pylist()


@pytest.mark.parametrize("previous", [-1, 1, 5, 2**52])
def test_a_link_to_no_earlier_event_is_none(previous):
    """No manager writes such; a log is not believed all the same."""
    first = entry(0, type=CREATED, state="created")
    second = rows_of(first, entry(1, state="active", previous=previous, origin=0))[1]
    assert second["state_before"] is second["state_us"] is second["lag_us"] is None
    assert second["state_after"] == "active"
    assert second["previous"] == (None if previous < 0 else previous)


def test_times_that_cannot_be_read_leave_durations_unknown():
    rows = rows_of(
        entry(0, type=CREATED, state="created", time="soon"),
        entry(1, state="active", previous=0, origin=0, created="soon"),
        entry(2, state="failed", previous=1, origin=0, created="soon"),
    )
    assert [row["time"] is None for row in rows] == [True, False, False]
    assert [row["state_before"] for row in rows] == [None, "created", "active"]
    assert [row["state_us"] for row in rows] == [None, None, EPOCH_US]
    assert [row["lag_us"] for row in rows] == [None, None, EPOCH_US]
    assert [row["age_us"] for row in rows] == [None] * 3


def test_unknown_types_and_states_are_rows_like_any_other():
    rows = rows_of(
        entry(0, type=CREATED, state="created"),
        entry(1, type="checkpoint.frozen", state="frozen", previous=0, origin=0),
        entry(2, type="moon.risen", subject=Subject(), facts={"b": 1, "a": "x"}),
    )
    assert [row["state_after"] for row in rows] == ["created", "frozen", None]
    assert rows[1]["state_us"] == EPOCH_US
    assert rows[2]["facts"] == '{"a":"x","b":1}'
    assert rows[2]["checkpoint"] is rows[2]["origin"] is rows[2]["created"] is None


def test_names_of_any_script_come_through():
    odd = "дед \u202e 'мороз' \U0001f385"
    subject = Subject(odd, odd, odd, odd, odd)
    row = rows_of(entry(0, type=CREATED, state="created", subject=subject, actor=odd, id=odd))[0]
    names = ("checkpoint", "namespace", "parent", "task", "worker", "actor", "event_id")
    assert {row[name] for name in names} == {odd}


def test_very_many_states_are_told_apart():
    entries = [entry(n, state=f"s{n}", previous=n - 1, origin=0) for n in range(400)]
    assert [row["state_before"] for row in rows_of(*entries)][-2:] == ["s397", "s398"]
