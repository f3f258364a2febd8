"""Event schema 2: the facts of schema 1 in fewer bytes, lossless and canonical (specs/event.md)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import event
from ckptlog.formats.short_event import Short
from ckptlog.model.event import Event, PackEntry, Reference, Subject
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import numbers, short_events

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
    state="active",
    step=7,
    subject=Subject("1f1e-b~salt", "ns", "1f1e-a~salt", "build", "w"),
    time="2026-01-02T03:04:05.678901Z",
    type="checkpoint.updated",
)
ENTRY = event.encode(EVENT)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
STATES = {"created": "created", "updated": "active"} | {
    name: name for name in ("completed", "failed", "restored")
}


def with_(**changes) -> Event:
    return msgspec.structs.replace(EVENT, **changes)


def us_of(text: str) -> int:
    return (datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) - EPOCH) // US


def span(us: int, text: str) -> int | str:
    return us if abs(us) < 2**53 else text


def text_of(reference: Reference) -> str:
    root = base64.b64encode(bytes.fromhex(reference.root)).decode().rstrip("=")
    kind = "" if reference.kind == "leaf" else f",{reference.kind}"
    return f"{root},{reference.size}{kind}"


def is_made(identifier: str, at: int) -> bool:
    digits = identifier[:24]
    return (
        len(digits) == 24
        and set(digits) <= set("0123456789abcdef")
        and identifier[24:] in ("", " ")
        and abs(at - int(digits[:14], 16)) <= 315_537_897_599_999_999
    )


def parents(parent: str, checkpoint: str) -> dict[str, str]:
    """Return how a parent is written, found out by trying."""
    head, mark, tail = checkpoint.rpartition("~")
    head, tail = (head, mark + tail) if mark else (checkpoint, "")
    is_alike = len(parent) == len(checkpoint) and parent.endswith(tail)
    if parent and parent != checkpoint and (parent + checkpoint).isascii() and is_alike:
        for size in range(1, len(head) + 1):
            differing = parent[len(head) - size : len(head)]
            if head[: len(head) - size] + differing + tail == parent:
                return {"up~": differing}
    return {"up": parent}


def reference_json(value: Event) -> bytes:
    """Return the entry as the page tells it, made by the standard library alone."""
    at, subject = us_of(value.time), value.subject
    fields = {
        "actor": value.actor,
        "at": span(at, value.time),
        "cause": value.cause,
        "cp": subject.checkpoint,
        "data": text_of(value.data) if value.data else "",
        "facts": value.facts,
        "fingerprint": value.fingerprint,
        "meta": text_of(value.meta) if value.meta else "",
        "new": value.new,
        "packs": [msgspec.structs.asdict(pack) for pack in value.packs],
        "sanitised": value.sanitised,
        "space": subject.namespace,
        "step": value.step,
        "task": subject.task,
        "total": value.total,
        "worker": subject.worker,
        **parents(subject.parent, subject.checkpoint),
    }
    kept = {name: told for name, told in fields.items() if told or name in {"actor", "at"}}
    if value.created:
        kept["age"] = span(at - us_of(value.created), value.created)
    if value.origin != -1:
        kept["origin"] = value.origin
    if value.previous != value.origin:
        kept["previous"] = value.previous
    if is_made(value.id, at):
        time, rest = int(value.id[:14], 16), bytes.fromhex(value.id[14:24])
        text = base64.b64encode(rest).decode().rstrip("=")
        kept["made"] = f"{at - time},{text}{value.id[24:]}"
    else:
        kept["id"] = value.id
    family, dot, name = value.type.partition(".")
    if value.type != "checkpoint.created":
        kept["type"] = f".{name}" if (family, dot) == ("checkpoint", ".") else value.type
    implied = STATES.get(name, "") if (family, dot) == ("checkpoint", ".") else ""
    if value.state != implied:
        kept["state"] = value.state
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


@given(value=short_events)
def test_round_trip_and_canonical(value):
    entry = event.encode(value)
    assert event.decode(entry) == event.decode(memoryview(entry)) == value
    assert event.is_canonical(entry, value)
    assert entry == reference_json(value)


@given(value=short_events)
def test_the_other_schema_says_the_same(value):
    long = msgspec.structs.replace(value, schema=1)
    lifted = event.decode(event.encode(long))
    assert msgspec.structs.replace(lifted, schema=2) == event.decode(event.encode(value))


def test_it_is_what_the_page_shows():
    assert json.loads(ENTRY) == {
        "actor": "ada@host",
        "age": 678_900,
        "at": 1_767_323_045_678_901,
        "cp": "1f1e-b~salt",
        "data": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s,123456,tree",
        "made": "-28356067187166,tTy1A+k",
        "meta": "Dw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8,7",
        "new": 9,
        "origin": 41,
        "previous": 42,
        "space": "ns",
        "step": 7,
        "task": "build",
        "type": ".updated",
        "up~": "a",
        "worker": "w",
    }


def test_fields_stand_in_alphabetical_order():
    names = list(Short.__struct_encode_fields__)
    assert names == sorted(names)


def test_most_of_what_is_known_is_left_out():
    first = with_(
        created="",
        origin=-1,
        previous=-1,
        state="created",
        type="checkpoint.created",
        subject=Subject("a", task="t"),
    )
    known = {"age", "origin", "previous", "schema", "state", "type", "up", "up~"}
    assert not known & json.loads(event.encode(first)).keys()


@pytest.mark.parametrize(
    "time",
    [
        "t",
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.678901",
        "2026-01-02 03:04:05.678901Z",
        "2026-01-02T03:04:05.678901z",
        "2026-01-02T03:04:05,678901Z",
        "2026-01-02T03:04:05.67890 Z",
        "2026-01-02T03:04:05.67890\u0661Z",
        "2026-01-02T24:04:05.678901Z",
        "2026-02-30T03:04:05.678901Z",
        "2026-W01-1T03:04:05.678901Z",
        "0000-12-31T23:59:59.999999Z",
        "10000-01-01T00:00:00.000000Z",
        "20260102T030405.0006789.678901Z",
    ],
)
@pytest.mark.parametrize("name", ["time", "created"])
def test_a_time_that_could_not_come_back_is_refused_at_the_writer(name, time):
    with pytest.raises(FormatError, match="cannot be written"):
        event.encode(with_(**{name: time}))


@pytest.mark.parametrize(
    "reference",
    [
        Reference("leaf", "", 1),
        Reference("leaf", "ab", 1),
        Reference("leaf", "AB" * 32, 1),
        Reference("leaf", "ab " * 32, 1),
        Reference("leaf", "zz" * 32, 1),
        Reference("", "ab" * 32, 1),
        Reference("a,b", "ab" * 32, 1),
        Reference("Leaf", "ab" * 32, 1),
        Reference("é", "ab" * 32, 1),
        Reference("x" * 17, "ab" * 32, 1),
    ],
)
@pytest.mark.parametrize("name", ["data", "meta"])
def test_a_reference_that_could_not_come_back_is_refused_at_the_writer(name, reference):
    with pytest.raises(FormatError, match="cannot be written"):
        event.encode(with_(**{name: reference}))


@pytest.mark.parametrize("size", [-1, 2**53, 2**64])
def test_sizes_out_of_range_are_not_written(size):
    with pytest.raises(FormatError, match="negative or above"):
        event.encode(with_(data=Reference("leaf", "ab" * 32, size)))


def test_a_type_that_could_not_come_back_is_refused_at_the_writer():
    with pytest.raises(FormatError, match="type cannot be"):
        event.encode(with_(type=".updated"))


@pytest.mark.parametrize(
    "change",
    [
        {"step": 1.5},
        {"step": True},
        {"facts": {"a": None}},
        {"facts": {"é": 1}},
        {"actor": None},
        {"actor": "a\tb"},
        {"actor": "\ud800"},
        {"time": 7},
        {"id": None},
        {"subject": None},
        {"data": "text"},
        {"packs": (PackEntry(0, 0, "x"),)},
        {"new": -1},
        {"total": 2**53},
        {"origin": -2},
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_at_the_writer(change):
    with pytest.raises(FormatError, match="cannot be written"):
        event.encode(with_(**change))


ODD = [
    ('"at":1767323045678901', '"at":-9007199254740992'),
    ('"at":1767323045678901', '"at":9007199254740992'),
    ('"at":1767323045678901', '"at":"2026-01-02T03:04:05.678901Z"'),
    ('"at":1767323045678901', '"at":"x"'),
    ('"at":1767323045678901', '"at":1767323045678901.0'),
    ('"age":678900', '"age":"2026-01-02T03:04:05.000001Z"'),
    ('"age":678900', '"age":9007199254740992'),
    ('"at":1767323045678901,', ""),
    ('"made":"', '"id":"x","made":"'),
    ('"made":"-28356067187166,tTy1A+k",', ""),
    ('"made":"-28356067187166', '"made":"-028356067187166'),
    ('"made":"-28356067187166', '"made":" -28356067187166'),
    ('"made":"-28356067187166', '"made":"-2_8356067187166'),
    ('"made":"-28356067187166', '"made":"'),
    ('"made":"-28356067187166', '"made":"9999999999999999'),
    ("tTy1A+k", "tTy1A+"),
    ("tTy1A+k", "tTy1A+kk"),
    ("tTy1A+k", "tTy1A+k="),
    ("tTy1A+k", "tTy1A+k  "),
    ("tTy1A+k", "tTy1A-k"),
    (",123456,tree", ",123456,"),
    (",123456,tree", ",123456,leaf"),
    (",123456,tree", ",123456,tree,x"),
    (",123456,tree", ",+123456,tree"),
    (",123456,tree", ",0123456,tree"),
    (",123456,tree", ",-1,tree"),
    (",123456,tree", ",9007199254740992,tree"),
    (",123456,tree", ",123456,Tree"),
    (",123456,tree", ",,tree"),
    (",123456,tree", ""),
    ("q6urq6urq", "q6urq6ur"),
    ("q6urq6urq", "q6urq6urqq"),
    ("q6urq6urq", "q6ur 6urq"),
    ("q6urq6urq", "q6ur_6urq"),
    ('"up~":"a"', '"up":"b","up~":"a"'),
    ('"up~":"a"', '"up~":"aaaaaaaaaa"'),
    ('"step":7', '"step":7.0'),
    ('"step":7', '"step":-7'),
    ('"step":7', '"step":7,"odd":1'),
    ('"step":7', '"schema":1,"step":7'),
    ('"step":7', '"schema":2,"step":7'),
    ('"actor":"ada@host",', ""),
]


@pytest.mark.parametrize(("old", "new"), ODD)
def test_what_is_no_event_is_refused(old, new):
    text = ENTRY.decode()
    assert old in text
    assert is_refused(event.decode, text.replace(old, new, 1).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"up~":"a"', '"up":"1f1e-a~salt"'),
        ('"up~":"a"', '"up~":"-a"'),
        ('"type":".updated"', '"type":"checkpoint.updated"'),
        ('"step":7', '"state":"active","step":7'),
        ('"new":9', '"new":9,"new":9'),
        ('"step":7', '"step": 7'),
        ("tTy1A+k", "tTy1A+l"),
    ],
)
def test_what_says_it_in_another_way_is_not_canonical(old, new):
    text = ENTRY.decode()
    assert old in text
    data = text.replace(old, new, 1).encode()
    found = event.decode(data)
    assert not event.is_canonical(data, found)
    assert event.is_canonical(ENTRY, EVENT)


def test_facts_that_name_a_schema_are_told_from_an_event_that_does():
    for schema in (1, 2, 7):
        value = with_(facts={"schema": schema})
        assert event.decode(event.encode(value)) == value
        long = msgspec.structs.replace(value, schema=1)
        assert event.decode(event.encode(long)) == long


def sound(data: bytes) -> bool:
    """Say whether data is refused, canonical, or known not to be canonical."""
    found = outcome(event.decode, data)
    if isinstance(found, Refused):
        return True
    return event.is_canonical(data, found) == (reference_json(found) == data)


def test_every_flipped_bit_is_refused_or_another_event():
    for data in flips(ENTRY):
        assert sound(data)
        assert outcome(event.decode, data) != EVENT or not event.is_canonical(data, EVENT)


def test_every_cut_and_every_addition_is_refused():
    assert all(is_refused(event.decode, data) for data in cuts(ENTRY))
    assert all(is_refused(event.decode, data) for data in grown(ENTRY))


@given(data=mutated(ENTRY))
def test_mutations_end_in_our_errors_or_in_what_they_say(data):
    assert sound(data)


@given(age=numbers | st.integers(-(10**17), 10**17))
def test_ages_that_no_id_can_have_are_refused_or_come_back(age):
    data = ENTRY.replace(b"-28356067187166", str(age).encode())
    found = outcome(event.decode, data)
    if not isinstance(found, Refused):
        assert event.encode(found) == data
