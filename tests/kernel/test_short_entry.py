"""The kernel's events of schema 2 against the long way, to the byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import event, short_event
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


def long_way(value: Event) -> bytes:
    return encode(short_event.pack(value))


@given(value=short_events)
def test_it_writes_what_the_long_way_writes_or_nothing(value):
    assert short_event.encoded(value) in (None, long_way(value))


plain = st.text("ab~0 .", max_size=60)
sizes = st.integers(0, 2**53 - 1)
ids = st.from_regex("[0-9a-f]{23,25} {0,2}", fullmatch=True) | plain
roots = st.none() | st.builds(
    Reference, st.sampled_from(["leaf", "tree", "list"]), st.just("5c" * 32), sizes
)

kinds = st.sampled_from(list(short_event.STATE_OF_TYPE)) | plain.filter(
    lambda text: text[:1] != "."
)
# Any two of them are less than 2^53 us apart.
moments = st.integers(-(2**52) + 1, 2**52 - 1).map(short_event.time_text)


@given(
    identifier=ids,
    payloads=st.tuples(roots, roots),
    numbers=st.lists(sizes, min_size=5, max_size=5),
    words=st.lists(plain, min_size=6, max_size=6),
    told=st.tuples(moments, moments | st.just(""), kinds, st.sampled_from(["", "~", "~s"])),
)
def test_ordinary_events_are_written_by_it(identifier, payloads, numbers, words, told):
    time, created, kind, tail = told
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
        time=time,
        created=created,
        type=kind,
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
        {"created": "0001-01-01T00:00:00.000000Z"},
        {"time": "2255-01-01T00:00:00.000000Z", "created": "1700-01-01T00:00:00.000000Z"},
        {"time": None},
        {"created": None},
        {"created": b""},
        {"type": None},
        {"state": None},
    ],
    ids=str,
)
def test_what_is_not_ordinary_is_left_to_the_long_way(change):
    assert short_event.encoded(with_(**change)) is None


@pytest.mark.parametrize("change", [{"time": "x"}, {"created": "x"}, {"type": ".x"}])
def test_what_cannot_be_written_is_left_to_the_long_way_that_refuses_it(change):
    assert short_event.encoded(with_(**change)) is None
    with pytest.raises(FormatError):
        event.encode(with_(**change))


@pytest.mark.parametrize(
    ("kind", "state", "left_out"),
    [
        ("checkpoint.created", "created", {"type", "state"}),
        ("checkpoint.created", "active", {"type"}),
        ("checkpoint.created", "", {"type"}),
        ("checkpoint.failed", "failed", {"state"}),
        ("checkpoint.pinned", "", {"state"}),
        ("checkpoint.", "x", set()),
        ("checkpoint", "", {"state"}),
        ("", "", {"state"}),
    ],
)
def test_what_follows_is_left_out(kind, state, left_out):
    value = with_(type=kind, state=state)
    entry = short_event.encoded(value)
    assert entry == long_way(value)
    assert {"type", "state"} - msgspec.json.decode(entry).keys() == left_out


near = st.integers(0, 99).map("{:02}".format)
almost_times = st.builds(
    "{}-{}-{}{}{}:{}:{}.{}Z".format,
    st.sampled_from(["0000", "0001", "1900", "2000", "2023", "2024", "9999", "20 4", "+024"]),
    st.sampled_from(["00", "01", "02", "04", "12", "13", "1 "]),
    st.sampled_from(["00", "01", "28", "29", "30", "31", "32", "-1"]),
    st.sampled_from("T t"),
    near,
    near,
    near,
    st.sampled_from(["000000", "999999", "00000", "1234567", "+12345"]),
)


@given(time=almost_times | st.text(min_size=27, max_size=27))
def test_a_time_is_read_as_the_long_way_reads_it(time):
    for name in ("time", "created"):
        value = with_(**{name: time})
        written = short_event.encoded(value)
        if written is not None:
            assert written == long_way(value)
        elif "1700" < time < "2250":
            with pytest.raises(FormatError):
                long_way(value)


@pytest.mark.parametrize("day", ["02-28", "02-29", "02-30", "03-01", "12-31", "12-32"])
def test_the_last_days_of_months(day):
    for year in range(1700, 2240):
        value = with_(time=f"{year}-{day}T23:59:59.999999Z", created="1970-01-01T00:00:00.000000Z")
        try:
            expected = long_way(value)
        except FormatError:
            expected = None
        assert short_event.encoded(value) == expected


def test_another_number_of_arguments_is_refused():
    with pytest.raises(TypeError):
        native.short_entry("a")
    with pytest.raises(TypeError):
        native.short_entry(*"a" * 23)
