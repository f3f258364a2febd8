"""The event's bytes: canonical JSON against an independent encoder (specs/event.md)."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import event
from ckptlog.formats.event import ENTRY_BYTES_MAX, INTEGER_MAX
from ckptlog.model import event as model
from ckptlog.model.event import Event, PackEntry, Reference, Subject
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import events, u64
from tests.formats.vectors import bytes_of, check, every, load

PACK_ID = "cd" * 16
EVENT = Event(
    actor="ada@host",
    data=Reference("list", "ab" * 32, 123_456),
    facts={"b": -1, "a": "é"},
    id="0123456789abcdef",
    packs=(PackEntry(41, 7, PACK_ID),),
    schema=1,
    step=7,
    subject=Subject(task="build"),
    time="2026-01-02T03:04:05.678901Z",
    type="checkpoint.updated",
)
ENTRY = event.encode(EVENT)
LEAST = Event(actor="a", id="i", schema=1, subject=Subject(), time="t", type="x")

# What is left out when it has its default value, written here once more, from the page.
DEFAULTS: dict[str, object] = {
    "cause": "",
    "created": "",
    "data": None,
    "facts": {},
    "fingerprint": "",
    "meta": None,
    "new": 0,
    "origin": -1,
    "packs": (),
    "removes": (),
    "previous": -1,
    "sanitised": 0,
    "state": "",
    "step": 0,
    "total": 0,
}


def with_(**changes) -> Event:
    return msgspec.structs.replace(EVENT, **changes)


def reference_json(value: Event) -> bytes:
    """Return RFC 8785 JSON, made by the standard library alone.

    On this subset (ASCII names, integers below 2**53, no control characters) the RFC is: names
    sorted, no white space, UTF-8, only quote and backslash escaped.
    """
    fields = msgspec.structs.asdict(value)
    kept = {k: v for k, v in fields.items() if k not in DEFAULTS or v != DEFAULTS[k]}
    kept["subject"] = {k: v for k, v in msgspec.structs.asdict(value.subject).items() if v}
    for name in ("data", "meta"):
        if name in kept:
            kept[name] = msgspec.structs.asdict(kept[name])
    if "packs" in kept:
        kept["packs"] = [msgspec.structs.asdict(pack) for pack in kept["packs"]]
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def utf16_sorted(value: object) -> object:
    """Return value with names in the order of RFC 8785, section 3.2.3: by UTF-16 code units."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: utf16_sorted(value[name]) for name in names}
    return [utf16_sorted(item) for item in value] if isinstance(value, list) else value


@every("event")
def test_golden(vector):
    value = check(vector, event.decode, None)
    if value is not None and "leaf_hash" in vector:
        assert event.encode(value) == bytes_of(vector)
        assert value.schema == 2 or bytes_of(vector) == reference_json(value)
        assert event.is_canonical(bytes_of(vector), value)
        assert event.leaf_hash(bytes_of(vector)).hex() == vector["leaf_hash"]


@pytest.mark.parametrize("name", [name for name in load("event") if name.startswith("loose-")])
def test_golden_that_decode_but_are_not_canonical(name):
    data = bytes_of(load("event")[name])
    assert not event.is_canonical(data, event.decode(data))


@given(value=events)
def test_round_trip_and_canonical(value):
    entry = event.encode(value)
    decoded = event.decode(entry)
    assert decoded == value
    assert event.decode(memoryview(entry)) == value
    assert event.is_canonical(entry, decoded)


@given(value=events)
def test_the_bytes_are_those_of_an_independent_rfc_8785(value):
    entry = event.encode(value)
    assert entry == reference_json(value)
    text = json.dumps(
        utf16_sorted(json.loads(entry)), ensure_ascii=False, separators=(",", ":")
    ).encode()
    assert entry == text


@given(text=st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20), max_size=40))
@pytest.mark.parametrize(
    "around", ['"{}"', "\\{}", "{}\\", "\x7f{}\x80", "\u2028{}\u2029", "🚀{}\U0010ffff"]
)
def test_odd_text_is_written_as_the_standard_library_writes_it(around, text):
    odd = around.replace("{}", text)
    value = with_(actor=odd, subject=Subject(task=odd), facts={"text": odd})
    assert event.encode(value) == reference_json(value)
    assert event.decode(event.encode(value)) == value


