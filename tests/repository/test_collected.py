"""What readers say of a payload that a compaction let go of: never that it is damaged."""

from __future__ import annotations

import os

import pytest

import ckptlog
from ckptlog.cli.exit_status import NOT_FOUND, status_of
from ckptlog.errors import MissingBlobError, PayloadCollectedError
from ckptlog.manager.error_recovery import CheckpointErrorRecovery
from tests.repository.ground import quiet


def rows(number):
    return {"rows": [os.urandom(300).hex() for _ in range(40)], "loss": number}


@pytest.fixture
def path(tmp_path):
    """Give a store: a (three states), b (deleted), c (its task was deleted), d (since)."""
    path = tmp_path / "store"
    with ckptlog.CheckpointManager(path, actor="x") as manager:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="a", data=rows(1))  # 0
        manager.update_checkpoint("a", data=rows(2))
        manager.update_checkpoint("a", data=rows(3))
        manager.create_checkpoint("t", "T", 2, checkpoint_id="b", data=rows(9))  # 3
        manager.delete_checkpoint("b")
        manager.create_checkpoint("u", "T", 2, checkpoint_id="c", data=rows(9))  # 5
        manager.delete_task("u")
        manager.create_checkpoint("v", "T", 1, checkpoint_id="d", data=rows(1))  # 7
    return path


@pytest.fixture
def dropped(path):
    with ckptlog.CheckpointManager(path, actor="x") as manager:
        quiet(manager, drop_superseded=True)
        manager.delete_checkpoint("d")
    return path


@pytest.mark.parametrize(("name", "at"), [("a", 0), ("a", 1), ("b", 3), ("c", 5)])
def test_it_says_which_event_and_since_when(dropped, name, at):
    with ckptlog.CheckpointManager(dropped) as manager:
        with pytest.raises(PayloadCollectedError) as caught:
            manager.get_checkpoint_at(name, at)
        told = [one for one in manager.store.events() if one.event.type == "gc.settled"]
    error = caught.value
    assert (error.code, status_of(error), error.retryable) == (
        "payload.collected",
        NOT_FOUND,
        False,
    )
    assert error.context["position"] == at
    by = [one for one in told if one.position == error.context["collected_by"]]
    assert [one.event.time in error.message for one in by] == [True]
    assert "corrupt" not in str(error)


def test_what_lives_or_was_deleted_since_is_read(dropped):
    with ckptlog.CheckpointManager(dropped) as manager:
        assert manager.get_checkpoint("a").data["loss"] == 3
        assert manager.get_checkpoint_at("d", 8).data["loss"] == 1


def test_what_only_was_replaced_stays_unless_told(path):
    with ckptlog.CheckpointManager(path, actor="x") as manager:
        quiet(manager)
        assert manager.get_checkpoint_at("a", 0).data["loss"] == 1
        with pytest.raises(PayloadCollectedError):
            manager.get_checkpoint_at("b", 3)


def test_a_history_that_outlives_its_store_says_it_too(dropped):
    with ckptlog.CheckpointManager(dropped) as manager:
        entries = manager.history("a")
    with pytest.raises(PayloadCollectedError):
        _ = entries[0].checkpoint
    assert entries[2].checkpoint.data["loss"] == 3


def test_what_should_be_there_is_missing_as_ever(dropped):
    (pack,) = dropped.glob("packs/*.pack")
    pack.unlink()
    with ckptlog.CheckpointManager(dropped) as manager:
        with pytest.raises(MissingBlobError) as caught:
            manager.get_checkpoint("a")
        assert caught.value.code == "blob.missing"


def test_a_search_passes_over_them_and_lists_them(dropped):
    with ckptlog.CheckpointManager(dropped) as manager:
        found = manager.store.bisect("data.loss > 2", checkpoint="a", linear=True)
    assert (found.position, found.collected, found.damaged) == (2, (0, 1), ())


def test_recovery_does_not_repair_for_it(dropped):
    with ckptlog.CheckpointManager(dropped) as manager:
        with pytest.raises(PayloadCollectedError) as caught:
            manager.get_checkpoint_at("a", 0)
        recovery = CheckpointErrorRecovery(manager)
        assert recovery.handle_storage_error(caught.value) is False
        assert recovery.mending is None


def test_the_past_in_files_marks_them(dropped, tmp_path):
    with ckptlog.open(dropped) as store:
        store.replay(3, into=tmp_path / "then")
    index = (tmp_path / "then" / "files" / "index.json").read_text()
    assert '"unreadable"' in index
