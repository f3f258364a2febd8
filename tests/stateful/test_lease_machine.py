"""Leases on a real store: several open handles, reopened and rebuilt at any time, a wild clock.

The promise: a write under a token is accepted if and only if no later claim, release or deletion
stands in the log. The model is two lists per task.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ckptlog
from ckptlog import CheckpointManager, LeaseHeldError, LeaseLostError, LeaseRequiredError
from ckptlog.model.lease import Grant
from tests.manager.clock import SettableEnvironment

TASKS = st.sampled_from(["t", "u/1"])
WHO = st.integers(0, 1)
TTL_S = 50


class Clock(SettableEnvironment):
    """A clock that moves only where a rule says so."""

    def __init__(self) -> None:
        super().__init__()
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        """Return the set time."""
        return self.us


class LeaseMachine(RuleBasedStateMachine):
    """Handles on one store, and every grant that anybody ever got."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.path = Path(tempfile.mkdtemp(prefix="ckptlog-leases-")) / "store"
        self.grants: dict[str, list[Grant]] = {"t": [], "u/1": []}
        self.present: dict[str, Grant | None] = {"t": None, "u/1": None}
        self.writes = 0

    @initialize()
    def open(self):
        self.managers = [self.opened(), self.opened()]

    def opened(self) -> CheckpointManager:
        store = ckptlog.open(self.path, create=True, environment=self.clock)
        return CheckpointManager(store=store)

    def teardown(self):
        for manager in self.managers:
            manager.store.close()
        shutil.rmtree(self.path.parent)

    def is_live(self, task: str) -> bool:
        grant = self.present[task]
        return grant is not None and 0 < grant.expires_us - self.clock.us <= 2 * grant.ttl_us

    @rule(seconds=st.integers(-3 * TTL_S, 3 * TTL_S))
    def let_time_pass(self, seconds):
        self.clock.us += seconds * 1_000_000

    @rule(who=WHO)
    def reopen(self, who):
        self.managers[who].store.close()
        self.managers[who] = self.opened()

    @rule(who=WHO)
    def rebuild(self, who):
        self.managers[who].store.rebuild_views()

    @rule(who=WHO)
    def apply_the_view(self, who):
        self.managers[who].store.view()

    @rule(who=WHO, task=TASKS)
    def claim(self, who, task):
        was_live = self.is_live(task)
        try:
            lease = self.managers[who].acquire_lease(task, ttl_s=TTL_S)
        except LeaseHeldError:
            assert was_live
            return
        assert not was_live
        assert all(lease.token > one.token for one in self.grants[task])
        self.grants[task].append(lease.grant)
        self.present[task] = lease.grant

    @precondition(lambda self: any(self.grants.values()))
    @rule(who=WHO, data=st.data(), act=st.sampled_from(["renew", "release", "write", "end"]))
    def act_under_some_lease(self, who, data, act):
        task = data.draw(st.sampled_from([one for one, got in self.grants.items() if got]))
        grant = data.draw(st.sampled_from(self.grants[task]))
        present = self.present[task]
        is_good = present is not None and present.token == grant.token
        manager = self.managers[who]
        lease = manager.adopt_lease(grant)
        before = manager.store.position
        try:
            if act == "renew":
                lease.renew()
                self.present[task] = lease.grant
            elif act == "release":
                assert lease.release() is is_good
                self.present[task] = None if is_good else present
            elif act == "write":
                manager.create_checkpoint(task, "T", 1, lease=lease)
            else:
                gone = manager.delete_task(task, lease=lease)
                self.present[task] = None if gone else present
        except LeaseLostError:
            assert not is_good
            assert manager.store.position == before
        else:
            assert is_good or act == "release" or (act == "end" and not gone)

    @rule(who=WHO, task=TASKS)
    def write_without_one(self, who, task):
        try:
            self.managers[who].create_checkpoint(task, "T", 1)
        except LeaseRequiredError:
            assert self.is_live(task)
        else:
            assert not self.is_live(task)

    @invariant()
    def every_handle_says_the_same(self):
        wanted = {task: grant for task, grant in self.present.items() if grant is not None}
        for manager in getattr(self, "managers", ()):
            assert manager.store.leases() == wanted


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=15, stateful_step_count=25)


@pytest.mark.thorough
class TestLeasesLong(LeaseMachine.TestCase):
    """The same for longer."""

    settings = settings(max_examples=300, stateful_step_count=60)
