from __future__ import annotations

import json
import re

import msgspec
from hypothesis import given

from ckptlog.formats import cloud_event
from ckptlog.model.entry import Entry
from ckptlog.model.event import Event, Reference, Subject
from tests.formats.strategies import digests, events

STORE = "000102030405060708090a0b0c0d0e0f"
LEAF = bytes(range(32))
EVENT = Event(
    actor="ada@laptop",
    data=Reference("leaf", "ab" * 32, 7),
    id="c1",
    schema=1,
    state="created",
    step=2,
    subject=Subject(checkpoint="cp_1", namespace="n", task="t"),
    time="2026-01-01T00:00:00.000001Z",
    type="checkpoint.created",
)


def entry(event, position=42):
    return Entry(event, position, "log/x", 100, 50, 0)


def test_the_attributes_of_the_page():
    assert cloud_event.cloud_event(entry(EVENT), LEAF, STORE) == {
        "specversion": "1.0",
        "id": "42-0001020304050607",
        "source": f"urn:ckptlog:store:{STORE}",
        "type": "checkpoint.created",
        "subject": "cp_1",
        "time": "2026-01-01T00:00:00.000001Z",
        "sequence": "00000000000000000042",
        "partitionkey": "t",
        "datacontenttype": "application/json",
        "data": {
            "position": 42,
            "leaf": LEAF.hex(),
            "actor": "ada@laptop",
            "data": {"kind": "leaf", "root": "ab" * 32, "size": 7},
            "id": "c1",
            "schema": 1,
            "state": "created",
            "step": 2,
            "subject": {"checkpoint": "cp_1", "namespace": "n", "task": "t"},
            "time": "2026-01-01T00:00:00.000001Z",
            "type": "checkpoint.created",
        },
    }


def test_an_event_about_a_task_or_about_nothing():
    about_task = msgspec.structs.replace(EVENT, subject=Subject(task="t"))
    found = cloud_event.cloud_event(entry(about_task), LEAF, STORE)
    assert (found["subject"], found["partitionkey"]) == ("t", "t")
    about_nothing = msgspec.structs.replace(EVENT, subject=Subject())
    found = cloud_event.cloud_event(entry(about_nothing), LEAF, STORE)
    assert not {"subject", "partitionkey"} & set(found)


@given(event=events.filter(lambda event: event.type and event.time), leaf=digests)
def test_it_is_one_line_of_json_with_the_whole_event(event, leaf):
    data = cloud_event.encode(entry(event), leaf, STORE)
    assert b"\n" not in data
    found = json.loads(data)
    made = cloud_event.cloud_event(entry(event), leaf, STORE)
    assert list(found) == list(made)
    assert all(found[name] == made[name] for name in made if name != "data")
    inner = {
        name: found["data"][name] for name in found["data"] if name not in ("position", "leaf")
    }
    assert msgspec.convert(inner, Event) == event
    for name, value in found.items():  # the rules of CloudEvents for attributes
        assert re.fullmatch("[a-z0-9]{1,20}", name)
        assert value not in ("", None)


def test_ids_differ_between_positions_and_histories():
    ids = {cloud_event.event_id(n, bytes([m]) * 32) for n in range(3) for m in range(3)}
    assert len(ids) == 9
    assert not any("." in one for one in ids), "a dot would part the signed content"
