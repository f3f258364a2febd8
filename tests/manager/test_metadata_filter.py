from __future__ import annotations

from decimal import Decimal

import pytest

from ckptlog import CheckpointManager
from ckptlog.errors import ArgumentError


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path) as opened:
        for number in range(12):
            metadata = {"run": f"r{number % 3}", "n": number, "tags": ["a"]}
            if number == 11:
                metadata = {"run": "r0", "n": Decimal(3), **{f"x{one}": one for one in range(90)}}
            opened.create_checkpoint(f"t{number % 2}", "T", number + 1, metadata=metadata)
        yield opened


def steps(found):
    return [one.step_number - 1 for one in found]


def test_checkpoints_are_found_by_metadata(manager):
    assert steps(manager.iterate(metadata={"run": "r0"})) == [0, 3, 6, 9, 11]
    assert steps(manager.iterate(metadata={"run": "r0"}, task_id="t1")) == [3, 9, 11]
    assert steps(manager.iterate(metadata={"run": "r0"}, limit=2, newest_first=True)) == [11, 9]
    assert steps(manager.iterate(metadata={"n": 3})) == [3, 11]
    assert steps(manager.iterate(metadata={"n": 3.0, "run": "r1"})) == []
    assert steps(manager.iterate(metadata={"tags": ["a"], "run": "r1"})) == [1, 4, 7, 10]
    assert steps(manager.iterate(metadata={"run": None})) == []
    assert len(steps(manager.iterate(metadata={}))) == 12


def test_what_a_change_made_of_metadata_is_found(manager):
    (name,) = [one.checkpoint_id for one in manager.iterate(metadata={"n": 4})]
    manager.update_checkpoint(name, metadata={"run": "new"})
    assert steps(manager.iterate(metadata={"run": "new"})) == [4]
    assert 4 not in steps(manager.iterate(metadata={"run": "r1"}))
    manager.delete_checkpoint(name)
    assert steps(manager.iterate(metadata={"run": "new"})) == []


@pytest.mark.parametrize("wrong", [5, "run", {1: 2}])
def test_a_wrong_filter_is_refused_at_once(manager, wrong):
    with pytest.raises(ArgumentError):
        manager.iterate(metadata=wrong)
