"""Whoever may put a symbolic link into a store does not choose what its owner overwrites."""

from __future__ import annotations

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import CheckpointStorageError

_VICTIM = b"somebody's letter\n" * 40


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        for step in range(1, 9):
            manager.create_checkpoint("t", "T", step, data={"x": step}, checkpoint_id=f"t-{step}")
        manager.delete_checkpoint("t-1")
        manager.store.notary.sign()
    return path


@pytest.fixture(params=[_VICTIM, b""], ids=["long", "empty"])
def victim(tmp_path, request):
    victim = tmp_path / "victim"
    victim.write_bytes(request.param)
    return victim


def link(path, victim):
    path.unlink()
    path.symlink_to(victim)


def test_the_end_is_not_written_through_a_link(path, victim):
    before = victim.read_bytes()
    link(path / "log" / "end", victim)
    with (
        pytest.raises(CheckpointStorageError, match="is a symbolic link") as caught,
        CheckpointManager(path) as manager,
    ):
        manager.create_checkpoint("t", "T", 9)
    assert caught.value.context["path"] == str(path / "log" / "end")
    assert "itself" in caught.value.hint
    assert victim.read_bytes() == before


def test_a_segment_is_not_written_through_a_link(path, tmp_path):
    segment = max((path / "log").glob("*.seg"))
    elsewhere = tmp_path / "elsewhere"
    segment.rename(elsewhere)
    segment.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with (
        pytest.raises(CheckpointStorageError, match="is a symbolic link"),
        CheckpointManager(path) as manager,
    ):
        manager.create_checkpoint("t", "T", 9)
    assert elsewhere.read_bytes() == before


def test_the_leaves_are_not_written_through_a_link(path, victim):
    before = victim.read_bytes()
    leaves = path / "views" / "tree" / "leaves"
    link(leaves, victim)
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 9)
        manager.cleanup_old_checkpoints(retention={"keep_last": 3})
        manager.compact_checkpoint_storage()
        manager.store.verify()
        manager.store.notary.sign()
    assert victim.read_bytes() == before
    with ckptlog.open(path) as store:
        store.rebuild_views()
        assert store.verify().ok
    assert not leaves.is_symlink()
    assert victim.read_bytes() == before


def test_rows_of_the_tree_are_not_written_through_a_link(tmp_path, victim):
    from ckptlog.views.tiles import FileRow

    before = victim.read_bytes()
    (tmp_path / "row").symlink_to(victim)
    row = FileRow(tmp_path / "row")
    with pytest.raises(CheckpointStorageError, match="is a symbolic link"):
        row.write(0, bytes(32))
    row.cut(0)
    assert victim.read_bytes() == before
