"""Parts of a checkpoint's data."""

from __future__ import annotations

import pytest

from ckptlog import ArgumentError, CheckpointManager, CheckpointNotFoundError, NoSuchPartError

MESSAGES = [{"n": n, "text": f"message {n} " * 40} for n in range(500)]


@pytest.fixture
def name(manager):
    data = {"messages": MESSAGES, "pair": (1, {"$x": b"bytes"}), "when": None}
    return manager.create_checkpoint("t", "T", 1, data=data)


def test_parts_as_they_were_stored(manager, name):
    assert manager.get_part(name, "messages", -1) == MESSAGES[-1]
    assert manager.get_part(name, "pair") == (1, {"$x": b"bytes"})
    assert manager.get_part(name, "pair", 1, "$x") == b"bytes"
    assert manager.get_part(name, "when") is None
    assert manager.get_part(name)["messages"] == MESSAGES


def test_from_the_disk_too(manager, name, store):
    with CheckpointManager(store.path) as other:
        assert other.get_part(name, "messages", 250, "n") == 250
        assert other.store.blobs.cached_bytes < 40_000


def test_what_is_wrong_is_told(manager, name):
    with pytest.raises(NoSuchPartError, match=r"\['messages'\]\[500\]"):
        manager.get_part(name, "messages", 500)
    with pytest.raises(CheckpointNotFoundError):
        manager.get_part("nobody", "messages")
    with pytest.raises(ArgumentError, match="no step of a path"):
        manager.get_part(name, 1.5)  # type: ignore[arg-type]


def test_a_part_is_the_callers_own(manager, name):
    manager.get_part(name, "messages", 3)["text"] = "changed"
    assert manager.get_part(name, "messages", 3) == MESSAGES[3]
