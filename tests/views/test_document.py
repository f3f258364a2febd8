"""A checkpoint's file says what to_dict says, and its name is harmless."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptlog
from ckptlog.errors import FormatError
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.state import CheckpointState
from ckptlog.repository.snapshot import snapshot
from ckptlog.views.document import FOLDERS, document, folder_of, is_ours, name_of
from tests.policy.story import Story


def written(store, name):
    entry = store.newest(name)
    event = entry.event
    return document(entry, store.wire(event.data), store.wire(event.meta))


DATA = [
    {},
    {"plain": [1, 2.5, None, True, "ü\u2028\x1b"], "nested": {"a": {"b": []}}},
    {"bytes": b"\x00\xff", "tuple": (1, (2,)), "set": {1}, "big": 10**40, "nan": float("nan")},
    {"$bytes": "no tag"},
    {"$x": 1, "deep": json.loads("[" * 150 + "]" * 150)},
    {"long": "x" * 100_000},
]


@pytest.mark.parametrize("data", DATA, ids=range(len(DATA)))
def test_a_file_is_to_dict(tmp_path, data):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        parent = manager.create_checkpoint("t", "T", 1)
        name = manager.create_checkpoint(
            "t", "Ti\ttle", 2, "de\nscription", 5, data, {"$set": 1}, "w", parent, namespace="ns"
        )
        manager.fail_checkpoint(name, {"message": "x"})
        content = written(manager.store, name)
        checkpoint = manager.get_checkpoint(name)
    fields = json.loads(content)
    assert fields == json.loads(json.dumps(checkpoint.to_dict()))
    assert list(fields) == list(checkpoint.to_dict())
    assert repr(CheckpointData.from_dict(fields)) == repr(checkpoint)
    assert content.endswith(b"}\n")
    assert content.count(b"\n") == 1 if len(content) > 66_000 else content.count(b"\n") > 10


def test_an_event_without_payloads():
    entry = Story().say("created", "bare")
    fields = json.loads(document(entry, None, None))
    assert (fields["data"], fields["metadata"], fields["task_title"]) == ({}, {}, "")
    assert fields["total_steps"] is fields["worker_id"] is fields["parent_checkpoint_id"] is None


@pytest.mark.parametrize("wire", [b"{", b"", b"\xff", b'{"title": 1', b"[1]"])
def test_payloads_that_are_no_json(wire):
    entry = Story().say("created")
    with pytest.raises(FormatError):
        document(entry, wire or b"nonsense", b"{}")
    with pytest.raises(FormatError):
        document(entry, b"{}", wire or b"nonsense")


def test_deep_values_do_not_grow_without_bound():
    entry = Story().say("created")
    wire = b'{"a":' + b"[" * 180 + b",".join([b"1"] * 40_000) + b"]" * 180 + b"}"
    assert len(document(entry, wire, None)) < len(wire) + 2000


@pytest.mark.parametrize("state", list(CheckpointState))
def test_folders(state):
    wanted = state.value if state.value in ("completed", "failed") else "active"
    assert folder_of(state.value) == wanted
    assert wanted in FOLDERS


HOSTILE = ["..", ".", "a/b", "/etc/passwd", "a\\b", "con", "ü" * 200, "x" * 512, "-rf", "~", "a b"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_are_harmless(name):
    found = name_of(name)
    assert is_ours(found)
    assert found.isascii()
    assert len(found) <= 255
    assert not set(found) & set("/\\\0 ")
    assert not found.startswith((".", "-"))


def test_other_names_are_not_ours():
    assert not any(map(is_ours, ("checkpoint_x.txt", "x.json", "checkpoint_x.json.tmp", "")))


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_two_ids_never_share_a_name(one, other):
    for text in (one, other):
        if any("\ud800" <= character <= "\udfff" for character in text):
            return
    assert (name_of(one) == name_of(other)) == (one == other)


def test_a_snapshot_and_a_file_agree(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"n": (1,)})
        assert json.loads(written(manager.store, name)) == json.loads(
            json.dumps(snapshot(manager.store, manager.store.newest(name)).to_dict())
        )
