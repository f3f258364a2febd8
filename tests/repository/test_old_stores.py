"""Stores that other versions wrote are read, and written on, for ever.

`tests/vectors/stores` holds whole stores (without the reserve), each with what its own version
said of it in `expected.json`: `before-trees` was written before payload trees, schema 1 of the
view; `with-trees` by the first version with trees and differences; `with-short-events` by the first
with events of schema 2 and the dictionary of chunks. They are never made anew.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager

STORES = Path(__file__).parents[1] / "vectors" / "stores"
NAMES = sorted(path.name.removesuffix(".tar.gz") for path in STORES.glob("*.tar.gz"))


@pytest.fixture(params=NAMES)
def old(request, tmp_path):
    """An old store, and what its version said of it."""
    path = tmp_path / request.param
    with tarfile.open(STORES / f"{request.param}.tar.gz") as archive:
        archive.extractall(path, filter="data")
    return path, json.loads((path / "expected.json").read_text())


def check(manager, expected):
    for fields in expected["checkpoints"]:
        assert manager.get_checkpoint(fields["checkpoint_id"]).to_dict() == fields
    for name, position, fields in expected["past"]:
        assert manager.get_checkpoint_at(name, position).to_dict() == fields
    types = [entry.event.type for entry in manager.store.events()]
    assert types[: len(expected["events"])] == expected["events"]


def test_is_read_as_its_version_read_it(old):
    path, expected = old
    with CheckpointManager(path) as manager:
        check(manager, expected)
        assert manager.get_checkpoint("gone-1") is None
        assert manager.store.verify().ok


def test_is_read_where_nothing_can_be_written(old):
    path, expected = old
    with ckptlog.open(path, read_only=True) as store:
        check(CheckpointManager(store=store), expected)


@pytest.mark.parametrize("views", ["kept", "gone"])
def test_is_written_on_as_it_is(old, views):
    path, expected = old
    if views == "gone":
        for file in sorted((path / "views").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
    info = (path / "store.json").read_bytes()
    with CheckpointManager(path) as manager:
        data = manager.get_checkpoint("grow-2").data
        data["lines"] += [f"new line {number}" for number in range(1000)]
        name = manager.create_checkpoint("grow", "Growing", 3, data=data)
        kind = manager.store.newest(name).event.data.kind
        assert kind == ("list" if "before" in path.name else "tree")
    with CheckpointManager(path) as manager:
        assert manager.get_checkpoint(name).data == data
        check(manager, expected)
        assert manager.store.verify().ok
    assert (path / "store.json").read_bytes() == info
