"""The register of the file view: its bytes, and the index that is made from it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.model.cursor import Cursor
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.register import UNREADABLE, FileRow, Register, decode, index_of

STORE, BOOT = bytes(range(16)), bytes(range(16, 32))


def row(name="a", *, task="t", worker="", state="active", origin=0, position=0, digest=b"d" * 8):
    return FileRow(name, task, worker, state, origin, position, digest)


def filled():
    register = Register(STORE, BOOT)
    register.put(row("b", origin=3, worker="w", state="completed"))
    register.put(row("a", origin=1, task="u"))
    register.cursor = Cursor(9, b"l" * 32, "log/x.seg", 700)
    register.last_updated, register.index = "2026-01-02T03:04:05.000006Z", b"i" * 8
    return register


def test_a_register_comes_back():
    register = filled()
    register.is_whole = False
    again = decode(register.encode())
    assert list(again) == register.in_order() == [row("a", origin=1, task="u"), register.get("b")]
    for name in ("store_id", "boot", "cursor", "last_updated", "index", "is_whole"):
        assert getattr(again, name) == getattr(register, name), name
    assert again.encode() == register.encode()
    assert len(again) == 2


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(offset, mask):
    data = bytearray(filled().encode())
    data[offset % len(data)] ^= mask
    with pytest.raises(ViewDamagedError):
        decode(bytes(data))


@given(st.integers(0, 300))
def test_no_cut_goes_unnoticed(length):
    data = filled().encode()
    with pytest.raises(ViewDamagedError):
        decode(data[: length % len(data)])


def test_other_versions_and_hostile_records():
    from xxhash import xxh3_64_digest

    whole = msgspec.msgpack.decode(filled().encode()[8:])
    for change in (
        {0: 2},
        {0: "1"},
        {3: 1},
        {6: -1},
        {10: [["a"]]},
        {10: [[1, "t", "", "active", 0, 0, b""]]},
        {1: "text"},
    ):
        fields = [change.get(index, value) for index, value in enumerate(whole)]
        wire = msgspec.msgpack.encode(fields)
        with pytest.raises(ViewDamagedError):
            decode(xxh3_64_digest(wire) + wire)
    wire = msgspec.msgpack.encode([*whole, 1])
    with pytest.raises(ViewDamagedError):
        decode(xxh3_64_digest(wire) + wire)


def test_rows_by_task():
    register = filled()
    register.put(row("c", task="u", origin=5))
    assert register.of_task("u") == ("a", "c")
    register.put(row("a", task="u", origin=1, state="failed"))
    assert register.of_task("u") == ("a", "c")
    register.put(row("a", task="other", origin=1))
    assert (register.of_task("u"), register.of_task("other")) == (("c",), ("a",))
    register.drop("c")
    register.drop("never there")
    assert register.of_task("u") == ()
    assert [one.id for one in register.in_order()] == ["a", "b"]


def test_paths():
    assert row("a/b").path == "active/checkpoint_a%2Fb.json"
    assert row(state="completed").path == "completed/checkpoint_a.json"


def test_the_index_has_the_structure_of_the_specification():
    rows = [
        row("cp1", task="t1", worker="w1", state="active"),
        row("cp2", task="t1", worker="w2", state="completed"),
        row("cp3", task="t2", worker="w1", state="completed", digest=UNREADABLE),
    ]
    assert index_of(rows, "2026-01-02T03:04:05.000006Z", 7) == {
        "by_task": {"t1": ["cp1", "cp2"], "t2": ["cp3"]},
        "by_worker": {"w1": ["cp1", "cp3"], "w2": ["cp2"]},
        "by_state": {
            "created": [],
            "active": ["cp1"],
            "completed": ["cp2", "cp3"],
            "failed": [],
            "restored": [],
        },
        "metadata": {
            "last_updated": "2026-01-02T03:04:05.000006Z",
            "total_checkpoints": 3,
            "position": 7,
            "unreadable": ["cp3"],
        },
    }
    empty = index_of([], "", 0)
    assert empty["metadata"] == {"last_updated": None, "total_checkpoints": 0, "position": 0}
    assert (empty["by_task"], empty["by_worker"]) == ({}, {})
