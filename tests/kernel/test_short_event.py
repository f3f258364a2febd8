"""The kernel's reading of schema 2 against the long way: the same event, or none."""

from __future__ import annotations

import json
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import event, short_event
from ckptlog.formats.short_event import Short
from ckptlog.kernel import native
from ckptlog.model.event import INTEGER_MAX, Event, Reference, Subject
from tests.formats.mutation import cuts, flips, grown, mutated
from tests.formats.strategies import made_ids, short_events

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
ENTRY = event.encode(EVENT)
RARE = {"cause", "facts", "fingerprint", "packs", "removes", "sanitised"}
decode = msgspec.json.Decoder(Short).decode


def long_way(entry: bytes) -> Event | None:
    """Return the event as Python reads it; None where it refuses."""
    try:
        return short_event.unpack(decode(entry))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, FormatError):
        return None


def is_sound(entry: bytes) -> bool:
    """Say whether the kernel reads nothing, or what the long way reads."""
    found = short_event.decoded(entry)
    return found is None or (found == long_way(entry) and is_typed(found))


def is_typed(found: Event) -> bool:
    """Say whether every field is of its type: equality takes True for 1."""
    return msgspec.convert(msgspec.to_builtins(found), Event, strict=True) == found


def text(**members) -> bytes:
    """Return an entry of these members, as they stand, in the order of their names."""
    fields = {"actor": "a", "at": 1_767_323_045_678_901, "id": "i"}
    kept = {name: told for name, told in (fields | members).items() if told is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(value=short_events)
def test_it_reads_what_the_long_way_reads_or_nothing(value):
    entry = event.encode(value)
    found = short_event.decoded(entry)
    is_rare = b"\\" in entry or RARE & json.loads(entry).keys() or b'"at":"' in entry
    assert found == value or (found is None and (is_rare or b'"age":"' in entry))
    assert is_sound(entry)


@given(value=short_events, identifier=made_ids)
def test_ordinary_events_are_read_by_it(value, identifier):
    words = {name: f"é{name}"[value.step % 2 :] for name in ("actor", "state", "type")}
    value = msgspec.structs.replace(
        value,
        **words,
        cause="",
        created="" if value.new % 3 else "2025-02-03T04:05:06.070809Z",
        facts={},
        fingerprint="",
        id=identifier,
        packs=(),
        removes=(),
        sanitised=0,
        subject=Subject("a-1~b", "n" * (value.step % 40), "a-2~b", "tâche", ""),
        time="2026-01-02T03:04:05.678901Z",
    )
    entry = event.encode(value)
    assert short_event.decoded(entry) == long_way(entry) == value
    assert is_typed(short_event.decoded(entry))


def test_every_flipped_bit_cut_and_addition():
    assert short_event.decoded(ENTRY) == EVENT
    assert all(map(is_sound, flips(ENTRY)))
    assert all(short_event.decoded(entry) is None for entry in cuts(ENTRY))
    assert all(short_event.decoded(entry) is None for entry in grown(ENTRY))


@given(entry=mutated(ENTRY))
def test_mutations(entry):
    assert is_sound(entry)


fragments = st.sampled_from(
    [
        "0",
        "-0",
        "1",
        "-1",
        "00",
        "01",
        "-01",
        "7.0",
        "1e3",
        "9007199254740991",
        "-9007199254740991",
        "9007199254740992",
        "-9007199254740992",
        "99999999999999999999",
        "true",
        "null",
        "[]",
        "{}",
        '""',
        '"x"',
        '"."',
        '".x"',
        '".created"',
        '".failed"',
        '"checkpoint.failed"',
        '"checkpoint"',
        '"~"',
        '"a~b"',
        '"ab~"',
        '"é"',
        '"é~é"',
        '"\\u0061"',
        '"\\""',
        '"a',
        'b"',
        '"',
        '"q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s,1"',
        '"q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s,1,x"',
        '"q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6t,1"',
        '"0,AAAAAAA"',
        '"-1,AAAAAA8"',
        '"1,AAAAAAB"',
        '"2026-01-02T03:04:05.678901Z"',
    ]
)
names = st.sampled_from([*Short.__struct_encode_fields__, "schema", "zoo", "Actor", "actor\\u0000"])


@given(
    members=st.lists(st.tuples(names, fragments), max_size=6),
    is_sorted=st.booleans(),
    joint=st.sampled_from([",", ",", ",", ", ", ",,"]),
)
def test_members_of_all_kinds(members, is_sorted, joint):
    told = [("actor", '"a"'), ("at", "1767323045678901"), ("id", '"i"'), *members]
    if is_sorted:
        told = sorted(dict(told).items())
    entry = "{" + joint.join(f'"{name}":{value}' for name, value in told) + "}"
    assert is_sound(entry.encode())


@pytest.mark.parametrize(
    "members",
    [
        {"actor": None},
        {"at": None},
        {"id": None},
        {"id": None, "made": ""},
        {"made": "0,AAAAAAA"},
        {"id": "", "made": "0,AAAAAAA"},
        {"id": None, "made": "-0,AAAAAAA"},
        {"id": None, "made": "0,AAAAAAB"},
        {"id": None, "made": "0,AAAAAA"},
        {"id": None, "made": "0,AAAAAAA  "},
        {"id": None, "made": "0,AAAAAAAx"},
        {"id": None, "made": "0"},
        {"id": None, "made": "1767323045678902,AAAAAAA"},
        {"id": None, "made": f"{1_767_323_045_678_901 - 2**56},AAAAAAA"},
        {"cp": "ab", "up": "x", "up~": "y"},
        {"cp": "ab", "up~": "abc"},
        {"cp": "a~b", "up~": "ab"},
        {"cp": "éa", "up~": "b"},
        {"cp": "aa", "up~": "é"},
        {"up~": "a"},
        {"data": "x"},
        {"data": "A" * 43},
        {"data": "A" * 43 + ","},
        {"data": "A" * 43 + ",01"},
        {"data": "A" * 43 + ",-1"},
        {"data": "A" * 43 + ",1,"},
        {"data": "A" * 43 + ",1,leaf"},
        {"data": "A" * 43 + ",1,X"},
        {"data": "A" * 43 + ",1,é"},
        {"data": "A" * 43 + ",1," + "x" * 17},
        {"data": "A" * 43 + f",{INTEGER_MAX + 1}"},
        {"meta": "A" * 42 + "B,1"},
        {"meta": "A" * 42 + "=,1"},
        {"age": INTEGER_MAX + 1},
        {"age": "2026-01-02T03:04:05.000001Z"},
        {"at": str(1)},
        {"at": INTEGER_MAX + 1},
        {"new": -1},
        {"origin": -2},
        {"step": True},
        {"step": 1.0},
        {"total": None, "worker": "\t"},
        {"worker": '"'},
        {"worker": "x" * 5000},
        {"facts": {}},
        {"schema": 1},
        {"schema": 2},
    ],
    ids=str,
)
def test_what_is_not_ordinary_is_left_to_the_long_way(members):
    entry = text(**members)
    assert short_event.decoded(entry) is None
    assert short_event.decoded(memoryview(entry)) is None


@pytest.mark.parametrize(
    ("members", "field", "expected"),
    [
        ({"type": ".failed"}, "state", "failed"),
        ({"type": ".failed", "state": ""}, "state", ""),
        ({"type": "checkpoint.failed"}, "state", "failed"),
        ({"type": ".odd"}, "type", "checkpoint.odd"),
        ({"type": ".odd"}, "state", ""),
        ({"type": "."}, "type", "checkpoint."),
        ({"type": ""}, "type", ""),
        ({}, "type", "checkpoint.created"),
        ({}, "state", "created"),
        ({"origin": 5}, "previous", 5),
        ({"origin": 5, "previous": -1}, "previous", -1),
        ({"id": None, "made": "1767323045678901,AAAAAAA "}, "id", "0" * 24 + " "),
        ({"id": None, "made": f"{1_767_323_045_678_902 - 2**56},//////8"}, "id", "f" * 24),
        ({"age": 0}, "created", "2026-01-02T03:04:05.678901Z"),
        ({"at": INTEGER_MAX, "age": -INTEGER_MAX}, "created", "2540-11-07T23:35:09.481982Z"),
    ],
    ids=str,
)
def test_what_is_left_out_is_worked_out(members, field, expected):
    found = short_event.decoded(text(**members))
    assert found == long_way(text(**members))
    assert getattr(found, field) == expected


def test_every_day_of_four_centuries():
    """Of the calendar nothing repeats later."""
    first, day = datetime(1700, 2, 27, tzinfo=UTC), timedelta(days=1)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    start = (first - epoch).days * 86_400_000_000
    for number in range(146_097):
        at = start + number * 86_400_000_000 + number
        found = native.short_event(b'{"actor":"","at":%d,"id":""}' % at, short_event._PARTS)
        expected = (first + number * day).strftime("%Y-%m-%dT00:00:00.") + f"{number:06}Z"
        assert found.time == expected


@given(at=st.integers(-INTEGER_MAX, INTEGER_MAX), age=st.integers(-INTEGER_MAX, INTEGER_MAX))
@example(at=-INTEGER_MAX, age=INTEGER_MAX)
def test_times_within_reach(at, age):
    entry = text(at=at, age=age)
    assert short_event.decoded(entry) == long_way(entry) is not None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_all_kinds(kind):
    assert event.decode(kind(ENTRY)) == short_event.decoded(kind(ENTRY)) == EVENT


def test_a_part_of_other_bytes():
    whole = memoryview(b"xx" + ENTRY + b"yy")
    assert short_event.decoded(whole[2:-2]) == EVENT
    assert short_event.decoded(whole[2:-1]) is None
    doubled = bytes(byte for one in ENTRY for byte in (one, 0))
    assert short_event.decoded(memoryview(doubled)[::2]) is None


@pytest.mark.parametrize("entry", ["{}", ENTRY.decode(), None, 7, b"", b"{", b"{}", b"[]", b'{"'])
def test_what_is_no_entry_is_left_to_the_long_way(entry):
    assert short_event.decoded(entry) is None


def test_an_entry_of_the_other_schema_is_left_to_the_long_way():
    long = event.encode(msgspec.structs.replace(EVENT, schema=1))
    assert short_event.decoded(long) is None
    assert event.decode(long).schema == 1


def test_text_that_is_no_utf_8():
    for odd in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"):
        entry = ENTRY.replace(b"build", b"build" + odd)
        assert short_event.decoded(entry) is None
        with pytest.raises(FormatError):
            event.decode(entry)


def test_other_parts_are_refused():
    parts = short_event._PARTS
    odd = [parts[:-1], (), None, [*parts], (*parts[:3], ("actor",), *parts[4:])]
    odd += [(*parts[:4], ("checkpoint.created",), *parts[5:]), (*parts[:4], None, *parts[5:])]
    for one in odd:
        with pytest.raises(TypeError):
            native.short_event(ENTRY, one)
    with pytest.raises(TypeError):
        native.short_event(ENTRY)


def test_what_a_class_raises_comes_through():
    parts = short_event._PARTS
    for place in range(3):
        broken = list(parts)
        broken[place] = int
        with pytest.raises(TypeError):
            native.short_event(ENTRY, tuple(broken))


def test_nothing_is_kept():
    late = ENTRY.replace(b'"up~":"a"', b'"up~":"aaaaaaaaaa"')
    entries = [ENTRY, ENTRY[:-1], ENTRY.replace(b"q6s,", b"q6t,"), late]
    shared = [*short_event._PARTS, *short_event._TYPES]
    for _ in range(2):
        counts = [sys.getrefcount(one) for one in shared]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for entry in entries * 500:
            short_event.decoded(entry)
        grown_by = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown_by < 4096
    assert [sys.getrefcount(one) for one in shared] == counts
