"""Arrow's short cut against the rule: the same columns, and nothing that is no event."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import event as event_format
from ckptlog.model.event import Event, PackEntry, Reference, Subject
from ckptlog.views.history import entry_table
from ckptlog.views.history.entry_table import read
from tests.formats.strategies import short_events
from tests.views.history.scribe import Scribe

NUMBERS = st.integers(0, 2**53 - 1)
# What an event may hold: any character but control characters and surrogates.
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
REFERENCES = st.none() | st.builds(Reference, st.sampled_from(["leaf", "list"]), TEXTS, NUMBERS)
FACTS = st.dictionaries(st.sampled_from(["a", "b", "null"]), NUMBERS | TEXTS, max_size=3)
PACKS = st.lists(
    st.builds(PackEntry, NUMBERS, NUMBERS, st.just("0123456789abcdef" * 2)), max_size=2
).map(tuple)
EVENTS = st.builds(
    Event,
    actor=TEXTS,
    cause=TEXTS,
    created=TEXTS,
    data=REFERENCES,
    facts=st.just({}) | FACTS,
    fingerprint=TEXTS,
    id=TEXTS,
    meta=REFERENCES,
    new=NUMBERS,
    origin=NUMBERS | st.just(-1),
    packs=st.just(()) | PACKS,
    previous=NUMBERS | st.just(-1),
    sanitised=NUMBERS,
    schema=st.just(1),
    state=TEXTS,
    step=NUMBERS,
    subject=st.builds(Subject, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    time=TEXTS,
    total=NUMBERS,
    type=TEXTS,
)


def same(one, other):
    assert set(one) == set(other)
    for name in one:
        assert one[name].type == other[name].type, name
        assert one[name].to_pylist() == other[name].to_pylist(), name


@given(st.lists(EVENTS, min_size=1, max_size=8))
def test_both_ways_give_the_same_columns(events):
    entries = [event_format.encode(event) for event in events]
    by_rule = entry_table._one_by_one(entries)
    same(read(entries), by_rule)
    at_once = entry_table._at_once(entries)
    if at_once is None:  # only where a text could be taken for something else
        assert any(b"null" in entry for entry in entries)
    else:
        same(at_once, by_rule)


@pytest.mark.unmeasured
@given(st.lists(short_events, min_size=1, max_size=8))
def test_both_ways_give_the_same_columns_of_short_events(events):
    entries = [event_format.encode(event) for event in events]
    by_rule = entry_table._one_by_one(entries)
    same(read(entries), by_rule)
    at_once = entry_table._at_once(entries)
    if at_once is None:  # only where a text could be taken for something else
        is_odd = any(b"null" in entry or b'"schema":' in entry for entry in entries)
        times = [time for event in events for time in (event.time, event.created) if time]
        # Before or after them a time stands as text, or Arrow would write another.
        assert is_odd or any(not "1700" < time < "2254" for time in times)
    else:
        same(at_once, by_rule)


def test_events_of_both_schemas_are_read_together():
    entries = [GOOD, SHORT, GOOD, SHORT]
    same(read(entries), entry_table._one_by_one(entries))


def test_ordinary_events_take_the_short_cut(tmp_path):
    scribe = Scribe(tmp_path / "store")
    names = [scribe.create(worker="w") for _ in range(50)]
    for name in names:
        scribe.change(name, size=20)
    scribe.note()
    scribe.delete(names[0])
    scribe.commit()
    (commit,) = scribe.log.reader.commits()
    entries = [event_format.encode(entry.event) for entry in commit.entries]
    found = entry_table._at_once(entries)
    assert found is not None
    same(found, entry_table._one_by_one(entries))
    assert all(isinstance(column, pa.Array) for column in found.values())
    scribe.close()


GOOD = event_format.encode(
    Event(
        actor="a",
        created="2026-01-01T00:00:00.000000Z",
        data=Reference("leaf", "ab" * 32, 17),
        id="i",
        new=5,
        origin=3,
        previous=4,
        schema=1,
        state="active",
        step=2,
        subject=Subject("c", "n", "p", "t", "w"),
        time="2026-01-01T00:00:01.000000Z",
        total=9,
        type="checkpoint.updated",
    )
)


SHORT = event_format.encode(
    Event(
        actor="a",
        created="2026-01-01T00:00:00.000000Z",
        data=Reference("tree", "ab" * 32, 17),
        id="0661291fa72913b53cb503e9",
        new=5,
        origin=3,
        previous=4,
        schema=2,
        state="odd",
        step=2,
        subject=Subject("c~s", "n", "p~s", "t", "w"),
        time="2026-01-01T00:00:01.000000Z",
        total=9,
        type="checkpoint.updated",
    )
)


def by_rule(entries):
    try:
        return entry_table._one_by_one(entries)
    except (FormatError, UnsupportedError) as error:
        return type(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"new":5', b'"new":-5'),
        (b'"new":5', b'"new":5.0'),
        (b'"new":5', b'"new":5e0'),
        (b'"new":5', b'"new":"5"'),
        (b'"new":5', b'"new":true'),
        (b'"new":5', b'"new":null'),
        (b'"new":5', b'"new":9007199254740992'),
        (b'"new":5', b'"new":99999999999999999999'),
        (b'"new":5', b'"new":[5]'),
        (b'"new":5', b'"new":5,"new":6'),
        (b'"new":5', b'"new":5,"odd":6'),
        (b'"new":5', b'"new":05'),
        (b'"new":5,', b""),
        (b'"origin":3', b'"origin":-2'),
        (b'"schema":1', b'"schema":2'),
        (b'"schema":1', b'"schema":0'),
        (b'"schema":1,', b""),
        (b'"size":17', b'"size":-1'),
        (b'"kind":"leaf",', b""),
        (b'"kind":"leaf",', b'"kind":"leaf","more":1,'),
        (b'"data":{', b'"data":[{'),
        (b'"task":"t"', b'"task":7'),
        (b'"task":"t"', b'"task":"t","task":"u"'),
        (b'"task":"t"', b'"other":"t"'),
        (b'"state":"active"', b'"state":""'),
        (b'"state":"active"', b'"state":"a\\u0000b"'),
        (b'"state":"active"', b'"state":"\\ud800"'),
        (b'"state":"active"', b'"state":"\xff\xfe"'),
        (b'"state":"active"', b'"state":"a\nb"'),
        (b'"state":"active"', b'"state":"n\\u0075ll"'),
        (b'"actor":"a",', b""),
        (b'"actor":"a",', b'"actor":"a" , '),
        (b'"actor":"a",', b'"actor":"a",\n'),
        (b"{", b" {"),
        (b'"id":"i"', b'"id":"i"}\n{"id":"j"'),
        (b'"type":"checkpoint.updated"}', b'"type":"checkpoint.updated"'),
        (b'"type":"checkpoint.updated"}', b'"type":"checkpoint.updated"}}'),
        (b'"type":"checkpoint.updated"}', b'"type":"checkpoint.updated"}{}'),
        (b'"total":9', b'"total":9,"facts":{}'),
        (b'"total":9', b'"total":9,"facts":{"a":null}'),
        (b'"total":9', b'"total":9,"facts":"text"'),
        (b'"total":9', b'"total":9,"packs":[]'),
        (b'"total":9', b'"total":9,"packs":[{"base":1,"bytes":2,"id":"x"}]'),
    ],
)
def test_what_is_no_event_is_refused_as_the_rule_refuses_it(old, new):
    assert old in GOOD
    odd = GOOD.replace(old, new, 1)
    expected = by_rule([GOOD, odd, GOOD])
    if isinstance(expected, type):
        with pytest.raises(expected):
            read([GOOD, odd, GOOD])
    else:
        same(read([GOOD, odd, GOOD]), expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"age":1000000', b'"age":1767225601000001'),
        (b'"age":1000000', b'"age":-999999999999999999'),
        (b'"age":1000000,', b""),
        (b'"at":1767225601000000', b'"at":-1'),
        (b'"at":1767225601000000', b'"at":253402300800000000'),
        (b'"at":1767225601000000,', b""),
        (b'"actor":"a",', b""),
        (b",17,tree", b",17,leaf"),
        (b",17,tree", b",17"),
        (b",17,tree", b",017,tree"),
        (b",17,tree", b",9007199254740992,tree"),
        (b",17,tree", b",17,tree,tree"),
        (b'"q6ur', b'"q6u'),
        (b'"made":', b'"id":"x","made":'),
        (b'"made":', b'"made":"x","made":'),
        (b'"made":"', b'"made":" '),
        (b'"made":"', b'"made":"0'),
        (b'"up~":"p"', b'"up":"x","up~":"p"'),
        (b'"up~":"p"', b'"up~":"pp"'),
        (b'"up~":"p"', b'"up~":""'),
        (b'"previous":4', b'"previous":-1'),
        (b'"previous":4', b'"previous":-2'),
        (b'"previous":4,', b""),
        (b'"origin":3', b'"origin":9007199254740992'),
        (b'"state":"odd",', b""),
        (b'"state":"odd"', b'"state":""'),
        (b'"type":".updated"', b'"type":"."'),
        (b'"type":".updated",', b""),
        (b'"type":".updated"', b'"type":".odd"'),
        (b'"step":2', b'"schema":1,"step":2'),
        (b'"step":2', b'"schema":2,"step":2'),
        (b'"step":2', b'"facts":{"schema":1},"step":2'),
        (b'"step":2', b'"facts":{"a":null},"step":2'),
        (b'"step":2', b'"packs":[],"step":2'),
        (b'"step":2', b'"step":null'),
        (b'"step":2', b'"step":-1'),
        (b'"step":2', b'"odd":1,"step":2'),
    ],
)
def test_a_short_event_that_is_odd_is_taken_as_the_rule_takes_it(old, new):
    assert old in SHORT
    odd = SHORT.replace(old, new, 1)
    expected = by_rule([SHORT, odd, SHORT])
    if isinstance(expected, type):
        with pytest.raises(expected):
            read([SHORT, odd, SHORT])
    else:
        same(read([SHORT, odd, SHORT]), expected)


@pytest.mark.parametrize(
    "other", [b"", b"null", b"[]", b"{}", b"7", b" ", b"\xff", GOOD + b"\n" + GOOD]
)
def test_what_is_no_object_is_refused(other):
    for entries in ([other], [GOOD, other, GOOD], [other, GOOD + b"\n" + GOOD]):
        with pytest.raises(FormatError):
            read(entries)


@pytest.mark.parametrize("good", [GOOD, SHORT], ids=["long", "short"])
def test_random_damage_is_refused_as_the_rule_refuses_it(pytestconfig, good):
    chance = random.Random(5)
    for _ in range(20_000 if pytestconfig.getoption("--thorough") else 1500):
        odd = bytearray(good)
        for _ in range(chance.choice([1, 1, 2, 3])):
            at = chance.randrange(len(odd))
            act = chance.random()
            if act < 0.4:
                odd[at] = chance.randrange(256)
            elif act < 0.7:
                odd[at] = chance.choice(b'0123456789"{}[]:,\\\n -.enultrf')
            elif act < 0.85:
                del odd[at]
            else:
                odd.insert(at, chance.choice(b'0123456789"{}[]:,\\\n -.'))
        entries = [good, bytes(odd), good]
        expected = by_rule(entries)
        if isinstance(expected, type):
            with pytest.raises(expected):
                read(entries)
        else:
            same(read(entries), expected)
