"""Clean-ups by random policies on a random store, against an oracle that knows only the manager.

The oracle reads every rule in words over `CheckpointData`, and asks `can_recover_task` and
`get_recovery_point` what must not go. After each clean-up: nothing that it keeps is gone, nothing
that must go is there, what was planned is what was done, and everything left reads as before.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ckptlog
from ckptlog import CheckpointManager, CheckpointState
from ckptlog.manager import sweep
from tests.manager.clock import SettableEnvironment

TASKS = st.sampled_from(("train-a", "train-b", "eval"))
STATES = tuple(state.value for state in CheckpointState)
METRIC = st.one_of(st.integers(0, 5), st.floats(0, 5), st.just("none"), st.just(True))
RULE = st.fixed_dictionaries(
    {},
    optional={
        "tasks": st.lists(st.sampled_from(("*", "train-*", "*-[ab]", "eval", "no")), min_size=1),
        "except_tasks": st.lists(st.sampled_from(("train-b", "e*")), min_size=1),
        "keep_last": st.integers(0, 4),
        "keep_every": st.integers(1, 4),
        "keep_days": st.integers(0, 10),
        "keep_states": st.lists(st.sampled_from(STATES), min_size=1, unique=True),
        "keep_best": st.lists(
            st.fixed_dictionaries(
                {
                    "metric": st.sampled_from(("loss", "acc")),
                    "order": st.sampled_from(("min", "max")),
                    "n": st.integers(1, 3),
                }
            ),
            min_size=1,
            max_size=2,
        ),
    },
).filter(lambda one: any(key.startswith("keep_") for key in one))
POLICY = st.fixed_dictionaries(
    {"rules": st.lists(RULE, min_size=1, max_size=3)},
    optional={"keep_recovery_points": st.booleans(), "keep_pinned": st.booleans()},
)


class FrozenClock(SettableEnvironment):
    """A clock that goes only where it is set; two readings in one step are the same."""

    def __init__(self):
        super().__init__()
        self._start_us = super().now_us()

    def now_us(self):
        return self._start_us + self._offset_us


class RetentionMachine(RuleBasedStateMachine):
    """Random writers and clean-ups on one store."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FrozenClock()
        self.open()

    def open(self):
        self.store = ckptlog.open(self.folder / "s", create=True, environment=self.clock)
        self.manager = CheckpointManager(store=self.store, actor="machine")

    def teardown(self):
        assert self.store.verify().ok
        self.store.close()
        shutil.rmtree(self.folder)

    # --- writers ------------------------------------------------------------------------------

    @initialize(losses=st.lists(METRIC, max_size=8), task=TASKS)
    def some_are_there(self, losses, task):
        self.create_many(losses, task)

    @rule(losses=st.lists(METRIC, min_size=2, max_size=8), task=TASKS)
    def create_many(self, losses, task):
        for step, loss in enumerate(losses, 1):
            self.create(task, step, {"loss": loss, "acc": 5 - step}, None)

    @rule(
        task=TASKS,
        step=st.integers(1, 9),
        metrics=st.dictionaries(st.sampled_from(("loss", "acc")), METRIC),
        total=st.none() | st.integers(1, 9),
    )
    def create(self, task, step, metrics, total):
        self.manager.create_checkpoint(
            task, "T", step, total_steps=total, data={"n": list(range(step))}, metadata=metrics
        )

    @precondition(lambda self: self.living())
    @rule(pick=st.integers(0), act=st.sampled_from(("update", "complete", "fail", "restore")))
    def change(self, pick, act):
        one = self.any(pick)
        with suppress(ckptlog.CheckpointUpdateError):
            getattr(self.manager, f"{act}_checkpoint")(one.checkpoint_id)

    @precondition(lambda self: self.living())
    @rule(pick=st.integers(0), is_pinned=st.booleans())
    def pin(self, pick, is_pinned):
        name = self.any(pick).checkpoint_id
        act = self.manager.pin_checkpoint if is_pinned else self.manager.unpin_checkpoint
        was_pinned = self.is_pinned(self.manager.get_checkpoint(name))
        assert act(name) == (was_pinned != is_pinned)
        assert self.is_pinned(self.manager.get_checkpoint(name)) == is_pinned

    @precondition(lambda self: self.living())
    @rule(pick=st.integers(0))
    def delete(self, pick):
        self.manager.delete_checkpoint(self.any(pick).checkpoint_id)

    @rule(days=st.integers(0, 6))
    def time_goes_by(self, days):
        self.clock.advance(days=days, seconds=1)

    @rule()
    def reopen(self):
        self.store.close()
        self.open()

    # --- clean-ups ----------------------------------------------------------------------------

    @rule(policy=POLICY, batch=st.integers(1, 5))
    def clean_up(self, policy, batch):
        must_stay = self.oracle(policy)
        before = {one.checkpoint_id: one for one in self.manager.iterate()}
        points = self.recovery_points()
        plan = self.manager.plan_cleanup(retention=policy)
        assert {one.checkpoint_id for one in self.manager.iterate()} == set(before)
        assert set(before) - set(plan.checkpoints) == must_stay
        assert plan.bytes == self.bytes_of(set(plan.checkpoints))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweep, "DELETES_MAX", batch)
            count = self.manager.cleanup_old_checkpoints(retention=policy)
        after = {one.checkpoint_id: one for one in self.manager.iterate()}
        assert set(after) == must_stay
        assert count == len(before) - len(after)
        assert after == {name: before[name] for name in must_stay}
        if policy.get("keep_recovery_points", True):
            assert self.recovery_points() == points
        assert self.manager.cleanup_old_checkpoints(retention=policy) == 0

    @rule(days=st.integers(0, 12))
    def clean_up_by_age(self, days):
        limit = self.now() - timedelta(days=days)
        must_go = {
            one.checkpoint_id
            for one in self.living()
            if one.state.value in ("completed", "failed")
            and one.updated_at < limit
            and not self.is_pinned(one)
        }
        assert set(self.manager.plan_cleanup(days).checkpoints) == must_go
        assert self.manager.cleanup_old_checkpoints(days) == len(must_go)
        assert not must_go & {one.checkpoint_id for one in self.living()}

    @invariant()
    def lists_work(self):
        assert len(self.living()) == self.store.stats()["checkpoints"]

    # --- the oracle ---------------------------------------------------------------------------

    def oracle(self, policy):
        kept = set()
        everything = self.living()
        for task in {one.task_id for one in everything}:
            mine = [one for one in everything if one.task_id == task]
            rules = [one for one in policy["rules"] if self.speaks_of(one, task)]
            if not rules:
                kept |= {one.checkpoint_id for one in mine}
            for rule_ in rules:
                for place, one in enumerate(mine):
                    if self.keeps(rule_, mine, place):
                        kept.add(one.checkpoint_id)
            if policy.get("keep_pinned", True):
                kept |= {one.checkpoint_id for one in mine if self.is_pinned(one)}
            if policy.get("keep_recovery_points", True) and self.manager.can_recover_task(task):
                kept.add(self.manager.get_recovery_point(task).checkpoint_id)
                latest = [one for one in mine if one.checkpoint_id in kept][-1]
                is_last = not latest.total_steps or latest.step_number >= latest.total_steps
                if latest.state is CheckpointState.COMPLETED and is_last:
                    kept.add(mine[-1].checkpoint_id)
        return kept

    def recovery_points(self):
        """Return what each task that can be recovered resumes from."""
        tasks = {one.task_id for one in self.living()}
        return {
            task: self.manager.get_recovery_point(task).checkpoint_id
            for task in tasks
            if self.manager.can_recover_task(task)
        }

    @staticmethod
    def speaks_of(rule_, task):
        named = any(fnmatchcase(task, one) for one in rule_.get("tasks", ["*"]))
        return named and not any(fnmatchcase(task, one) for one in rule_.get("except_tasks", []))

    def keeps(self, rule_, mine, place):
        one = mine[place]
        if len(mine) - place <= rule_.get("keep_last", 0):
            return True
        if "keep_every" in rule_ and one.step_number % rule_["keep_every"] == 0:
            return True
        if "keep_days" in rule_:
            limit = self.now() - timedelta(days=rule_["keep_days"])
            if one.updated_at >= limit:
                return True
        if one.state.value in rule_.get("keep_states", []):
            return True
        return any(self.is_best(best, mine, place) for best in rule_.get("keep_best", []))

    @staticmethod
    def is_best(best, mine, place):
        def value(one):
            found = one.metadata.get(best["metric"])
            is_number = isinstance(found, int | float) and not isinstance(found, bool)
            return found if is_number else None

        ours = value(mine[place])
        if ours is None:
            return False
        better = 0
        for other_place, other in enumerate(mine):
            theirs = value(other)
            if theirs is None or other_place == place:
                continue
            if theirs == ours:
                better += other_place > place
            else:
                better += (theirs < ours) == (best["order"] == "min")
        return better < best["n"]

    def bytes_of(self, going):
        """Sum the stored chunks that only these have, from the payloads themselves."""
        gone, kept = set(), set()
        for one in self.living():
            event = self.store.newest(one.checkpoint_id).event
            for reference in (event.data, event.meta):
                mine = gone if one.checkpoint_id in going else kept
                mine |= self.store.blobs.digests(reference)
        return sum(self.store.index.get(digest).length for digest in gone - kept)

    # --- small things -------------------------------------------------------------------------

    def now(self):
        return datetime.fromtimestamp(self.clock.now_us() / 1e6, UTC)

    def living(self):
        return list(self.manager.iterate())

    def any(self, pick):
        living = self.living()
        return living[pick % len(living)]

    @staticmethod
    def is_pinned(one):
        return one.metadata.get("pinned") is True


RetentionMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None
)
TestRetention = RetentionMachine.TestCase


@pytest.mark.thorough
def test_a_long_hunt():
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        RetentionMachine,
        settings=settings(max_examples=1500, stateful_step_count=30, deadline=None),
    )
