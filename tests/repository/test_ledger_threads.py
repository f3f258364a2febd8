"""Lives of a task and children of a parent, as events in memory and rows of the view tell them."""

from __future__ import annotations

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.repository.ledger import Stage


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path) as opened:
        yield opened


def ledger_of(manager):
    return manager.store._keeper.ledger


def test_lives_are_counted_once_whoever_has_them(manager):
    for life in range(4):
        assert manager.store.incarnation("t") == life
        manager.create_checkpoint("t", "T", 1)
        manager.delete_task("t")
        assert manager.store.incarnation("t") == life + 1
        if life % 2:
            manager.store.view()  # applied: the view has them now
        assert manager.store.incarnation("t") == life + 1
    assert manager.store.incarnation("other") == 0
    with ckptlog.open(manager.store.path) as other:
        assert other.incarnation("t") == 4
    manager.store.rebuild_views()
    assert manager.store.incarnation("t") == 4


@pytest.mark.parametrize("is_applied", [False, True])
def test_children_are_found_in_memory_and_in_the_view(manager, is_applied):
    parent = manager.create_checkpoint("t", "T", 1)
    child = manager.create_checkpoint("t", "T", 2, parent_checkpoint_id=parent)
    other = manager.create_checkpoint("t", "T", 2, parent_checkpoint_id=parent, namespace="n")
    if is_applied:
        manager.store.view()
    ledger = ledger_of(manager)
    assert ledger.has_child(parent, "t", "")
    assert ledger.has_child("", "t", "")
    assert not ledger.has_child(child, "t", "")
    assert not ledger.has_child(parent, "u", "")
    manager.delete_checkpoint(child)
    assert not ledger.has_child(parent, "t", "")
    assert ledger.has_child(parent, "t", "n")
    stage = Stage(ledger)
    assert stage.has_child(parent, "t", "n")
    manager.delete_task("t")
    assert not ledger.has_child(parent, "t", "n")
    assert other


def test_many_children_that_are_gone_hide_none(manager):
    parent = manager.create_checkpoint("t", "T", 1)
    names = [manager.create_checkpoint("t", "T", 2, parent_checkpoint_id=parent) for _ in range(20)]
    manager.store.view()
    for name in names[:-1]:
        manager.delete_checkpoint(name)
    assert ledger_of(manager).has_child(parent, "t", "")
    manager.delete_checkpoint(names[-1])
    assert not ledger_of(manager).has_child(parent, "t", "")