@pytest.mark.parametrize(
    "kind", [model.Event, model.Subject, model.Reference, model.PackEntry], ids=lambda k: k.__name__
)
def test_fields_stand_in_alphabetical_order(kind):
    names = list(kind.__struct_fields__)
    assert names == sorted(names)
    assert all(name.isascii() for name in names)


def test_facts_are_sorted_whatever_order_they_came_in():
    names = ["b", "a", "A", "_", "aa", "z9", "z10"]
    value = with_(facts=dict.fromkeys(names, 1))
    back = with_(facts=dict.fromkeys(reversed(names), 1))
    assert event.encode(value) == event.encode(back) == reference_json(value)
    assert list(event.decode(event.encode(value)).facts) == sorted(names)


CONTROLS = [chr(code) for code in range(0x20)]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: f"{ord(c):02x}")
@pytest.mark.parametrize("before", ["", "x", "\\", '"', '\\\\"', '\\"\\'])
def test_control_characters_are_refused_at_the_writer(control, before):
    for change in ({"actor": before + control}, {"facts": {"a": f"{before}{control}b"}}):
        with pytest.raises(FormatError, match="control character"):
            event.encode(with_(**change))


@given(text=st.text(st.sampled_from('\\"nu0tb/'), max_size=12))
def test_backslashes_and_letters_are_not_taken_for_control_characters(text):
    value = with_(actor=text)
    assert event.is_canonical(event.encode(value), value)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "\ud800"},
        {"subject": Subject(task="\udfff")},
        {"facts": {"a": "\ud83d"}},
    ],
)
def test_surrogates_are_refused_at_the_writer(change):
    with pytest.raises(FormatError, match="cannot be written"):
        event.encode(with_(**change))


