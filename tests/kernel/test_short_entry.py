"""The kernel's events of schema 2 against the long way, to the byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import short_event
from ckptlog.kernel import native
from ckptlog.model.event import Event, Reference, Subject
from tests.formats.strategies import short_events

pytestmark = pytest.mark.skipif(native is None, reason="The kernel is not compiled.")

EVENT = Event(
    actor="ada@host",
    created="2026-01-02T03:04:05.000001Z",
    data=Reference("tree", "ab" * 32, 123_456),
    id="0661291fa72913b53cb503e9",
    meta=Reference("leaf", "0f" * 32, 7),
    new=9,
    origin=41,
    previous=42,
    schema=2,
    state="odd",
    step=7,
    subject=Subject("1f1e-b~salt", "ns", "1f1e-a~salt", "build", "w"),
    time="2026-01-02T03:04:05.678901Z",
    total=12,
    type="checkpoint.updated",
)
encode = msgspec.json.Encoder(order="deterministic").encode


def with_(**changes) -> Event:
    return msgspec.structs.replace(EVENT, **changes)


def long_way(event: Event) -> bytes:
    return encode(short_event.pack(event))


@given(value=short_events)
def test_it_writes_what_the_long_way_writes_or_nothing(value):
    assert short_event.encoded(value) in (None, long_way(value))


plain = st.text("ab~0 .", max_size=60)
sizes = st.integers(0, 2**53 - 1)
ids = st.from_regex("[0-9a-f]{23,25} {0,2}", fullmatch=True) | plain
roots = st.none() | st.builds(
    Reference, st.sampled_from(["leaf", "tree", "list"]), st.just("5c" * 32), sizes
)


@given(
    identifier=ids,
    payloads=st.tuples(roots, roots),
    numbers=st.lists(sizes, min_size=5, max_size=5),
    words=st.lists(plain, min_size=6, max_size=6),
    tail=st.sampled_from(["", "~", "~s"]),
)
def test_ordinary_events_are_written_by_it(identifier, payloads, numbers, words, tail):
    new, step, total, origin, previous = numbers
    checkpoint, parent, space, task, worker, state = words
    value = with_(
        id=identifier,
        data=payloads[0],
        meta=payloads[1],
        new=new,
        step=step,
        total=total,
        origin=origin,
        previous=previous,
        state=state,
        subject=Subject(checkpoint + tail, space, parent + tail, task, worker),
    )
    assert short_event.encoded(value) == long_way(value)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "\u00e9"},
        {"actor": 'a"'},
        {"actor": "a\\"},
        {"actor": "a\n"},
        {"actor": "a" * 5000},
        {"actor": "a" * 3900},
        {"actor": None},
        {"actor": b"a"},
        {"step": True},
        {"step": -1},
        {"step": 2**53},
        {"step": 2**64},
        {"step": 1.0},
        {"origin": -2},
        {"data": Reference("leaf", "AB" * 32, 1)},
        {"data": Reference("leaf", "ab" * 31, 1)},
        {"data": Reference("", "ab" * 32, 1)},
        {"data": Reference("x1", "ab" * 32, 1)},
        {"data": Reference("x" * 17, "ab" * 32, 1)},
        {"data": Reference("leaf", "ab" * 32, -1)},
        {"subject": Subject("\u00e9", "", "a", "t")},
        {"facts": {"a": 1}},
        {"cause": "x"},
        {"fingerprint": "x"},
        {"sanitised": 1},
        {"time": "9999-01-01T00:00:00.000000Z"},
    ],
    ids=str,
)
def test_what_is_not_ordinary_is_left_to_the_long_way(change):
    assert short_event.encoded(with_(**change)) is None


@pytest.mark.parametrize("change", [{"time": "x"}, {"created": "x"}, {"type": ".x"}])
def test_what_cannot_be_written_is_refused(change):
    with pytest.raises(FormatError):
        short_event.encoded(with_(**change))


def test_another_number_of_arguments_is_refused():
    with pytest.raises(TypeError):
        native.short_entry("a")
