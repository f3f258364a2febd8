"""A file that takes another's place is its owner's, with its access list."""

from __future__ import annotations

import json
import os
import struct

import pytest

from ckptlog import CheckpointManager, FileComponent, TaskMaster
from ckptlog.storage.likeness import take_likeness

ACCESS_LIST = "system.posix_acl_access"


def entry(tag, rights, who=0xFFFFFFFF):
    return struct.pack("<HHI", tag, rights, who)


# user::rw-, user:1234:rw-, group::r--, mask::rw-, other::---
GIVEN = struct.pack("<I", 2) + b"".join(
    [entry(1, 6), entry(2, 6, 1234), entry(4, 4), entry(16, 6), entry(32, 0)]
)


@pytest.fixture
def given(tmp_path):
    """Return a function that gives a file an access list and an attribute, and looks at both."""

    def give(path):
        try:
            os.setxattr(path, ACCESS_LIST, GIVEN)
            os.setxattr(path, "user.ours", b"kept")
        except OSError:
            pytest.skip("no access lists here")
        return look(path)

    return give


def look(path):
    return {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}


def test_a_restored_file_keeps_who_may_use_it(tmp_path, given):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    before = given(path)
    part = FileComponent("file", path)
    payload = part.capture()
    path.write_text("[2]")
    part.restore(payload)
    assert (path.read_text(), look(path)) == ("[1]", before)
    assert part.verify_restored() == []


def test_a_tasks_file_keeps_who_may_use_it(tmp_path, given):
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({"tasks": [{"id": 1, "title": "T"}]}))
    before = given(path)
    with CheckpointManager(tmp_path / "store") as manager:
        assert TaskMaster(manager, path).set_status(1, "done")
    assert look(path) == before


def test_nothing_is_taken_from_what_is_not_there(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        take_likeness(file.fileno(), tmp_path / "nowhere")
        assert os.listxattr(file.fileno()) == []