OVER = INTEGER_MAX + 1
NUMBERS = ["new", "origin", "previous", "sanitised", "step", "total"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", [OVER, OVER * 2 + 1, 2**63, 2**64, 2**70, -2, -OVER, -(2**64)])
def test_numbers_out_of_range_are_neither_written_nor_read(name, number):
    with pytest.raises(FormatError, match="negative or above"):
        event.encode(with_(**{name: number}))
    data = msgspec.json.encode(with_(**{name: number}))
    with pytest.raises(FormatError):
        event.decode(data)


@pytest.mark.parametrize("name", ["data", "meta"])
@pytest.mark.parametrize("size", [OVER, -1, 2**64])
def test_sizes_out_of_range_are_neither_written_nor_read(name, size):
    value = with_(**{name: Reference("leaf", "", size)})
    with pytest.raises(FormatError, match="negative or above"):
        event.encode(value)
    with pytest.raises(FormatError):
        event.decode(msgspec.json.encode(value))


@pytest.mark.parametrize(
    "change",
    [
        {"packs": (PackEntry(0, 0, PACK_ID), PackEntry(OVER, 0, PACK_ID))},
        {"packs": (PackEntry(0, OVER, PACK_ID),)},
        {"packs": (PackEntry(-1, 0, PACK_ID),)},
        {"packs": (PackEntry(0, 0, ""),)},
        {"packs": (PackEntry(0, 0, "../../" + PACK_ID[:26]),)},
        {"packs": (PackEntry(0, 0, PACK_ID.upper()),)},
        {"facts": {"a": OVER}},
        {"facts": {"a": 1, "b": -OVER}},
        {"facts": {"é": 1}},
        {"facts": {"\U0001f680": 1, "\ufffd": 2}},  # UTF-16 would sort these the other way round
    ],
)
def test_facts_and_packs_out_of_range_are_neither_written_nor_read(change):
    with pytest.raises(FormatError, match="cannot be written"):
        event.encode(with_(**change))
    with pytest.raises(FormatError, match="no event"):
        event.decode(msgspec.json.encode(with_(**change)))


def test_the_largest_numbers_pass():
    numbers = dict.fromkeys(NUMBERS, INTEGER_MAX) | {
        "origin": INTEGER_MAX - 1,
        "previous": INTEGER_MAX - 1,
    }
    value = with_(**numbers, facts={"a": INTEGER_MAX, "b": -INTEGER_MAX})
    assert event.decode(event.encode(value)) == value


@pytest.mark.parametrize(
    "change",
    [
        {"step": 1.5},
        {"step": True},
        {"total": 2.0},
        {"total": None},
        {"step": "7"},
        {"new": 1.5},
        {"new": "7"},
        {"facts": {"a": True}},
        {"facts": {"a": 1.0}},
        {"facts": {"a": None}},
        pytest.param({"actor": object()}, id="actor-object"),
    ],
    ids=str,
)
def test_wrong_types_are_refused_at_the_writer(change):
    with pytest.raises(FormatError, match="cannot be written"):
        event.encode(with_(**change))


def test_an_entry_is_bounded_on_both_sides():
    spare = ENTRY_BYTES_MAX - len(event.encode(with_(actor="")))
    most = with_(actor="a" * spare)
    assert len(event.encode(most)) == ENTRY_BYTES_MAX
    assert event.decode(event.encode(most)) == most
    over = with_(actor="a" * (spare + 1))
    with pytest.raises(FormatError, match="65536 bytes is over") as caught:
        event.encode(over)
    assert "metadata" in caught.value.hint
    with pytest.raises(FormatError, match="65536 bytes is over"):
        event.decode(reference_json(over))


@pytest.mark.parametrize("schema", [3, 4, 2**31, 2**70])
def test_a_newer_schema_is_refused_by_number(schema):
    entry = ENTRY.replace(b'"schema":1', b'"schema":%d,"shape":{"x":[null,1.5]}' % schema)
    for data in (entry, ENTRY.replace(b'"schema":1', b'"schema":%d' % schema)):
        with pytest.raises(UnsupportedError, match=f"schema {schema};") as caught:
            event.decode(data)
        assert caught.value.context["schema"] == schema


@pytest.mark.parametrize("schema", ["0", "-1", "2", '"2"', "2.5", "null", "true", "[2]"])
def test_no_schema_is_not_a_newer_schema(schema):
    with pytest.raises(FormatError):
        event.decode(ENTRY.replace(b'"schema":1', b'"schema":' + schema.encode()))


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


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    data=st.binary(max_size=100)
    | documents.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)
def test_arbitrary_bytes_end_in_our_errors(data):
    assert is_refused(event.decode, data)


@given(name=st.sampled_from(Event.__struct_fields__), value=documents)
def test_any_value_in_any_field_ends_in_our_errors_or_is_sound(name, value):
    fields = json.loads(ENTRY) | {name: value}
    assert sound(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"facts":' + b"[" * 60_000,
        b'{"schema":3,"a":' + b"[" * 60_000,
        b"9" * 60_000,
    ],
)
def test_deep_and_long_json_ends_in_our_errors(data):
    assert is_refused(event.decode, data)


@given(position=u64, durable=u64, entry=st.binary(max_size=50))
def test_the_body_of_a_frame_round_trips(position, durable, entry):
    body = event.encode_body(position, durable, entry)
    assert event.decode_prefix(body) == (position, durable)
    assert event.decode_prefix(memoryview(body)) == (position, durable)
    assert body == position.to_bytes(8, "little") + durable.to_bytes(8, "little") + entry
    assert body[event.PREFIX_BYTES :] == entry


@pytest.mark.parametrize("length", range(event.PREFIX_BYTES))
def test_a_body_without_its_prefix_is_refused(length):
    with pytest.raises(FormatError, match="too short"):
        event.decode_prefix(bytes(length))


def test_the_leaf_hash_is_that_of_rfc_6962():
    assert event.leaf_hash(ENTRY) == hashlib.sha256(b"\x00" + ENTRY).digest()
    assert event.leaf_hash(memoryview(ENTRY)) == event.leaf_hash(ENTRY)
    # The empty leaf of the certificate transparency test data.
    empty = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert event.leaf_hash(b"").hex() == empty
    assert bytes(32) == event.LEAF_EMPTY
