"""What a new payload relies on is there: what lies in a pack that is gone is stored again."""

from __future__ import annotations

import random

import pytest

import ckptlog
from ckptlog.errors import MissingBlobError

TEXT = random.Random(1).randbytes(3000).hex()
MORE = random.Random(2).randbytes(300_000).hex()


@pytest.fixture
def lacking(tmp_path, small_packs):
    """A store with one checkpoint, whose pack is gone."""
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="a", data={"text": TEXT})
        manager.create_checkpoint("u", "U", 1, checkpoint_id="b", data={"text": TEXT, "more": MORE})
    for pack in (path / "packs").iterdir():
        pack.unlink()
    return path


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("t", {"text": TEXT}),
        ("t", {"text": TEXT, "n": 1}),
        ("u", {"text": TEXT, "more": MORE}),
        ("u", {"text": TEXT, "more": MORE + "."}),
    ],
    ids=["the-same", "a-little-more", "the-same-tree", "a-tree-with-more"],
)
def test_what_lies_in_a_pack_that_is_gone_is_stored_again(lacking, task, data):
    with ckptlog.CheckpointManager(lacking) as manager:
        manager.create_checkpoint(task, "T", 2, checkpoint_id="new", data=data)
        manager.create_checkpoint(task, "T", 3, checkpoint_id="next", data={**data, "x": 1})
    with ckptlog.CheckpointManager(lacking) as manager:
        assert manager.get_checkpoint("new").data == data
        assert manager.get_checkpoint("next").data == {**data, "x": 1}


def test_a_pack_that_goes_while_a_store_is_open_is_missed_when_it_is_read(tmp_path, small_packs):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="a", data={"text": TEXT})
        manager.create_checkpoint("t", "T", 2, checkpoint_id="b", data={"text": TEXT, "n": 1})
        for pack in (tmp_path / "s" / "packs").iterdir():
            pack.unlink()
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        with pytest.raises(MissingBlobError):
            manager.get_checkpoint("a")
        manager.create_checkpoint("t", "T", 3, checkpoint_id="c", data={"text": TEXT})
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        assert manager.get_checkpoint("c").data == {"text": TEXT}
