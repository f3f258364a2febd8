"""Each call of a component has a deadline, also those before anything is touched."""

from __future__ import annotations

import threading

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import RecoveryRefusedError
from ckptlog.model.component import Plan
from ckptlog.recovery.recovery import Recovery
from tests.capture.sample import Value


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


class Hanging(Value):
    """Hangs in one of its methods until the gate is open."""

    schema_version = 1
    gate = None
    step = ""

    def _pass(self, step):
        if step == self.step:
            self.gate.wait(60)

    def validate(self, _payload):
        self._pass("validate")
        return []

    def migrate(self, payload, _version):
        self._pass("migrate")
        return payload

    def plan(self, _stored):
        self._pass("plan")
        return Plan((), 0, "")


@pytest.fixture
def world(tmp_path, gate):
    part, other = Hanging("a", 1), Value("b", 1, depends_on=["a"])
    part.gate = gate
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "sys", [part, other])
        capturer.capture()
        part.schema_version = 2
        part.value = other.value = 2
        capturer = Capturer(manager, "sys", [part, other])
        yield part, other, Recovery(capturer, deadline_s=0.2)


@pytest.mark.parametrize(
    ("step", "components"), [("validate", None), ("migrate", None), ("plan", ["b"])]
)
def test_a_recovery_is_refused_and_names_it(world, gate, step, components):
    part, other, recovery = world
    part.step = step
    with pytest.raises(RecoveryRefusedError, match=rf"'a' did not come back from {step}\(\)"):
        recovery.recover(components=components)
    assert (part.value, other.value) == (2, 2)
    with pytest.raises(RecoveryRefusedError, match="still hangs"):
        recovery.recover()
    gate.set()
    for thread in recovery.guards.hung.values():
        thread.join()
    assert recovery.recover().status == "completed"


@pytest.mark.parametrize("step", ["validate", "migrate", "plan"])
def test_a_dry_run_tells_it(world, step):
    part, _, recovery = world
    part.step = step
    done = recovery.recover(dry_run=True)
    assert done.status == "planned"
    assert any(f"'a' did not come back from {step}()" in error for error in done.errors)
