from __future__ import annotations

import pytest

import ckptlog
from ckptlog.cli.demo import SHIPPED
from ckptlog.errors import ArgumentError, ConflictError
from ckptlog.integrations.transcript import import_transcript, steps


@pytest.fixture
def manager(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "store") as manager:
        yield manager


def test_each_step_is_a_completed_checkpoint_with_the_whole_state(manager):
    identifiers = import_transcript(manager, SHIPPED)
    found = manager.get_task_checkpoints("demo_transcript")
    assert [checkpoint.checkpoint_id for checkpoint in found] == identifiers
    assert {checkpoint.state.value for checkpoint in found} == {"completed"}
    assert {checkpoint.total_steps for checkpoint in found} == {12}
    for checkpoint, step in zip(found, steps(SHIPPED), strict=True):
        assert checkpoint.data == step.state
        assert checkpoint.step_description == step.description
    assert not manager.can_recover_task("demo_transcript")


def test_a_task_that_is_there_is_left_alone(manager):
    import_transcript(manager, SHIPPED, task_id="mine")
    position = manager.store.position
    with pytest.raises(ConflictError):
        import_transcript(manager, SHIPPED, task_id="mine")
    assert manager.store.position == position
    assert len(import_transcript(manager, SHIPPED, task_id="another")) == 12


def test_a_bad_transcript_writes_nothing(manager, tmp_path):
    with pytest.raises(ArgumentError):
        import_transcript(manager, tmp_path / "none.traj")
    assert manager.store.position == 0
