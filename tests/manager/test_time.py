"""Clocks of every kind: times are UTC and aware, ids are unused and unique."""

from __future__ import annotations

from datetime import UTC

import pytest

from ckptlog import CheckpointManager

NOW_US = 1_700_000_000_000_000


@pytest.fixture
def frozen(environment):
    """A clock that stands still, until somebody sets `now_us`."""
    environment.time_us = NOW_US
    environment.now_us = lambda: environment.time_us
    return environment


def test_one_microsecond_for_all(manager, frozen):
    names = [manager.create_checkpoint("t", "T", 1) for _ in range(5)]
    assert names == [f"cp_t_1_{NOW_US + bump}" for bump in range(5)]
    assert {manager.get_checkpoint(name).created_at for name in names} == {
        manager.get_checkpoint(names[0]).created_at
    }
    assert manager.create_checkpoint("t", "T", 2) == f"cp_t_2_{NOW_US}"
    assert manager.create_checkpoint("u", "T", 1) == f"cp_u_1_{NOW_US}"


def test_tasks_whose_names_look_like_steps(manager, frozen):
    names = [
        manager.create_checkpoint(task, "T", step)
        for task, step in (("t", 1), ("t_1", 1), ("t_1_1", 1), ("t_1", 1), ("t", 1))
    ]
    assert len(set(names)) == 5


def test_a_clock_that_goes_back(manager, frozen):
    names = [manager.create_checkpoint("t", "T", 1)]
    for _ in range(4):
        frozen.time_us -= 1
        names.append(manager.create_checkpoint("t", "T", 1))
    frozen.time_us = NOW_US - 4
    names += [manager.create_checkpoint("t", "T", 1) for _ in range(3)]
    assert len(set(names)) == 8
    assert names[4] == f"cp_t_1_{NOW_US - 4}"
    assert names[5:] == [f"cp_t_1_{NOW_US + bump}" for bump in (1, 2, 3)]
    assert [one.checkpoint_id for one in manager.get_task_checkpoints("t")] == names
    assert manager.get_latest_checkpoint("t").checkpoint_id == names[-1]


def test_an_update_by_a_clock_that_went_back(manager, frozen):
    name = manager.create_checkpoint("t", "T", 1)
    frozen.time_us -= 3_600_000_000
    manager.update_checkpoint(name, data={"a": 1})
    found = manager.get_checkpoint(name)
    assert (found.created_at - found.updated_at).total_seconds() == 3600
    assert found.created_at.tzinfo is found.updated_at.tzinfo is UTC
    assert "updated_at is before created_at." in found.validate()
    assert manager.validate_checkpoint_integrity() == []


def test_a_far_future_id_does_not_disturb(manager, frozen):
    """It makes the look-up needed for ever, and takes nothing from the ids of today."""
    future = f"cp_t_1_{10**17}"
    manager.create_checkpoint("t", "T", 1, checkpoint_id=future)
    taken = f"cp_t_1_{NOW_US + 1}"
    manager.create_checkpoint("t", "T", 1, checkpoint_id=taken)
    assert manager.create_checkpoint("t", "T", 1) == f"cp_t_1_{NOW_US}"
    assert manager.create_checkpoint("t", "T", 1) == f"cp_t_1_{NOW_US + 2}"
    frozen.time_us = 10**17
    assert manager.create_checkpoint("t", "T", 1) == f"cp_t_1_{10**17 + 1}"


@pytest.mark.parametrize("rebuilds", [False, True])
def test_ids_after_reopening_and_after_deletes(tmp_path, frozen, rebuilds):
    """Ids that only a tombstone remembers are used, too."""
    from tests.manager.clock import open_at

    path = tmp_path / "again"
    with open_at(path, frozen) as store:
        manager = CheckpointManager(store=store)
        names = [manager.create_checkpoint("t", "T", 1) for _ in range(3)]
        manager.delete_checkpoint(names[1])
        manager.delete_task("t")
    with open_at(path, frozen) as store:
        if rebuilds:
            store.rebuild_views()
        manager = CheckpointManager(store=store)
        assert manager.create_checkpoint("t", "T", 1) == f"cp_t_1_{NOW_US + 3}"
        with manager.batch() as batch:
            assert batch.create_checkpoint("t", "T", 1) == f"cp_t_1_{NOW_US + 4}"


@pytest.mark.parametrize("time_us", [0, -1, -(10**15), 253_402_300_799_999_999])
def test_the_ends_of_time(manager, frozen, time_us):
    frozen.time_us = time_us
    names = [manager.create_checkpoint("t", "T", 1) for _ in range(3)]
    assert len(set(names)) == 3
    found = manager.get_checkpoint(names[0])
    assert found.created_at.timestamp() * 1e6 == pytest.approx(time_us, abs=40)
    assert manager.validate_checkpoint_integrity() == []


def test_command_ids_of_one_microsecond(manager, frozen):
    manager.create_checkpoint("t", "T", 1)
    for _ in range(50):
        manager.create_checkpoint("t", "T", 1)
    ids = [entry.event.id for entry in manager.store.events()]
    assert len(set(ids)) == 51
