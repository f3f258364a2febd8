from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import ckptlog
from ckptlog.cli.demo import SHIPPED
from ckptlog.errors import ArgumentError, ConflictError, FullError
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


def test_a_task_that_is_there_is_left_alone(manager, tmp_path):
    manager.create_checkpoint("mine", "Mine", 1)
    import_transcript(manager, SHIPPED, task_id="other")
    changed = tmp_path / "changed.traj"
    changed.write_bytes(SHIPPED.read_bytes() + b"\n")
    position = manager.store.position
    for path, task in ((SHIPPED, "mine"), (changed, "other")):
        with pytest.raises(ConflictError, match="has checkpoints already"):
            import_transcript(manager, path, task_id=task)
    assert manager.store.position == position
    assert len(import_transcript(manager, SHIPPED, task_id="another")) == 12


def whole(manager, identifiers):
    found = manager.get_task_checkpoints("demo_transcript")
    assert [checkpoint.checkpoint_id for checkpoint in found] == identifiers
    assert [checkpoint.data for checkpoint in found] == [step.state for step in steps(SHIPPED)]
    assert {checkpoint.state.value for checkpoint in found} == {"completed"}
    assert manager.store.position == 36  # each created, active and completed once
    assert manager.validate_checkpoint_integrity() == []
    return True


def test_a_second_import_changes_nothing(manager):
    identifiers = import_transcript(manager, SHIPPED)
    assert import_transcript(manager, SHIPPED) == identifiers
    assert whole(manager, identifiers)


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize("stop", range(1, 14))
def test_an_import_that_was_stopped_goes_on(manager, monkeypatch, stop, is_committed):
    """At each of its 13 commits, before it or after it."""
    submit, calls = manager.store.submit, iter(range(1, 100))

    def failing(intent):
        if next(calls) != stop:
            return submit(intent)
        if is_committed:
            submit(intent)
        raise FullError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "submit", failing)
        with pytest.raises(FullError):
            import_transcript(manager, SHIPPED)
    manager.create_checkpoint("neighbour", "N", 1)
    manager.delete_task("neighbour")
    identifiers = import_transcript(manager, SHIPPED)
    assert len(identifiers) == len(set(identifiers)) == 12
    found = manager.get_task_checkpoints("demo_transcript")
    assert [checkpoint.checkpoint_id for checkpoint in found] == identifiers
    assert {checkpoint.state.value for checkpoint in found} == {"completed"}
    assert manager.store.position == 38
    assert manager.validate_checkpoint_integrity() == []


def test_another_process_goes_on_with_a_killed_import(tmp_path):
    program = """
import os, signal, sys
import ckptlog
from ckptlog.cli.demo import SHIPPED
from ckptlog.integrations.transcript import import_transcript
manager = ckptlog.CheckpointManager(sys.argv[1])
submit, calls = manager.store.submit, iter(range(100))
def dying(intent):
    if next(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return submit(intent)
manager.store.submit = dying
import_transcript(manager, SHIPPED)
"""
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")])
    assert died.returncode == -signal.SIGKILL
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        assert manager.store.position == 17
        assert whole(manager, import_transcript(manager, SHIPPED))


def test_a_deleted_task_is_imported_anew(manager):
    first = import_transcript(manager, SHIPPED)
    for _ in range(2):
        manager.delete_task("demo_transcript")
        again = import_transcript(manager, SHIPPED)
        assert not set(first) & set(again)
        found = manager.get_task_checkpoints("demo_transcript")
        assert [checkpoint.checkpoint_id for checkpoint in found] == again


def test_an_import_whose_first_step_was_deleted_is_refused(manager):
    first, *_ = import_transcript(manager, SHIPPED)
    manager.delete_checkpoint(first)
    with pytest.raises(ConflictError):
        import_transcript(manager, SHIPPED)


def test_a_task_that_can_be_no_id(manager, tmp_path):
    path = tmp_path / ("x" * 201)
    path.write_bytes(SHIPPED.read_bytes())
    with pytest.raises(ArgumentError, match="task_id has 201"):
        import_transcript(manager, path)
    assert manager.store.position == 0


def test_a_bad_transcript_writes_nothing(manager, tmp_path):
    with pytest.raises(ArgumentError):
        import_transcript(manager, tmp_path / "none.traj")
    assert manager.store.position == 0
