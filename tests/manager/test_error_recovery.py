"""CheckpointErrorRecovery: each kind of error, and what is done about it."""

from __future__ import annotations

import os
import shutil

import pytest

import ckptlog
from ckptlog.errors import (
    ArgumentError,
    BlobCorruptionError,
    CheckpointError,
    DeliveryError,
    DeniedError,
    FullError,
    LockTimeoutError,
    MissingBlobError,
    OutcomeUnknownError,
)
from ckptlog.manager.error_recovery import CheckpointErrorRecovery
from ckptlog.model.event import RECOVERED, REPAIRED


@pytest.fixture
def manager(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s", actor="tester") as manager:
        yield manager


def types(manager):
    return [entry.event.type for entry in manager.store.events()]


def spoil(manager, name, length=200):
    """Damage the bytes of a checkpoint's data in the log; return where."""
    entry = next(e for e in manager.store.events() if e.event.subject.checkpoint == name and e.span)
    path = manager.store.path / entry.container
    start = entry.offset - entry.span
    with path.open("r+b") as file:
        file.seek(start + 30)
        file.write(bytes(length))
    manager.store.blobs.close()
    return path


def noisy(manager, task, step=1):
    return manager.create_checkpoint(task, "T", step, data={"x": os.urandom(700).hex()})


def test_a_sound_checkpoint_needs_nothing(manager):
    recovery = CheckpointErrorRecovery(manager)
    assert recovery.attempt_auto_recovery(noisy(manager, "t"))
    assert not recovery.log
    assert not recovery.attempt_auto_recovery("cp_none_1_1")


def test_a_damaged_checkpoint_comes_back_from_a_copy(manager, tmp_path):
    name = noisy(manager, "t")
    before = manager.get_checkpoint(name).data
    manager.store.log.flush()
    shutil.copytree(manager.store.path, tmp_path / "copy")
    spoil(manager, name)
    with pytest.raises(CheckpointError):
        manager.get_checkpoint(name)
    recovery = CheckpointErrorRecovery(manager, copy=tmp_path / "copy")
    assert recovery.attempt_auto_recovery(name)
    assert manager.get_checkpoint(name).data == before
    assert recovery.mending.facts()["from_copy"] == 1
    assert types(manager)[-2:] == [REPAIRED, RECOVERED]


def test_what_is_lost_stays_lost_and_the_rest_is_named(manager):
    first, second = noisy(manager, "t"), noisy(manager, "t", 2)
    spoil(manager, second)
    recovery = CheckpointErrorRecovery(manager)
    assert not recovery.attempt_auto_recovery(second)
    (lost,) = recovery.mending.affected
    assert (lost.checkpoint, lost.recovery_point) == (second, first)
    assert manager.get_recovery_point("t").checkpoint_id == first
    assert manager.store.verify().problems == ()
    assert [(one.did, one.ok) for one in recovery.log] == [("repaired", False)]


def test_storage_errors(manager, tmp_path):
    noisy(manager, "t")
    recovery = CheckpointErrorRecovery(manager)
    assert recovery.handle_storage_error(FullError("full"))
    assert recovery.handle_storage_error(LockTimeoutError("busy"))
    assert recovery.handle_storage_error(OutcomeUnknownError("?"))
    assert recovery.handle_storage_error(MissingBlobError("gone"))
    assert not recovery.handle_storage_error(DeniedError("no"))
    assert [one.did for one in recovery.log] == [
        "compacted",
        "waited",
        "looked again",
        "repaired",
        "nothing",
    ]
    assert types(manager).count(RECOVERED) == 4
    facts = [e.event.facts for e in manager.store.events() if e.event.type == RECOVERED]
    assert facts[0] == {"did": "compacted", "error": "storage.full", "ok": 1}


def test_a_lock_that_stays_held_is_no_recovery(manager, tmp_path):
    with ckptlog.open(manager.store.path, timeout_s=0.05) as other:
        held = CheckpointErrorRecovery(ckptlog.CheckpointManager(store=other))
        with manager.store.log.exclusive(1.0):
            assert not held.handle_storage_error(LockTimeoutError("busy"))


def test_a_repair_that_fails(manager, monkeypatch):
    def fail(*_given, **_named):
        raise FullError("full")

    monkeypatch.setattr("ckptlog.repository.repair.repair", fail)
    recovery = CheckpointErrorRecovery(manager)
    assert not recovery.handle_corruption_error(BlobCorruptionError("x"))
    assert recovery.log[-1].did == "repair failed"


def test_network_errors_are_waited_out_a_few_times(manager, monkeypatch):
    waits = []
    monkeypatch.setattr(type(manager.store.environment), "sleep", lambda _, s: waits.append(s))
    recovery = CheckpointErrorRecovery(manager, attempts_max=3, delay_s=0.5)
    errors = [ConnectionResetError(), TimeoutError(), DeliveryError("x"), ConnectionError()]
    assert [recovery.handle_network_error(one) for one in errors] == [True, True, True, False]
    assert waits == [0.5, 1.0, 2.0]
    recovery.reset()
    assert recovery.handle_network_error(TimeoutError())
    assert not recovery.handle_network_error(ValueError("no network"))
    assert RECOVERED in types(manager)


@pytest.mark.parametrize(
    "options", [{"attempts_max": -1}, {"attempts_max": True}, {"delay_s": -1}, {"delay_s": "1"}]
)
def test_wrong_arguments(manager, options):
    with pytest.raises(ArgumentError):
        CheckpointErrorRecovery(manager, **options)
