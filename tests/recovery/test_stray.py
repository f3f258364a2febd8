"""Pins that recoveries of older versions left: they go, and no other pin does."""

from __future__ import annotations

import pytest

from ckptlog import CheckpointManager, create_checkpoint_system
from ckptlog.capture.capturer import Capturer
from ckptlog.manager.fact import is_pinned
from ckptlog.model.event import RECOVERY_COMPLETED, RECOVERY_FAILED, RECOVERY_STARTED
from ckptlog.recovery.recovery import Recovery
from ckptlog.views.query import Filter
from tests.capture.sample import Value
from tests.service.system import Agents, settings


def pinned(manager):
    store = manager.store
    return {row.id for row in store.select(Filter(), after=None, limit=50) if is_pinned(store, row)}


@pytest.fixture
def recovery(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        recovery = Recovery(Capturer(manager, "sys", [Value("a", {"n": 0})]))
        recovery.capturer.capture()
        recovery.capturer.components["a"].value = {"n": 1}
        yield recovery


def older(recovery, *, until, is_rolled_back=False, task="sys"):
    """Do what the older version did, and is killed: (capture, safety)."""
    manager = recovery.capturer.manager
    info = recovery.find()
    safety = recovery.capturer.capture(
        description=f"before the recovery of {info.id}", tags=("safety",), reason="safety"
    )
    steps = [
        lambda: manager.pin_checkpoint(info.id),
        lambda: manager.pin_checkpoint(safety.id),
        lambda: manager.record(
            RECOVERY_STARTED,
            {
                "recovery": "r1", "capture": info.id, "safety": safety.id, "names": "*",
                "held": f"{info.id},{safety.id}",
            },
            task=task,
        ),
        lambda: manager.record(
            RECOVERY_FAILED if is_rolled_back else RECOVERY_COMPLETED,
            {"recovery": "r1", "capture": info.id, "rolled_back": 1}
            if is_rolled_back
            else {"recovery": "r1", "capture": info.id, "bytes": 1, "ms": 1},
            task=task,
        ),
        lambda: manager.unpin_checkpoint(info.id),
    ]  # fmt: skip
    for step in steps[:until]:
        step()
    return info, safety


@pytest.mark.parametrize("until", [1, 2, 4, 5])
@pytest.mark.parametrize("is_rolled_back", [False, True])
def test_what_was_killed_before_the_start_or_behind_the_end_goes(recovery, until, is_rolled_back):
    info, _ = older(recovery, until=until, is_rolled_back=is_rolled_back)
    assert len(pinned(recovery.capturer.manager)) == (1 if until in {1, 5} else 2)
    assert recovery.recover(info.id).status == "completed"
    assert pinned(recovery.capturer.manager) == set()


def test_what_an_unfinished_recovery_needs_stays_until_its_end(recovery):
    info, safety = older(recovery, until=3)
    assert recovery.sweep() == []
    assert pinned(recovery.capturer.manager) == {info.id, safety.id}
    assert recovery.resume().status == "completed"
    assert pinned(recovery.capturer.manager) == set()


def test_somebodys_own_pins_stay(recovery):
    manager = recovery.capturer.manager
    first = recovery.find()
    manager.pin_checkpoint(first.id)
    done = recovery.recover(first.id)  # `held` has only the safety capture
    recovery.capturer.components["a"].value = {"n": 2}
    own = recovery.capturer.capture()
    manager.pin_checkpoint(own.id)
    manager.unpin_checkpoint(own.id)
    manager.pin_checkpoint(own.id)
    manager.pin_checkpoint(done.safety_id)
    assert recovery.recover(own.id).status == "completed"
    assert recovery.sweep() == []
    assert pinned(manager) == {first.id, own.id, done.safety_id}


def test_a_pin_that_was_made_anew_is_somebodys_own(recovery):
    info, safety = older(recovery, until=4)
    manager = recovery.capturer.manager
    manager.unpin_checkpoint(info.id)
    manager.pin_checkpoint(info.id)
    assert recovery.sweep() == [safety.id]
    assert pinned(manager) == {info.id}


def test_a_service_sweeps_when_the_system_becomes_its_own(tmp_path):
    path = tmp_path / "store"

    def service():
        return create_checkpoint_system(
            settings(path, intervalSeconds=600), {"agentManager": Agents()}
        )

    with service() as one:
        one.create_checkpoint("good")
        system = one.config.system
    with CheckpointManager(path) as manager:
        recovery = Recovery(Capturer(manager, system, [Value("agents", {"step": 9})]))
        older(recovery, until=4, task=system)
        assert len(pinned(manager)) == 2
    with service():
        pass
    with CheckpointManager(path) as manager:
        assert pinned(manager) == set()
